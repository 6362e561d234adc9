"""Wavefront OBJ files as arrays, fast enough for scans of a million faces: the lines are read by compiled code."""

from dataclasses import dataclass
from pathlib import Path
from typing import no_type_check  # the tests' shape checker must not wrap what numba compiles

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from numba import njit

from humansplat.data.scans.scan import check_face_count
from humansplat.errors import UserError

_V, _T, _F, _U, _M, _HASH = (ord(letter) for letter in "vtfum#")
_SPACE, _TAB, _NEWLINE, _RETURN, _SLASH, _MINUS, _PLUS, _DOT, _ZERO = (ord(letter) for letter in " \t\n\r/-+.0")


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjFile:
    """What of an OBJ file a renderer needs."""

    vertices: Float[np.ndarray, "v 3"]
    colors: Float32[np.ndarray, "v 3"] | None
    """As the file has them, where every vertex has three numbers more."""
    uvs: Float32[np.ndarray, "t 2"]
    faces: Int32[np.ndarray, "f 3"]
    """Polygons are cut into fans."""
    uv_faces: Int32[np.ndarray, "f 3"]
    """-1 where a corner has none."""
    materials: tuple[str, ...]
    """Names in the order of their first use; the first is empty if faces come before any."""
    face_materials: Int[np.ndarray, " f"]
    """Places in ``materials``."""
    libraries: tuple[str, ...]
    """Names of the files that describe the materials."""


def read_obj(path: Path) -> ObjFile:
    """Read an OBJ file; groups, normals, lines and curves are passed over.

    Raises:
        UserError: If it has too many faces, or a face names what the file does not have.
    """
    data = np.fromfile(path, np.uint8)
    num_vertices, num_uvs, num_faces, num_names = _count(data)
    check_face_count(path, num_faces)
    vertices, colors = np.empty((num_vertices, 3)), np.empty((num_vertices, 3), np.float32)
    uvs = np.empty((num_uvs, 2), np.float32)
    faces, uv_faces = np.empty((num_faces, 3), np.int32), np.empty((num_faces, 3), np.int32)
    names = np.empty((num_names, 3), np.int64)
    fine, colored = _fill(data, vertices, colors, uvs, faces, uv_faces, names)
    if not fine or (num_faces and (faces.min() < 0 or faces.max() >= num_vertices)):
        raise UserError(f"{path} has faces that cannot be read or that name vertices it does not have; export it anew")
    if num_faces and uv_faces.max() >= num_uvs:
        raise UserError(f"{path} has faces that name texture coordinates it does not have; export it anew")
    materials, face_materials, libraries = _named(data, names, num_faces)
    return ObjFile(
        vertices=vertices,
        colors=colors if colored else None,
        uvs=uvs,
        faces=faces,
        uv_faces=uv_faces,
        materials=materials,
        face_materials=face_materials,
        libraries=libraries,
    )


def _named(
    data: np.ndarray, names: np.ndarray, num_faces: int
) -> tuple[tuple[str, ...], Int[np.ndarray, " f"], tuple[str, ...]]:
    """The materials, those of the faces, and the libraries, of ``[start, stop, faces before]`` of their lines."""
    places: dict[str, int] = {}
    of_faces = np.zeros(num_faces, np.int32)
    libraries: list[str] = []
    uses = names[data[names[:, 0]] == _U]
    if not len(uses) or uses[0, 2] > 0:
        places[""] = 0
    for start, stop, before in names.tolist():
        word, _, value = data[start:stop].tobytes().decode("utf-8", "replace").strip().partition(" ")
        if word == "mtllib":
            libraries.append(value.strip())
        elif word == "usemtl":
            of_faces[before:] = places.setdefault(value.strip(), len(places))
    return tuple(places) or ("",), of_faces, tuple(libraries)


@njit(cache=True, nogil=True)
@no_type_check
def _end_of_line(data, i):
    while i < len(data) and data[i] != _NEWLINE:
        i += 1
    return i


@njit(cache=True, nogil=True)
@no_type_check
def _next_word(data, i):
    """The start of the next word of the line, or the line's end."""
    while i < len(data) and (data[i] == _SPACE or data[i] == _TAB or data[i] == _RETURN):
        i += 1
    return i


@njit(cache=True, nogil=True)
@no_type_check
def _ends(data, i):
    return i >= len(data) or data[i] == _NEWLINE or data[i] == _HASH


@njit(cache=True, nogil=True)
@no_type_check
def _is_blank(data, i):
    return i < len(data) and (data[i] == _SPACE or data[i] == _TAB)


@njit(cache=True, nogil=True)
@no_type_check
def _skip_word(data, i):
    while i < len(data) and not (data[i] == _SPACE or data[i] == _TAB or data[i] == _RETURN or data[i] == _NEWLINE):
        i += 1
    return i


@njit(cache=True, nogil=True)
@no_type_check
def _count(data):
    """Numbers of vertices, texture coordinates, triangles, and lines that name materials."""
    vertices = uvs = faces = names = 0
    i = 0
    while i < len(data):
        i = _next_word(data, i)
        if i + 1 < len(data):
            if data[i] == _V:
                if _is_blank(data, i + 1):
                    vertices += 1
                elif data[i + 1] == _T:
                    uvs += 1
            elif data[i] == _F and _is_blank(data, i + 1):
                corners = 0
                i = _next_word(data, i + 1)
                while not _ends(data, i):
                    corners += 1
                    i = _next_word(data, _skip_word(data, i))
                faces += max(corners - 2, 0)
            elif data[i] == _U or data[i] == _M:
                names += 1
        i = _end_of_line(data, i) + 1
    return vertices, uvs, faces, names


@njit(cache=True, nogil=True)
@no_type_check
def _number(data, i):
    """One decimal number and where it ends; NaN for anything else."""
    sign = 1.0
    if i < len(data) and (data[i] == _MINUS or data[i] == _PLUS):
        sign = -1.0 if data[i] == _MINUS else 1.0
        i += 1
    value, digits, exponent = 0.0, 0, 0
    seen_dot = False
    while i < len(data):
        digit = data[i] - _ZERO
        if 0 <= digit <= 9:
            value = value * 10.0 + digit
            digits += 1
            exponent -= 1 if seen_dot else 0
        elif data[i] == _DOT and not seen_dot:
            seen_dot = True
        else:
            break
        i += 1
    if digits > 0 and i < len(data) and (data[i] == 101 or data[i] == 69):  # e, E
        power, i = _integer(data, i + 1)
        exponent += power
    end = _skip_word(data, i)
    if digits == 0 or end != i:
        return np.nan, end
    return sign * value * 10.0**exponent, end


@njit(cache=True, nogil=True)
@no_type_check
def _integer(data, i):
    """One whole number and where it ends; 0 where there is none."""
    sign, value = 1, 0
    if i < len(data) and (data[i] == _MINUS or data[i] == _PLUS):
        sign = -1 if data[i] == _MINUS else 1
        i += 1
    while i < len(data) and 0 <= data[i] - _ZERO <= 9:
        value = value * 10 + (data[i] - _ZERO)
        i += 1
    return sign * value, i


@njit(cache=True, nogil=True)
@no_type_check
def _corner(data, i, num_vertices, num_uvs):
    """Vertex and texture coordinate of a corner from 0, -1 for none; negative numbers in the file count back."""
    vertex, i = _integer(data, i)
    uv = 0
    if i < len(data) and data[i] == _SLASH:
        uv, i = _integer(data, i + 1)
    vertex = vertex - 1 if vertex > 0 else vertex + num_vertices if vertex < 0 else -1
    uv = uv - 1 if uv > 0 else uv + num_uvs if uv < 0 else -1
    return vertex, uv, _skip_word(data, i)


@njit(cache=True, nogil=True)
@no_type_check
def _fill(data, vertices, colors, uvs, faces, uv_faces, names):
    """Fill the arrays; tell whether all faces could be read, and whether all vertices have colours."""
    v = t = f = m = 0
    fine, colored = True, len(vertices) > 0
    i = 0
    while i < len(data):
        i = _next_word(data, i)
        if i + 1 < len(data):
            if data[i] == _V and _is_blank(data, i + 1):
                i = _next_word(data, i + 1)
                numbers = 0
                vertices[v] = np.nan
                while not _ends(data, i) and numbers < 7:
                    value, i = _number(data, i)
                    if numbers < 3:
                        vertices[v, numbers] = value
                    elif numbers < 6:
                        colors[v, numbers - 3] = value
                    numbers += 1
                    i = _next_word(data, i)
                colored = colored and numbers >= 6
                v += 1
            elif data[i] == _V and data[i + 1] == _T:
                uvs[t] = 0.0
                i = _next_word(data, i + 2)
                for k in range(2):
                    if not _ends(data, i):
                        uvs[t, k], i = _number(data, i)
                        i = _next_word(data, i)
                t += 1
            elif data[i] == _F and _is_blank(data, i + 1):
                i = _next_word(data, i + 1)
                corners = 0
                first = second = first_uv = second_uv = -1
                while not _ends(data, i):
                    vertex, uv, i = _corner(data, i, v, t)
                    fine = fine and vertex >= 0
                    if corners >= 2:
                        faces[f, 0], faces[f, 1], faces[f, 2] = first, second, vertex
                        uv_faces[f, 0], uv_faces[f, 1], uv_faces[f, 2] = first_uv, second_uv, uv
                        f += 1
                    if corners == 0:
                        first, first_uv = vertex, uv
                    second, second_uv = vertex, uv
                    corners += 1
                    i = _next_word(data, i)
                fine = fine and corners >= 3
            elif data[i] == _U or data[i] == _M:
                names[m, 0], names[m, 1], names[m, 2] = i, _end_of_line(data, i), f
                m += 1
        i = _end_of_line(data, i) + 1
    return fine, colored
