"""A glTF file as records: nodes, skins, meshes, materials, animations, all checked.

Frames and units of the format: metres, +Y up, +Z forward, matrices act on column vectors, quaternions (x, y, z, w),
texture coordinates from the top left.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from humansplat.data.rigged.animation import Animation, read_animations
from humansplat.data.rigged.gltf_file import GltfFile, item_at, naming
from humansplat.data.rigged.transforms import Pose, node_pose

MAX_NODES = 20_000
TRIANGLES, STRIP, FAN = 4, 5, 6


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """What is used of a material."""

    name: str
    color: Float[np.ndarray, " 4"]
    """Linear factor and opacity."""
    texture: UInt8[np.ndarray, "h w c"] | None
    """sRGB with 3 or 4 channels."""
    uv_set: int
    uv_transform: Float[np.ndarray, "2 3"]
    """Takes texture coordinates of the mesh to those of the picture."""
    alpha: Literal["OPAQUE", "MASK", "BLEND"]
    cutoff: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Primitive:
    """Triangles of one material, in the frame of their mesh."""

    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"] | None
    uvs: Float[np.ndarray, "v 2"] | None
    colors: Float[np.ndarray, "v 3"] | None
    """Linear factors."""
    faces: Int[np.ndarray, "f 3"]
    joints: Int[np.ndarray, "v k"] | None
    """Indices into the joints of the skin."""
    weights: Float[np.ndarray, "v k"] | None
    """Their rows sum to 1."""
    material: Material


@dataclass(frozen=True, kw_only=True, eq=False)
class Skin:
    """Joints that move a mesh."""

    joints: tuple[int, ...]
    """Nodes."""
    inverse_binds: Float[np.ndarray, "j 4 4"]
    """Frame of the mesh -> frame of each joint, as bound."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A node that shows a mesh."""

    node: int
    primitives: tuple[Primitive, ...]
    skin: Skin | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What a file holds."""

    names: tuple[str, ...]
    """Of the nodes."""
    parents: tuple[int, ...]
    """-1 for roots."""
    order: tuple[int, ...]
    """Nodes, parents before children."""
    pose: Pose
    """How the nodes stand when nothing moves."""
    drawn: tuple[Drawn, ...]
    animations: tuple[Animation, ...]
    humanoid: dict[str, int]
    """VRM's names of the bones of a human; empty for other files."""


def read_gltf(path: Path, texture_size: int = 1024) -> Scene:
    """Read a file.

    Args:
        path: ``.glb``, ``.gltf`` or ``.vrm``.
        texture_size: Side to which textures are reduced, pixels.

    Raises:
        UserError: If it cannot be read, is malformed, or is compressed.
    """
    file = GltfFile(path)
    with naming(path):
        nodes = file.items("nodes")
        parents, order = _tree(nodes)
        materials = _Materials(file, texture_size)
        drawn = []
        for index in _shown(file, nodes):
            node = nodes[index]
            if "mesh" in node:
                mesh = item_at(file.items("meshes"), node["mesh"], "mesh")
                found = [_primitive(file, record, materials) for record in mesh["primitives"]]
                skin = _skin(file, node["skin"], len(nodes)) if "skin" in node else None
                primitives = tuple(_bound(part, skin) for part in found if part is not None)
                if primitives:
                    drawn.append(Drawn(node=index, primitives=primitives, skin=skin))
        return Scene(
            names=tuple(str(node.get("name", f"node{index}")) for index, node in enumerate(nodes)),
            parents=parents,
            order=order,
            pose=node_pose(nodes),
            drawn=tuple(drawn),
            animations=read_animations(file, len(nodes)),
            humanoid=_humanoid(file, len(nodes)),
        )


def _tree(nodes: list[dict[str, Any]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Parents, and an order in which they come first."""
    if len(nodes) > MAX_NODES:
        raise ValueError(f"it has {len(nodes)} nodes")
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", ()):
            item_at(nodes, child, "node")
            if parents[child] >= 0:
                raise ValueError(f"node {child} has two parents")
            parents[child] = index
    order = [index for index, parent in enumerate(parents) if parent < 0]
    for index in order:  # grows while it is read
        order.extend(nodes[index].get("children", ()))
    if len(order) != len(nodes):
        raise ValueError("its nodes form a circle")
    return tuple(parents), tuple(order)


def _shown(file: GltfFile, nodes: list[dict[str, Any]]) -> list[int]:
    """Nodes of the scene that viewers show; all, if there are no scenes."""
    scenes = file.items("scenes")
    if not scenes:
        return list(range(len(nodes)))
    found = list(item_at(scenes, file.json.get("scene", 0), "scene").get("nodes", ()))
    for index in found:
        found.extend(item_at(nodes, index, "node").get("children", ()))
        if len(found) > len(nodes):
            raise ValueError("its scene shows a node twice")
    return found


def _skin(file: GltfFile, index: object, num_nodes: int) -> Skin:
    skin = item_at(file.items("skins"), index, "skin")
    joints = tuple(skin["joints"])
    if not joints or not all(isinstance(joint, int) and 0 <= joint < num_nodes for joint in joints):
        raise ValueError(f"skin {index} has joints that are no nodes")
    binds = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
    if "inverseBindMatrices" in skin:
        binds = file.accessor(skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2).astype(np.float64)
    if len(binds) < len(joints) or not np.isfinite(binds).all():
        raise ValueError(f"skin {index} has {len(binds)} usable matrices for {len(joints)} joints")
    return Skin(joints=joints, inverse_binds=binds[: len(joints)])


def _bound(part: Primitive, skin: Skin | None) -> Primitive:
    joints = part.joints
    if skin is not None and joints is not None and (joints.min() < 0 or joints.max() >= len(skin.joints)):
        raise ValueError(f"a mesh hangs on joints {joints.min()} to {joints.max()} of {len(skin.joints)}")
    return part


def _primitive(file: GltfFile, record: dict[str, Any], materials: "_Materials") -> Primitive | None:
    """The triangles of a record; ``None`` for points and lines."""
    mode, attributes = record.get("mode", TRIANGLES), record["attributes"]
    if mode not in (TRIANGLES, STRIP, FAN) or "POSITION" not in attributes:
        return None
    vertices = file.accessor(attributes["POSITION"]).astype(np.float32)
    if vertices.shape[1] != 3 or not np.isfinite(vertices).all():
        raise ValueError("a mesh has positions that are not three finite numbers")
    corners = (
        file.accessor(record["indices"])[:, 0].astype(np.int64) if "indices" in record else np.arange(len(vertices))
    )
    if corners.min() < 0 or corners.max() >= len(vertices):  # damaged files have signed indices
        raise ValueError(f"faces name vertices {corners.min()} to {corners.max()} of {len(vertices)}")
    material = materials.get(record.get("material"))
    joints, weights = _influences(file, attributes, len(vertices))
    uvs = _attribute(file, attributes, f"TEXCOORD_{material.uv_set}", len(vertices), 2)
    colors = _attribute(file, attributes, "COLOR_0", len(vertices), 3)
    return Primitive(
        vertices=vertices,
        normals=_attribute(file, attributes, "NORMAL", len(vertices), 3),
        uvs=None if uvs is None else uvs @ material.uv_transform[:, :2].T + material.uv_transform[:, 2],
        colors=colors,
        faces=_triangles(corners, mode),
        joints=joints,
        weights=weights,
        material=material,
    )


def _attribute(
    file: GltfFile, attributes: dict[str, int], name: str, count: int, width: int
) -> Float[np.ndarray, "v k"] | None:
    if name not in attributes:
        return None
    values = file.accessor(attributes[name])
    if len(values) != count or values.shape[1] < width:
        raise ValueError(f"{name} has {len(values)} values of width {values.shape[1]} for {count} vertices")
    return np.nan_to_num(values[:, :width].astype(np.float32))


def _influences(
    file: GltfFile, attributes: dict[str, int], count: int
) -> tuple[Int[np.ndarray, "v k"] | None, Float[np.ndarray, "v k"] | None]:
    """Joints and weights of all sets, four a set."""
    sets = [index for index in range(4) if f"JOINTS_{index}" in attributes and f"WEIGHTS_{index}" in attributes]
    if not sets:
        return None, None
    joints = np.concatenate([file.accessor(attributes[f"JOINTS_{index}"]) for index in sets], 1).astype(np.int64)
    weights = np.concatenate([file.accessor(attributes[f"WEIGHTS_{index}"]) for index in sets], 1).astype(np.float32)
    if len(joints) != count or joints.shape != weights.shape:
        raise ValueError(f"joints of shape {joints.shape} and weights of shape {weights.shape} for {count} vertices")
    weights = np.maximum(np.nan_to_num(weights), 0.0)
    joints = np.where(weights > 0, joints, 0)
    total = weights.sum(1, keepdims=True)
    weights[:, 0] += total[:, 0] <= 1e-6  # a vertex that nothing moves follows the first joint it names
    return joints, weights / np.maximum(weights.sum(1, keepdims=True), 1e-6)


def _triangles(corners: Int[np.ndarray, " n"], mode: int) -> Int[np.ndarray, "f 3"]:
    if mode == TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        return np.stack([np.broadcast_to(corners[:1], len(corners) - 2), corners[1:-1], corners[2:]], 1)
    faces = np.stack([corners[:-2], corners[1:-1], corners[2:]], 1)
    faces[1::2] = faces[1::2, [1, 0, 2]]  # every second one of a strip winds the other way
    return faces


class _Materials:
    """Materials of a file, each read once."""

    def __init__(self, file: GltfFile, texture_size: int) -> None:
        self.file, self.texture_size = file, texture_size
        self._read: dict[int | None, Material] = {}
        self._pictures: dict[int, UInt8[np.ndarray, "h w c"]] = {}

    def get(self, index: int | None) -> Material:
        if index not in self._read:
            record = {} if index is None else item_at(self.file.items("materials"), index, "material")
            self._read[index] = self._make(record)
        return self._read[index]

    def _make(self, record: dict[str, Any]) -> Material:
        rough = record.get("pbrMetallicRoughness", {})
        older = record.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness", {})
        slot = rough.get("baseColorTexture") or older.get("diffuseTexture") or {}
        factor = rough.get("baseColorFactor") or older.get("diffuseFactor") or [1.0, 1.0, 1.0, 1.0]
        moved = slot.get("extensions", {}).get("KHR_texture_transform", {})
        alpha = record.get("alphaMode", "OPAQUE")
        if alpha not in ("OPAQUE", "MASK", "BLEND"):
            raise ValueError(f"a material has the alpha mode {alpha!r}")
        return Material(
            name=str(record.get("name", "")),
            color=np.array(factor, np.float64).reshape(4).clip(0.0, 1.0),
            texture=self._texture(slot["index"]) if "index" in slot else None,
            uv_set=int(moved.get("texCoord", slot.get("texCoord", 0))),
            uv_transform=_uv_transform(moved),
            alpha=alpha,
            cutoff=float(record.get("alphaCutoff", 0.5)),
        )

    def _texture(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        texture = item_at(self.file.items("textures"), index, "texture")
        webp = texture.get("extensions", {}).get("EXT_texture_webp", {})
        source = texture.get("source", webp.get("source"))
        if source is None:
            raise ValueError(f"texture {index} is in a format other than PNG, JPEG and WebP")
        if source not in self._pictures:
            self._pictures[source] = self.file.image(source, self.texture_size)
        return self._pictures[source]


def _uv_transform(record: dict[str, Any]) -> Float[np.ndarray, "2 3"]:
    offset, scale = record.get("offset", [0.0, 0.0]), record.get("scale", [1.0, 1.0])
    cos, sin = np.cos(float(record.get("rotation", 0.0))), np.sin(float(record.get("rotation", 0.0)))
    turned = np.array([[cos, sin], [-sin, cos]]) @ np.diag(np.array(scale, np.float64).reshape(2))
    return np.concatenate([turned, np.array(offset, np.float64).reshape(2, 1)], 1).astype(np.float32)


def _humanoid(file: GltfFile, num_nodes: int) -> dict[str, int]:
    """Bones of a human by VRM's names, of VRM 0 and VRM 1."""
    extensions = file.json.get("extensions", {})
    newer = extensions.get("VRMC_vrm", {}).get("humanoid", {}).get("humanBones", {})
    older = extensions.get("VRM", {}).get("humanoid", {}).get("humanBones", [])
    bones = {name: bone["node"] for name, bone in newer.items()} | {bone["bone"]: bone["node"] for bone in older}
    return {name: node for name, node in bones.items() if isinstance(node, int) and 0 <= node < num_nodes}
