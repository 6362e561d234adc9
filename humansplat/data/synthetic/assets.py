"""The folder of MakeHuman assets, read once a process and cut into pieces that can be mixed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from humansplat.body.anny import AnnyBody
from humansplat.data.synthetic.cloth import Cloth
from humansplat.data.synthetic.figure import Template, load_template
from humansplat.data.synthetic.makehuman import (
    Binding,
    Material,
    Motion,
    ObjMesh,
    read_bvh,
    read_expression,
    read_face_unit_names,
    read_mhclo,
    read_mhmat,
    read_obj,
)
from humansplat.data.synthetic.splits import Split, asset_split
from humansplat.errors import UserError

OFFICIAL_ZIP = "makehuman_system_assets_cc0.zip"
Role = Literal["upper", "lower", "full", "shoes", "hair", "eyes", "brows", "lashes"]
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
    texture: Path | None
    """Diffuse texture."""
    ao: Path | None
    """Ambient occlusion texture."""

    def fit(self, rest: np.ndarray) -> Cloth:
        """Place the piece on a shaped body at rest, ``[b, 3]``."""
        return self.cloth.moved(self.binding.fit(rest)[self.vertex_ids])


class AssetLibrary:
    """Everything that people are made of; files are read when first needed and then kept.

    Args:
        root: Folder with ``clothes``, ``hair``, ``skins``, ... as in MakeHuman's official asset zip.
        body: The body model; loaded when not given.
        texture_size: Longest side to which textures are reduced, pixels; pictures of 256 pixels need no more
            than 512.

    Raises:
        UserError: If the folder or one of the needed kinds of assets is missing.
    """

    def __init__(self, root: str | Path, *, body: AnnyBody | None = None, texture_size: int = 512) -> None:
        self.root = Path(root)
        self.texture_size = texture_size
        if not self.root.is_dir():
            raise UserError(f"there is no asset folder {self.root}; unpack {OFFICIAL_ZIP} of MakeHuman there")
        self._clothes = self._files("clothes", "*/*.mhclo")
        self._hair = self._files("hair", "*/*.mhclo")
        self._skins = self._files("skins", "*/*.mhmat")
        self._poses = self._files("poses", "*.bvh")
        self.template: Template = load_template(body or AnnyBody.load())
        self._cache: dict[tuple, object] = {}

    def _files(self, kind: str, pattern: str) -> list[Path]:
        found = sorted((self.root / kind).glob(pattern))
        if not found:
            raise UserError(f"{self.root} has no {kind}/{pattern}; unpack {OFFICIAL_ZIP} of MakeHuman there")
        return found

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
        return [piece for path in files for piece in self._pieces_of(path) if piece.role == role]

    def face_pieces(self, role: Role) -> list[Piece]:
        """Eyes, brows or lashes: the same for every split."""
        folders = {"eyes": "eyes", "brows": "eyebrows", "lashes": "eyelashes"}
        files = sorted((self.root / folders[role]).glob("*/*.mhclo"))
        return [piece for path in files for piece in self._pieces_of(path)]

    @cached_property
    def eye_textures(self) -> list[Path]:
        """Iris textures."""
        return sorted((self.root / "eyes").glob("materials/*_eye.png"))

    def skins(self, split: Split) -> list[Path]:
        """Skin textures of a split; the name of the folder tells age, origin and sex."""
        materials = [read_mhmat(path) for path in self._of_split("skins", self._skins, split)]
        return [material.diffuse_texture for material in materials if material.diffuse_texture is not None]

    def motions(self, split: Split) -> dict[str, Motion]:
        """Poses of a split by name."""
        files = self._of_split("poses", self._poses, split)
        return {path.stem: self.cached(("bvh", path), lambda path=path: read_bvh(path)) for path in files}

    @cached_property
    def expressions(self) -> list[dict[str, float]]:
        """Shares of face units of each expression."""
        return [read_expression(path) for path in sorted((self.root / "expressions").glob("*.mhpose"))]

    @cached_property
    def expression_names(self) -> list[str]:
        """Their names, in the same order."""
        return [path.stem for path in sorted((self.root / "expressions").glob("*.mhpose"))]

    @cached_property
    def face_units(self) -> tuple[tuple[str, ...], Motion] | None:
        """Names of the face units and the motion with one frame for each, if the folder has them."""
        names, motion = self.root / "face-poseunits.json", self.root / "face-poseunits.bvh"
        if not (names.is_file() and motion.is_file()):
            return None
        return read_face_unit_names(names), read_bvh(motion)

    def _pieces_of(self, path: Path) -> list[Piece]:
        return self.cached(("pieces", path), lambda: _read_pieces(path, self.root, self.template))


def _read_texture(path: Path, size: int) -> UInt8[np.ndarray, "h w 4"]:
    try:
        with Image.open(path) as file:
            image = file.convert("RGBA")
            if max(image.size) > size:
                scale = size / max(image.size)
                image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BOX)
            return np.asarray(image)
    except OSError as error:
        raise UserError(f"cannot read the texture {path} ({error}); unpack the MakeHuman assets again") from error


def _read_pieces(path: Path, root: Path, template: Template) -> list[Piece]:
    binding = read_mhclo(path, num_base=len(template.weights))
    mesh = read_obj(path.parent / binding.obj_file)
    if len(mesh.vertices) != len(binding.indices):
        raise UserError(
            f"{path} binds {len(binding.indices)} vertices but {binding.obj_file} has {len(mesh.vertices)}; "
            f"unpack {OFFICIAL_ZIP} again"
        )
    material_path = path.parent / binding.material
    material = (
        read_mhmat(material_path)
        if binding.material and material_path.is_file()
        else Material(diffuse_texture=None, ao_texture=None, transparent=False)
    )
    kind = path.relative_to(root).parts[0]
    canonical = binding.fit(template.canonical)
    roles = _vertex_roles(kind, mesh, canonical, template)
    pieces = []
    for role in sorted(set(roles)):
        keep = roles[mesh.faces[:, 0]] == role
        if keep.any():
            pieces.append(_piece(path.parent.name, role, binding, mesh, keep, canonical, material, template))
    return pieces


def _vertex_roles(kind: str, mesh: ObjMesh, canonical: np.ndarray, template: Template) -> np.ndarray:
    """Where each connected part of an asset is worn, by its height on the mean adult, ``[n]`` of names."""
    fixed = {"hair": "hair", "eyes": "eyes", "eyebrows": "brows", "eyelashes": "lashes"}
    if kind in fixed:
        return np.full(len(mesh.vertices), fixed[kind])
    edges = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]]])
    shape = (len(mesh.vertices), len(mesh.vertices))
    graph = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=shape)
    labels = connected_components(graph, directed=False)[1]
    knee = template.joints[template.joint("lowerleg01.L"), 1]
    hip = template.joints[template.joint("upperleg01.L"), 1]
    chest = template.joints[template.joint("spine02"), 1]
    roles = np.empty(len(mesh.vertices), dtype="<U6")
    sizes = np.bincount(labels)
    for label in np.argsort(-sizes):
        members = labels == label
        low, high = canonical[members, 1].min(), canonical[members, 1].max()
        if sizes[label] < 0.02 * len(labels) and (roles != "").any():  # a button belongs to what it is sewn to
            done = np.flatnonzero(roles != "")
            nearest = np.linalg.norm(canonical[done] - canonical[members].mean(0), axis=1).argmin()
            roles[members] = roles[done[nearest]]
        elif high < knee:
            roles[members] = "shoes"
        elif low < hip - 0.15 and high > chest:
            roles[members] = "full"
        else:
            roles[members] = "lower" if 0.5 * (low + high) < hip + 0.05 else "upper"
    return roles


def _piece(
    asset: str,
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
        asset=asset,
        role=role,
        binding=binding,
        vertex_ids=ids,
        cloth=cloth,
        texture=material.diffuse_texture,
        ao=material.ao_texture,
    )
