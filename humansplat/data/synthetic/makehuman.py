"""Readers of MakeHuman's asset files.

MakeHuman works in decimetres, Y up, the person facing +Z: the house frame times ten. Formats as described in
MakeHuman's own documentation: Wavefront ``.obj``, ``.mhclo`` (binds a proxy to the hm08 base mesh), ``.mhmat``
(material), ``.bvh`` (pose), ``.mhpose`` (expression in units of ``face-poseunits``).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from humansplat.errors import UserError

NUM_BASE_VERTICES = 19158
"""Vertices of the hm08 base mesh, helpers included."""
_TURNS = frozenset({"Xrotation", "Yrotation", "Zrotation"})


@dataclass(frozen=True, kw_only=True, eq=False)
class ObjMesh:
    """Triangles of a Wavefront file, quads split along their first diagonal."""

    vertices: Float[np.ndarray, "v 3"]
    """File units."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, winding of the file."""
    uvs: Float[np.ndarray, "t 2"]
    """Texture coordinates, origin at the bottom left; empty when the file has none."""
    uv_faces: Int[np.ndarray, "f 3"]
    """Indices into ``uvs``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Binding:
    """How a proxy's vertices hang on the base mesh: ``sum_i w_i V[idx_i] + offset * scale``."""

    name: str
    """Name that the file gives itself."""
    obj_file: str
    """Name of the mesh file beside it."""
    material: str
    """Name of the material file, relative to the binding; empty when there is none."""
    indices: Int[np.ndarray, "n 3"]
    """Base mesh vertices that carry each proxy vertex."""
    weights: Float[np.ndarray, "n 3"]
    """Shares of these vertices; they sum to 1, and may leave ``[0, 1]``."""
    offsets: Float[np.ndarray, "n 3"]
    """Along the axes of the rest pose, before scaling."""
    scale_vertices: Int[np.ndarray, "3 2"]
    """For each axis, the two base vertices whose distance along it sets the scale."""
    scale_lengths: Float[np.ndarray, " 3"]
    """For each axis, the distance in decimetres at which the scale is one."""
    deleted: Bool[np.ndarray, " b"]
    """Base vertices that the proxy covers."""

    def fit(self, base: Float[np.ndarray, "b 3"]) -> Float[np.ndarray, "n 3"]:
        """Place the proxy on a shaped base mesh in its rest pose.

        Args:
            base: All base vertices, metres.

        Returns:
            Proxy vertices, metres.
        """
        ends = base[self.scale_vertices]  # [3, 2, 3]
        lengths = np.abs(ends[:, 0] - ends[:, 1])[np.arange(3), np.arange(3)]
        carried = np.einsum("nk,nkc->nc", self.weights, base[self.indices])
        return carried + self.offsets * (lengths / self.scale_lengths)

    def transfer(self, values: Float[np.ndarray, "b c"]) -> Float[np.ndarray, "n c"]:
        """Carry any per-vertex values of the base mesh over to the proxy (linear)."""
        return np.einsum("nk,nkc->nc", self.weights, values[self.indices])


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the generator uses of a ``.mhmat`` file."""

    diffuse_texture: Path | None
    """Existing texture file, or ``None``."""
    missing_texture: str
    """The diffuse texture that the file names and nobody finds; empty when there is none such."""
    ao_texture: Path | None
    """Existing ambient occlusion file, or ``None``."""
    transparent: bool
    """Whether the file marks the surface as transparent."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """Local rotations of a ``.bvh`` file."""

    joint_names: tuple[str, ...]
    """In the file's order."""
    rotations: Float[np.ndarray, "f j 3 3"]
    """Rotation of each joint against its parent, in the file's axes (MakeHuman's poses are Z up, facing -Y)."""
    offsets: Float[np.ndarray, "j 3"]
    """Rest position of each joint against its parent, file units."""
    parents: tuple[int, ...]
    """Parent of each joint, -1 for the root; parents come first."""


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); unpack the MakeHuman assets again") from error


def read_obj(path: Path) -> ObjMesh:
    """Read positions, texture coordinates and faces of a Wavefront file.

    Raises:
        UserError: If the file cannot be read or is damaged.
    """
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    uv_faces: list[tuple[int, int, int]] = []
    lines = _lines(path)
    try:
        for line in lines:
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append([float(word) for word in words[1:4]])
            elif words[0] == "vt":
                uvs.append([float(word) for word in words[1:3]])
            elif words[0] == "f":
                corners = [word.split("/") for word in words[1:]]
                places = [_index(corner[0], len(vertices)) for corner in corners]
                textured = [_index(corner[1], len(uvs)) if len(corner) > 1 and corner[1] else 0 for corner in corners]
                for k in range(1, len(corners) - 1):
                    faces.append((places[0], places[k], places[k + 1]))
                    uv_faces.append((textured[0], textured[k], textured[k + 1]))
        mesh = ObjMesh(
            vertices=np.array(vertices, np.float32).reshape(-1, 3),
            faces=np.array(faces, np.int64).reshape(-1, 3),
            uvs=np.array(uvs, np.float32).reshape(-1, 2),
            uv_faces=np.array(uv_faces, np.int64).reshape(-1, 3),
        )
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} is not a Wavefront mesh ({error}); unpack the MakeHuman assets again") from error
    if not len(mesh.faces) or mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise UserError(f"{path} has no usable faces; unpack the MakeHuman assets again")
    if len(mesh.uvs) and (mesh.uv_faces.min() < 0 or mesh.uv_faces.max() >= len(mesh.uvs)):
        raise UserError(f"{path} has faces with texture coordinates that it lacks; unpack the MakeHuman assets again")
    return mesh


def _index(word: str, count: int) -> int:
    """Index from 0 of what a face names: counted from 1, or backwards from the latest by negative numbers."""
    number = int(word)
    return number - 1 if number > 0 else count + number


def _deleted_vertices(words: list[str], num_base: int) -> Bool[np.ndarray, " b"]:
    deleted = np.zeros(num_base, bool)
    numbers = iter(words)
    previous = -1
    for word in numbers:
        if word == "-":  # a range: "first - last"
            last = int(next(numbers))
            deleted[previous : last + 1] = True
        else:
            previous = int(word)
            deleted[previous] = True
    return deleted


def read_mhclo(path: Path, *, num_base: int = NUM_BASE_VERTICES) -> Binding:
    """Read how a proxy hangs on the base mesh.

    Args:
        path: A ``.mhclo`` file.
        num_base: Number of base vertices, to check the indices against.

    Raises:
        UserError: If the file cannot be read, is damaged, or binds to vertices that the base mesh lacks.
    """
    keys = {"name": path.stem, "obj_file": f"{path.stem}.obj", "material": ""}
    base = "hm08"
    scales: dict[str, tuple[int, int, float]] = {}
    bound: list[list[float]] = []
    deleted: list[str] = []
    section = ""
    lines = _lines(path)
    try:
        for line in lines:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0] in ("verts", "weights", "delete_verts"):
                section = words[0]
            elif words[0][0].isdigit() or words[0].startswith("-"):
                if section == "verts":
                    bound.append([float(word) for word in words])
                elif section == "delete_verts":
                    deleted += words
            elif words[0] == "basemesh":
                base = " ".join(words[1:])
            elif words[0] in keys:
                keys[words[0]] = " ".join(words[1:])
            elif words[0] in ("x_scale", "y_scale", "z_scale"):
                scales[words[0][0]] = (int(words[1]), int(words[2]), float(words[3]))
        rows = [[row[0]] * 3 + [1.0, 0.0, 0.0] + [0.0] * 3 if len(row) == 1 else row for row in bound]
        table = np.array(rows, np.float64).reshape(-1, 9)
        covered = _deleted_vertices(deleted, num_base)
    except (ValueError, IndexError, StopIteration) as error:
        raise UserError(f"{path} is not a MakeHuman proxy file ({error}); unpack the assets again") from error
    indices = table[:, :3].astype(np.int64)
    if base != "hm08" or not len(table) or indices.min() < 0 or indices.max() >= num_base:
        raise UserError(f"{path} does not bind to the hm08 base mesh of {num_base} vertices; use an hm08 asset")
    axes = [scales.get(axis, (0, 0, 0.0)) for axis in "xyz"]
    if any(length <= 0 for _, _, length in axes):
        raise UserError(f"{path} lacks one of the lines x_scale, y_scale, z_scale; unpack the assets again")
    return Binding(
        name=keys["name"],
        obj_file=keys["obj_file"],
        material=keys["material"],
        indices=indices,
        weights=table[:, 3:6].astype(np.float32),
        offsets=table[:, 6:9].astype(np.float32),
        scale_vertices=np.array([axis[:2] for axis in axes], np.int64),
        # The file divides decimetres by this; our base mesh is in metres and the offsets are in decimetres,
        # so the two factors of ten cancel.
        scale_lengths=np.array([axis[2] for axis in axes], np.float32),
        deleted=covered,
    )


def read_mhmat(path: Path) -> Material:
    """Read the textures that a material names; those that do not exist are dropped.

    Raises:
        UserError: If the file cannot be read.
    """
    values: dict[str, str] = {}
    for line in _lines(path):
        words = line.split(maxsplit=1)
        if len(words) == 2 and not words[0].startswith("#"):
            values[words[0]] = words[1].strip()

    def texture(key: str) -> Path | None:
        return find_beside(path, values[key]) if key in values else None

    diffuse = texture("diffuseTexture")
    return Material(
        diffuse_texture=diffuse,
        missing_texture=values.get("diffuseTexture", "") if diffuse is None else "",
        ao_texture=texture("aomapTexture"),
        transparent=values.get("transparent", "False").lower() == "true",
    )


def find_beside(path: Path, name: str) -> Path | None:
    """The file that an asset names, relative to its own folder; writers on Windows do not mind the case.

    Returns:
        An existing file, or ``None``.
    """
    found = path.parent / name.replace("\\", "/")
    if found.is_file():
        return found
    if not found.parent.is_dir():
        return None
    same = (other for other in found.parent.iterdir() if other.name.casefold() == found.name.casefold())
    return next((other for other in sorted(same) if other.is_file()), None)


def read_bvh(path: Path) -> Motion:
    """Read every frame of a motion file; positions are dropped.

    Raises:
        UserError: If the file cannot be read or is damaged.
    """
    return parse_bvh("\n".join(_lines(path)), str(path))


def parse_bvh(text: str, source: str) -> Motion:
    """Parse the text of a motion file; ``source`` names it in messages."""
    head, _, tail = text.partition("MOTION")
    names: list[str] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    parents: list[int] = []
    above: list[int] = []  # the joints whose braces are open; an end site counts as its parent
    end_site = False
    try:
        for line in head.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] in ("ROOT", "JOINT"):
                parents.append(above[-1] if above else -1)
                names.append(words[1])
                end_site = False
            elif words[0] == "End":
                end_site = True
            elif words[0] == "{":
                above.append(len(names) - 1)
            elif words[0] == "}":
                above.pop()
            elif words[0] == "OFFSET" and not end_site:
                offsets.append([float(word) for word in words[1:4]])
            elif words[0] == "CHANNELS":
                channels.append(words[2:])
                if not {kind for kind in words[2:] if kind.endswith("rotation")} <= _TURNS:
                    raise ValueError(f"channels {' '.join(words[2:])}")
        numbers = tail.partition("Frame Time:")[2].split()[1:]
        num_channels = sum(len(channel) for channel in channels)
        table = np.array(numbers, np.float64).reshape(-1, num_channels)
    except (ValueError, IndexError) as error:
        raise UserError(f"{source} is not a BVH motion ({error}); unpack the MakeHuman assets again") from error
    if not len(table) or len(names) != len(channels) or len(names) != len(offsets):
        raise UserError(f"{source} is not a BVH motion with at least one frame; unpack the MakeHuman assets again")
    rotations = np.broadcast_to(np.eye(3), (len(table), len(names), 3, 3)).copy()
    column = 0
    for joint, channel in enumerate(channels):
        for kind in channel:
            if kind.endswith("rotation"):
                rotations[:, joint] = rotations[:, joint] @ _about_axis(kind[0], table[:, column])
            column += 1
    return Motion(
        joint_names=tuple(names),
        rotations=rotations.astype(np.float32),
        offsets=np.array(offsets, np.float32),
        parents=tuple(parents),
    )


def _about_axis(axis: str, degrees: Float[np.ndarray, " f"]) -> Float[np.ndarray, "f 3 3"]:
    angle = np.radians(degrees)
    first, second = {"X": (1, 2), "Y": (2, 0), "Z": (0, 1)}[axis]
    rotation = np.broadcast_to(np.eye(3), (len(angle), 3, 3)).copy()
    rotation[:, first, first] = rotation[:, second, second] = np.cos(angle)
    rotation[:, second, first] = np.sin(angle)
    rotation[:, first, second] = -np.sin(angle)
    return rotation


def read_expression(path: Path) -> dict[str, float]:
    """Read the shares of face units of a ``.mhpose`` file.

    Raises:
        UserError: If the file cannot be read or names no units.
    """
    lines = _lines(path)
    try:
        units = json.loads("\n".join(lines), strict=False)["unit_poses"]
        return {str(name): float(value) for name, value in units.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a MakeHuman expression ({error}); unpack the assets again") from error


def read_face_unit_names(path: Path) -> tuple[str, ...]:
    """Read the names of the frames of ``face-poseunits.bvh`` from ``face-poseunits.json``.

    The official file breaks JSON's rules (raw line breaks in strings, trailing blanks), so only its list is read.

    Raises:
        UserError: If the file cannot be read or holds no such list.
    """
    found = re.search(r'"framemapping"\s*:\s*\[(.*?)\]', "\n".join(_lines(path)), re.DOTALL)
    if found is None:
        raise UserError(f"{path} lists no face units; unpack the MakeHuman assets again")
    return tuple(re.findall(r'"([^"]+)"', found.group(1)))
