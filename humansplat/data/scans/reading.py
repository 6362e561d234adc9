"""``read_scan``: an OBJ, PLY, GLB or glTF file as textured or vertex-coloured pieces."""

import json
import re
import struct
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual import ColorVisuals, TextureVisuals

from humansplat.data.scans.obj import ObjFile, read_obj
from humansplat.data.scans.scan import Scan, check_face_count, check_scan
from humansplat.data.scans.textures import load_texture, picture_beside, texture_of
from humansplat.errors import UserError
from humansplat.io.body_files.values import DAMAGED
from humansplat.render.shaded_mesh import AlphaMode, ShadedMesh

SUFFIXES = (".obj", ".ply", ".glb", ".gltf")
PLAIN = (0.5, 0.5, 0.5)
"""Linear grey of meshes without any colour."""
_ALPHA_MODES: dict[str, AlphaMode] = {"OPAQUE": "opaque", "MASK": "cutout", "BLEND": "blend"}
_HEADER_BYTES = 1 << 16


def read_scan(path: Path) -> Scan:
    """Read a scan in its own units and axes.

    OBJ by compiled code (a million faces in a second), with the materials of its ``.mtl``, or vertex colours; PLY with
    vertex colours or a texture; GLB and glTF with all their pieces where the scene puts them.

    Raises:
        UserError: If the file or its texture is missing, cannot be read, or is no surface of a person.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path}: no such scan")
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: scans end in {', '.join(SUFFIXES)}")
    notes: list[str] = []
    if suffix == ".obj":
        meshes = _of_obj(path, notes)
    else:
        num_textured = 0
        if suffix == ".ply":
            _check_ply_header(path)
        else:
            num_textured = _check_gltf_header(path)
        meshes = _of_trimesh(path, num_textured, notes)
    scan = Scan(path=path, meshes=tuple(meshes), notes=tuple(notes))
    return replace(check_scan(scan), meshes=tuple(_sound(mesh) for mesh in meshes))


def _sound(mesh: ShadedMesh) -> ShadedMesh:
    """Without the faces that have a corner twice."""
    a, b, c = mesh.faces.T
    keep = (a != b) & (b != c) & (c != a)
    if keep.all():
        return mesh
    return replace(mesh, faces=mesh.faces[keep], uv_faces=None if mesh.uv_faces is None else mesh.uv_faces[keep])


def _of_obj(path: Path, notes: list[str]) -> list[ShadedMesh]:
    obj = read_obj(path)
    if not len(obj.faces):
        return [ShadedMesh(vertices=obj.vertices, faces=obj.faces)]
    described = _materials(path, obj)
    textures: dict[Path, np.ndarray] = {}
    all_colors = None if obj.colors is None else _bytes(obj.colors)
    meshes = []
    for place, name in enumerate(obj.materials):
        chosen = slice(None) if len(obj.materials) == 1 else obj.face_materials == place
        faces, uv_faces = obj.faces[chosen], obj.uv_faces[chosen]
        if not len(faces):
            continue
        color, picture = described.get(name, (PLAIN, None))
        has_uvs = bool((uv_faces >= 0).all())
        if picture is None and has_uvs and name not in described:
            picture = picture_beside(path)
        if picture is not None and has_uvs and picture not in textures:
            textures[picture] = load_texture(picture, notes)
        if picture is not None and not has_uvs:
            notes.append(f"{picture.name} is not shown: some faces have no texture coordinates")
        texture = textures[picture] if picture is not None and has_uvs else None
        vertices, colors = obj.vertices, all_colors
        if len(obj.materials) > 1:
            used, local = np.unique(faces, return_inverse=True)
            vertices, faces = vertices[used], local.reshape(-1, 3).astype(np.int32)
            colors = None if colors is None else colors[used]
        plain = texture is None and colors is None
        meshes.append(
            ShadedMesh(
                vertices=vertices,
                faces=faces,
                uvs=None if texture is None else obj.uvs,
                uv_faces=None if texture is None else uv_faces,
                texture=texture,
                vertex_colors=colors,
                color=color if plain else (1.0, 1.0, 1.0),
                name=name,
                specular=0.0,
            )
        )
    return meshes


def _bytes(colors: np.ndarray) -> np.ndarray:
    """Colours as 8 bits; files have them in [0, 1] or up to 255."""
    scale = 255.0 if colors.max() <= 1.0 else 1.0
    return np.clip(np.nan_to_num(colors * scale), 0, 255).round().astype(np.uint8)


Material = tuple[tuple[float, float, float], Path | None]
"""Linear colour, and the picture if there is one."""


def _materials(path: Path, obj: ObjFile) -> dict[str, Material]:
    """The materials that the libraries of an OBJ file describe, by their names.

    Raises:
        UserError: If a material that faces use names a picture that is missing.
    """
    found: dict[str, Material] = {}
    for library in obj.libraries:
        place = _beside(path, library)
        if place is not None:
            found |= _read_mtl(place)
    for name in obj.materials:
        _, picture = found.get(name, (PLAIN, None))
        if picture is not None and not picture.is_file():
            raise UserError(f"{picture}: the texture of {path} is missing; put it there")
    if obj.libraries and not found and len(obj.uvs) and picture_beside(path) is None:
        raise UserError(f"{path} names {obj.libraries[0]}, which is missing, and there is no texture beside it")
    return found


def _read_mtl(path: Path) -> dict[str, Material]:
    found: dict[str, Material] = {}
    name: str | None = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        word, _, value = line.strip().partition(" ")
        value = value.strip()
        if word == "newmtl":
            name = value
            found[name] = (PLAIN, None)
        elif name is None:
            continue
        elif word == "Kd" and re.fullmatch(r"\s*([-+.\deE]+\s*){3}", value):
            # What modelling programs show of it: they take it for sRGB.
            red, green, blue = (min(max(float(number), 0.0), 1.0) ** 2.2 for number in value.split())
            found[name] = ((red, green, blue), found[name][1])
        elif word.lower() == "map_kd":
            picture = _beside(path, value) or _beside(path, value.split()[-1]) or path.parent / Path(value).name
            found[name] = (found[name][0], picture)
    return found


def _beside(path: Path, name: str) -> Path | None:
    """The file of a name that another file mentions: as it says, or of that name in the same folder."""
    for candidate in (path.parent / name, path.parent / re.split(r"[\\/]", name)[-1]):
        if candidate.is_file():
            return candidate
    return None


def _check_ply_header(path: Path) -> None:
    """Refuse too many faces, and a texture that is missing, before anything else is read."""
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if not head.startswith(b"ply") or b"end_header" not in head:
        raise UserError(f"{path}: not a PLY file that can be read")
    text = head[: head.index(b"end_header")].decode("ascii", "replace")
    count = re.search(r"^element face (\d+)", text, re.MULTILINE)
    if count is not None:
        check_face_count(path, int(count.group(1)))
    picture = re.search(r"^comment TextureFile (.+?)\s*$", text, re.MULTILINE)
    if picture is not None and _beside(path, picture.group(1)) is None:
        raise UserError(f"{path.parent / picture.group(1)}: the texture of {path} is missing; put it there")


def _check_gltf_header(path: Path) -> int:
    """Refuse too many faces before anything else is read; return how many pieces have a texture."""
    try:
        if path.suffix.lower() == ".gltf":
            scene = json.loads(path.read_text(encoding="utf-8"))
        else:
            with path.open("rb") as file:
                magic, _, _, length, kind = struct.unpack("<4sIII4s", file.read(20))
                if magic != b"glTF" or kind != b"JSON":
                    raise ValueError("no glTF header")
                scene = json.loads(file.read(length))
        accessors = scene.get("accessors", [])
        drawn = [primitive for mesh in scene.get("meshes", []) for primitive in mesh["primitives"]]
        counts = [
            accessors[primitive.get("indices", primitive["attributes"]["POSITION"])]["count"] for primitive in drawn
        ]
        used = [scene["materials"][primitive["material"]] for primitive in drawn if "material" in primitive]
        num_textured = sum("baseColorTexture" in material.get("pbrMetallicRoughness", {}) for material in used)
    except DAMAGED as error:
        raise UserError(f"{path}: not a glTF file that can be read ({error})") from error
    check_face_count(path, sum(counts) // 3)
    return num_textured


def _of_trimesh(path: Path, num_textured: int, notes: list[str]) -> list[ShadedMesh]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            scene = trimesh.load_scene(path, process=False, skip_materials=False)
            pieces = [piece for piece in scene.dump(concatenate=False) if isinstance(piece, trimesh.Trimesh)]
            # trimesh passes over pictures that it cannot read.
            materials = [getattr(shape.visual, "material", None) for shape in scene.geometry.values()]
            if sum(getattr(material, "baseColorTexture", None) is not None for material in materials) < num_textured:
                raise UserError(f"{path} has a texture that is missing or cannot be read; export it with JPEG or PNG")
            return [_of_piece(piece, path, notes) for piece in pieces]
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: a texture is too large ({error}); reduce it") from error
    except UserError:
        raise
    except (*DAMAGED, SyntaxError) as error:  # Pillow's word for a broken PNG
        raise UserError(f"{path} cannot be read ({type(error).__name__}: {error}); export it anew") from error


def _of_piece(piece: trimesh.Trimesh, path: Path, notes: list[str]) -> ShadedMesh:
    name = str(piece.metadata.get("name", ""))
    texture, colors, uvs = None, None, None
    color, alpha = PLAIN, _ALPHA_MODES["OPAQUE"]
    visual = piece.visual
    if isinstance(visual, TextureVisuals):
        material = visual.material
        picture, color, alpha = _surface(material)
        if picture is not None and visual.uv is not None and len(visual.uv) == len(piece.vertices):
            texture = texture_of(picture, f"a texture of {path.name}", notes)
            uvs = np.asarray(visual.uv, np.float64)
        given = visual.vertex_attributes.get("color")
        if texture is None and given is not None and len(given) == len(piece.vertices):
            colors = np.asarray(given)[:, :3]
    elif isinstance(visual, ColorVisuals) and visual.defined:
        colors = np.asarray(visual.vertex_colors)[:, :3]
    if colors is not None and colors.dtype != np.uint8:
        colors = _bytes(colors)
    is_plain = texture is None and colors is None
    return ShadedMesh(
        vertices=np.asarray(piece.vertices, np.float64),
        faces=np.asarray(piece.faces, np.int64),
        uvs=uvs,
        texture=texture,
        vertex_colors=colors,
        color=color if is_plain or texture is not None else (1.0, 1.0, 1.0),
        alpha=alpha if texture is not None and texture.shape[2] == 4 else "opaque",
        name=name,
        specular=0.0,
    )


def _surface(material: object) -> tuple[Image.Image | None, tuple[float, float, float], AlphaMode]:
    """Picture, linear factor and meaning of alpha of trimesh's materials."""
    picture = getattr(material, "baseColorTexture", None)
    if picture is None:
        picture = getattr(material, "image", None)
    if picture is None:  # scans without shading are written so by some programs
        picture = getattr(material, "emissiveTexture", None)
    factor = getattr(material, "baseColorFactor", None)
    linear = (1.0, 1.0, 1.0) if picture is not None else PLAIN
    if factor is not None:
        values = np.asarray(factor, np.float64)[:3] / (255.0 if np.asarray(factor).dtype == np.uint8 else 1.0)
        linear = (float(values[0]), float(values[1]), float(values[2]))
    return picture, linear, _ALPHA_MODES.get(str(getattr(material, "alphaMode", "OPAQUE")), "opaque")
