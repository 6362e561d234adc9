"""The folder of MakeHuman assets, read once a process and cut into pieces that can be mixed.

An asset that cannot be used (a file is missing or damaged, or made for another base mesh) is named once and left out.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from humansplat.body.anny import AnnyBody
from humansplat.data.synthetic.archive import unpacked
from humansplat.data.synthetic.clips import followable
from humansplat.data.synthetic.cloth import Cloth
from humansplat.data.synthetic.figure import Template, load_template
from humansplat.data.synthetic.makehuman import (
    Binding,
    Material,
    Motion,
    ObjMesh,
    find_beside,
    read_bvh,
    read_expression,
    read_face_unit_names,
    read_mhclo,
    read_mhmat,
    read_obj,
)
from humansplat.data.synthetic.roles import Role, vertex_roles
from humansplat.data.synthetic.splits import Split, asset_split
from humansplat.errors import UserError

logger = logging.getLogger(__name__)

OFFICIAL_ZIP = "makehuman_system_assets_cc0.zip"
NOT_SKINS = ("special_suit", "toon")
"""Words in the names of skins that are no photographs of skin."""
LEAST_KNOWN_JOINTS = 5
"""A motion that names fewer joints of MakeHuman's skeleton is one of another skeleton."""
STRANDS = frozenset({"hair", "eyebrows", "eyelashes"})
"""Kinds made of see-through cards, which show nothing but their texture."""
UNTEXTURED = Material(diffuse_texture=None, missing_texture="", ao_texture=None, transparent=False)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Connected parts of one asset that are worn together: the shirt of a suit, its trousers, a hair style."""

    asset: str
    """Name of the asset."""
    role: Role
    """Where it is worn."""
    binding: Binding
    """How the asset's vertices follow the body; ``cloth`` uses a part of them."""
    vertex_ids: np.ndarray
    """Asset vertex of each vertex of ``cloth``, ``[n]``."""
    cloth: Cloth
    """The piece on the mean adult."""
    source: Path
    """The file that binds the asset; an asset may have several."""
    texture: Path | None
    """Diffuse texture."""
    ao: Path | None
    """Ambient occlusion texture."""

    def fit(self, rest: np.ndarray) -> Cloth:
        """Place the piece on a shaped body at rest, ``[b, 3]``."""
        return self.cloth.moved(self.binding.fit(rest)[self.vertex_ids])


class Skin(NamedTuple):
    """A photograph of skin."""

    name: str
    """Name of the asset; it tells age, origin and sex."""
    texture: Path
    """Diffuse texture."""


class AssetLibrary:
    """Everything that people are made of; files are read when first needed and then kept.

    Args:
        root: Folder with ``clothes``, ``hair``, ``skins``, ... as in MakeHuman's official asset zip; or the zip.
        body: The body model; loaded when not given.
        texture_size: Longest side to which textures are reduced, pixels; pictures of 256 pixels need no more
            than 512.

    Raises:
        UserError: If the folder or one of the needed kinds of assets is missing.
    """

    def __init__(self, root: str | Path, *, body: AnnyBody | None = None, texture_size: int = 512) -> None:
        self.root = unpacked(Path(root)) if Path(root).is_file() else Path(root)
        self.texture_size = texture_size
        self._troubles: dict[Path, str] = {}
        if not self.root.is_dir():
            raise UserError(f"there is no asset folder {self.root}; unpack {OFFICIAL_ZIP} of MakeHuman there")
        self._clothes = self._files("clothes", "*/*.mhclo")
        self._hair = self._files("hair", "*/*.mhclo")
        self._skins = self._files("skins", "*/*.mhmat")
        self._poses = self._files("poses", "*.bvh")
        self.template: Template = load_template(body or AnnyBody.load())
        self._cache: dict[tuple, object] = {}

    def _files(self, kind: str, pattern: str) -> list[Path]:
        found = self._found(kind, pattern)
        if not found:
            raise UserError(f"{self.root} has no {kind}/{pattern}; unpack {OFFICIAL_ZIP} of MakeHuman there")
        return found

    def _found(self, kind: str, pattern: str) -> list[Path]:
        """Files of a kind, whatever the case of their suffix; hidden twins that a Mac leaves do not count."""
        places, _, suffix = pattern.rpartition("*")
        files = (self.root / kind).glob(f"{places}*")
        return sorted(path for path in files if path.suffix.lower() == suffix and not path.name.startswith("."))

    def _usable(self, path: Path, read: Callable[[Path], T]) -> T | None:
        """What a file gives, or ``None`` after telling (once) why the asset is left out."""
        if path in self._troubles:
            return None
        try:
            return self.cached(("file", path), lambda: read(path))
        except UserError as error:
            self._troubles[path] = str(error)
            logger.warning("left out the asset %s: %s", path.relative_to(self.root).as_posix(), error)
            return None

    def _all_usable(self, files: list[Path], read: Callable[[Path], T]) -> dict[Path, T]:
        """What each file gives; if none can be used, what is wrong with the first of them is the user's to mend."""
        read_files = {path: self._usable(path, read) for path in files}
        usable = {path: value for path, value in read_files.items() if value is not None}
        if files and not usable:
            raise UserError(self._troubles[files[0]])
        return usable

    def cached(self, key: tuple, make: Callable[[], T]) -> T:
        """The value of ``make()``, made once for each key."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]  # type: ignore[return-value]

    def texture(self, path: Path, size: int | None = None) -> UInt8[np.ndarray, "h w 4"]:
        """Load a texture as sRGB and alpha, reduced to ``size`` or the library's texture size."""
        return self.cached(("texture", path, size), lambda: _read_texture(path, size or self.texture_size))

    def _of_split(self, kind: str, files: list[Path], split: Split) -> list[Path]:
        named = [(path.parent.name if kind != "poses" else path.stem, path) for path in files]
        chosen = [path for name, path in named if asset_split(kind, name) == split]
        if not chosen:
            raise UserError(
                f"{self.root} has no {kind} for the split {split!r}; use the complete {OFFICIAL_ZIP} of MakeHuman"
            )
        return chosen

    def pieces(self, role: Role, split: Split) -> list[Piece]:
        """All pieces that are worn in a place, of the assets of a split."""
        kind = "hair" if role == "hair" else "clothes"
        files = self._of_split(kind, self._hair if role == "hair" else self._clothes, split)
        return [piece for made in self._all_usable(files, self._read).values() for piece in made if piece.role == role]

    def face_pieces(self, role: Role) -> list[Piece]:
        """Eyes, brows or lashes: the same for every split."""
        folders = {"eyes": "eyes", "brows": "eyebrows", "lashes": "eyelashes"}
        files = self._found(folders[role], "*/*.mhclo")
        return [piece for path in files for piece in self._usable(path, self._read) or ()]

    @cached_property
    def eye_textures(self) -> list[Path]:
        """Iris textures."""
        files = sorted((self.root / "eyes").glob("materials/*_eye.png"))
        return [path for path in files if self._usable(path, self._checked_texture)]

    def skins(self, split: Split) -> list[Skin]:
        """Skins of a split, each texture once."""
        files = [path for path in self._of_split("skins", self._skins, split) if not _is_costume(path)]
        skins = self._all_usable(files, self._read_skin).values()
        return list({skin.texture: skin for skin in reversed(list(skins))}.values())[::-1]

    def motions(self, split: Split) -> dict[str, Motion]:
        """Poses of a split by name."""
        read = self._all_usable(self._of_split("poses", self._poses, split), self._read_motion)
        return {path.stem: motion for path, motion in read.items()}

    @cached_property
    def clips(self) -> dict[str, Motion]:
        """Motions of a skeleton of their own by name; empty when the folder has none."""
        read = {path.stem: self._usable(path, read_bvh) for path in self._found("animations", "*.bvh")}
        return {name: motion for name, motion in read.items() if motion is not None and followable(motion)}

    @cached_property
    def _expressions(self) -> dict[str, dict[str, float]]:
        files = self._found("expressions", "*.mhpose")
        read = {path.stem: self._usable(path, read_expression) for path in files}
        return {name: units for name, units in read.items() if units is not None}

    @property
    def expressions(self) -> list[dict[str, float]]:
        """Shares of face units of each expression."""
        return list(self._expressions.values())

    @property
    def expression_names(self) -> list[str]:
        """Their names, in the same order."""
        return list(self._expressions)

    @cached_property
    def face_units(self) -> tuple[tuple[str, ...], Motion] | None:
        """Names of the face units and the motion with one frame for each, if the folder has them."""
        for folder in (self.root, self.root / "poseunits"):
            names, motion = folder / "face-poseunits.json", folder / "face-poseunits.bvh"
            if names.is_file() and motion.is_file():
                return read_face_unit_names(names), read_bvh(motion)
        return None

    def _checked_texture(self, path: Path) -> Path:
        """The path of a texture that can be read; in the middle of a person it would be too late to pass over it."""
        self.texture(path)
        return path

    def _read_skin(self, path: Path) -> Skin:
        material = read_mhmat(path)
        if material.diffuse_texture is None:
            raise UserError(f"{path} has no texture {material.missing_texture}; unpack {OFFICIAL_ZIP} again")
        return Skin(path.parent.name, self._checked_texture(material.diffuse_texture))

    def _read_motion(self, path: Path) -> Motion:
        motion = read_bvh(path)
        if len(set(motion.joint_names) & set(self.template.joint_names)) < min(
            LEAST_KNOWN_JOINTS, len(motion.joint_names)
        ):
            raise UserError(f"{path} moves another skeleton than MakeHuman's default one; use poses of {OFFICIAL_ZIP}")
        return motion

    def _read(self, path: Path) -> list[Piece]:
        pieces = _read_pieces(path, self.root, self.template)
        for texture in {piece.texture for piece in pieces} | {piece.ao for piece in pieces}:
            if texture is not None:
                self._checked_texture(texture)
        return pieces


def _is_costume(path: Path) -> bool:
    return any(word in path.stem.lower() for word in NOT_SKINS)


def _read_texture(path: Path, size: int) -> UInt8[np.ndarray, "h w 4"]:
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
            if max(image.size) > size:
                scale = size / max(image.size)
                image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
            return np.asarray(image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the texture {path} ({error}); unpack the MakeHuman assets again") from error


def _read_pieces(path: Path, root: Path, template: Template) -> list[Piece]:
    binding = read_mhclo(path, num_base=len(template.weights))
    mesh = read_obj(find_beside(path, binding.obj_file) or path.parent / binding.obj_file)
    if len(mesh.vertices) != len(binding.indices):
        raise UserError(
            f"{path} binds {len(binding.indices)} vertices but {binding.obj_file} has {len(mesh.vertices)}; "
            f"unpack {OFFICIAL_ZIP} again"
        )
    material_path = find_beside(path, binding.material) if binding.material else None
    material = read_mhmat(material_path) if material_path is not None else UNTEXTURED
    kind = path.relative_to(root).parts[0]
    if material.missing_texture or (kind in STRANDS and material.diffuse_texture is None):
        raise UserError(f"{path} lacks its texture {material.missing_texture}; unpack {OFFICIAL_ZIP} again")
    canonical = binding.fit(template.canonical)
    roles = vertex_roles(kind, mesh, canonical, template)
    pieces = []
    for role in sorted(set(roles)):
        keep = roles[mesh.faces[:, 0]] == role
        if keep.any():
            pieces.append(_piece(path, role, binding, mesh, keep, canonical, material, template))
    return pieces


def _piece(
    path: Path,
    role: Role,
    binding: Binding,
    mesh: ObjMesh,
    keep: np.ndarray,
    canonical: np.ndarray,
    material: Material,
    template: Template,
) -> Piece:
    faces, uv_faces = mesh.faces[keep], mesh.uv_faces[keep]
    corners = np.stack([faces.ravel(), uv_faces.ravel()], 1)
    split_vertices, compact = np.unique(corners, axis=0, return_inverse=True)
    ids = split_vertices[:, 0]
    uvs = mesh.uvs[split_vertices[:, 1]] if len(mesh.uvs) else np.zeros((len(ids), 2), np.float32)
    weights = np.maximum(binding.transfer(template.weights), 0)[ids]
    cloth = Cloth(
        vertices=canonical[ids].astype(np.float32),
        faces=compact.reshape(-1, 3),
        uvs=uvs,
        canonical=canonical[ids].astype(np.float32),
        weights=weights / weights.sum(1, keepdims=True),
        weld=ids,
    )
    return Piece(
        asset=path.parent.name,
        source=path,
        role=role,
        binding=binding,
        vertex_ids=ids,
        cloth=cloth,
        texture=material.diffuse_texture,
        ao=material.ao_texture,
    )
