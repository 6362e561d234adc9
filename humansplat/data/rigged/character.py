"""One rigged character: its skeleton in the house frame, and its meshes in any pose."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation

from humansplat.data.rigged.gltf import Drawn, Primitive, Scene, Skin, read_gltf
from humansplat.data.rigged.retarget import Retarget
from humansplat.data.rigged.skeleton import find_humanoid
from humansplat.data.rigged.surfaces import Surface, surface_of
from humansplat.data.rigged.transforms import Pose, about_up, framed, global_frames, rotation_part
from humansplat.data.synthetic.figure import Template
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh

UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001, "inches": 0.0254, "feet": 0.3048}
LIKELY_HEIGHTS = (1.0, 2.4)
POSSIBLE_HEIGHTS = (0.5, 2.8)
DEFAULT_HEIGHT = 1.7
"""Metres; of characters whose height fits no unit."""
MAX_VERTICES = 2_000_000
MAX_YAW = 0.17
"""Radians off +Z that stand: ten degrees, by which hips and shoulders of a bound pose may be askew."""
LEAST_DETERMINANT = 1e-18
"""Of an inverse bind matrix; smaller ones tell nothing (metres to micrometres have 1e-18)."""
_QUARTER_TURNS = Rotation.create_group("O").as_matrix()
"""The rotations of a cube: files differ by these in which axis is up."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """A mesh of one material and the nodes that move it."""

    surface: Surface
    faces: Int[np.ndarray, "f 3"]
    vertices: Float[np.ndarray, "v 4"]
    """Homogeneous, in the frame of the file's mesh."""
    normals: Float[np.ndarray, "v 3"] | None
    nodes: Int[np.ndarray, " k"]
    inverse_binds: Float[np.ndarray, "k 4 4"]
    joints: Int[np.ndarray, "v m"]
    """Into ``nodes``."""
    weights: Float[np.ndarray, "v m"]
    parts: UInt8[np.ndarray, " v"] | None
    """``None`` for rigs whose joints are not known."""

    def posed(self, frames: Float[np.ndarray, "n 4 4"], gain: Float[np.ndarray, " 3"]) -> ShadedMesh:
        """The mesh with the nodes at some frames, its colours multiplied by ``gain`` (linear)."""
        motions = (frames[self.nodes] @ self.inverse_binds)[:, :3]  # [k, 3, 4]
        blended = np.zeros((len(self.vertices), 3, 4))
        for column in range(self.joints.shape[1]):
            blended += self.weights[:, column, None, None] * motions[self.joints[:, column]]
        normals = None
        if self.normals is not None:
            turned = np.einsum("vij,vj->vi", blended[..., :3], self.normals)
            length = np.linalg.norm(turned, axis=1, keepdims=True)
            normals = (turned / np.maximum(length, 1e-12)).astype(np.float32) if (length > 1e-12).all() else None
        vertices = np.einsum("vij,vj->vi", blended, self.vertices).astype(np.float32)
        return self.surface.mesh(vertices, self.faces, normals, self.parts, gain)


class Character:
    """A character in the house frame: metres, +Y up, facing +Z as bound.

    Args:
        path: ``.glb``, ``.gltf`` or ``.vrm``.
        template: The default body.
        texture_size: Side to which textures are reduced, pixels.

    Raises:
        UserError: If the file cannot be read, or holds no mesh that a skeleton moves.
    """

    def __init__(self, path: Path, template: Template, texture_size: int = 1024) -> None:
        scene = read_gltf(path, texture_size)
        joints = frozenset(joint for drawn in scene.drawn if drawn.skin for joint in drawn.skin.joints)
        if not joints:
            raise UserError(
                f"{path} holds no mesh that a skeleton moves; export the character with its armature (skin)"
            )
        self.name = path.stem
        self.parents, self.order, self.animations, self._pose = (
            scene.parents,
            scene.order,
            scene.animations,
            scene.pose,
        )
        self.humanoid = find_humanoid(scene.names, scene.parents, joints, scene.humanoid)
        self._to_house = np.eye(4)
        bound = self._bound(scene)
        moved = [drawn for drawn in scene.drawn if drawn.skin or _hangs(drawn.node, joints, scene.parents)]
        pieces = [_piece(drawn, part) for drawn in moved for part in drawn.primitives]
        self.pieces = tuple(piece for piece in pieces if piece is not None)
        if not self.pieces or sum(len(piece.vertices) for piece in self.pieces) > MAX_VERTICES:
            raise UserError(f"{path} shows nothing, or more than {MAX_VERTICES} vertices; export it anew")
        self.rest = bound
        self.notes = self._normalise()
        self.rest = self._to_house @ bound
        self.retarget = (
            Retarget(template, self.humanoid, self.rest, self.parents, self.order) if self.humanoid else None
        )
        if self.retarget is not None:
            labels = self.retarget.part_of_nodes()
            self.pieces = tuple(_labelled(piece, labels) for piece in self.pieces)

    def _bound(self, scene: Scene) -> Float[np.ndarray, "n 4 4"]:
        """Frames of the nodes as the skins were bound; the file's nodes may stand in some frame of an animation.

        Inverse bind matrices take the mesh's frame to the joint's; the frame of the mesh in the world is that in which
        the hips stand where the file's nodes have them. If those nodes stand in another pose than the bound one, the
        hips too may be turned: then the mesh's frame is the world's but for quarter turns and a scale.
        """
        local = scene.pose.local()
        shown = global_frames(local, scene.parents, scene.order)
        hips = self.humanoid.get("hips", -1)
        binds: dict[int, np.ndarray] = {}
        skins = [drawn.skin for drawn in scene.drawn if drawn.skin]
        for skin in sorted(skins, key=lambda skin: hips not in skin.joints):
            known = next((joint for joint in skin.joints if joint in binds), None)  # hair may hang on the head alone
            first = hips if hips in skin.joints else min(skin.joints, key=scene.order.index)
            anchor = first if known is None else known
            world = (shown if known is None else binds)[anchor] @ skin.inverse_binds[skin.joints.index(anchor)]
            if known is None and _moves(shown[list(skin.joints)] @ skin.inverse_binds):
                world[:3, :3] = self._upright(world[:3, :3], skin, _above(shown, scene.parents[anchor]))
            for joint, inverse in zip(skin.joints, skin.inverse_binds, strict=True):
                if joint not in binds and _invertible(inverse):
                    binds[joint] = world @ np.linalg.inv(inverse)
        frames = local.copy()
        for node in scene.order:
            parent = scene.parents[node]
            frames[node] = (
                binds[node] if node in binds else frames[parent] @ local[node] if parent >= 0 else local[node]
            )
        return frames if self._stands(frames) else shown

    def _upright(
        self, linear: Float[np.ndarray, "3 3"], skin: Skin, above: Float[np.ndarray, "4 4"]
    ) -> Float[np.ndarray, "3 3"]:
        """A scale and quarter turns that bring the bound mesh to the world, head up.

        Args:
            linear: What the hips say; their turn away from the bound pose is in it.
            skin: The joints as bound.
            above: The frame of the node that the hips hang on: mostly that of the bound mesh.
        """
        turns = [_nearest_quarter(rotation_part(above)), _nearest_quarter(rotation_part(framed(linear)))]
        scale = abs(np.linalg.det(linear)) ** (1 / 3)
        known = dict(zip(skin.joints, skin.inverse_binds, strict=True))
        ends = [known.get(self.humanoid.get(slot, -1), np.zeros((4, 4))) for slot in ("hips", "head")]
        if all(_invertible(end) for end in ends):
            hips, head = (np.linalg.inv(end)[:3, 3] for end in ends)
            up = head - hips
            turns.sort(key=lambda turn: (turn @ up)[1] < 0.7 * np.linalg.norm(up))  # stable: the first that stands
        return turns[0] * scale

    def _stands(self, frames: Float[np.ndarray, "n 4 4"]) -> bool:
        """Whether head, hips and feet are one above the other; a rig bound otherwise is bound to nonsense."""
        if not self.humanoid:
            return True
        places = {slot: frames[node, :3, 3] for slot, node in self.humanoid.items()}
        feet = 0.5 * (places["left_foot"] + places["right_foot"])
        up, down = places["head"] - places["hips"], places["hips"] - feet
        return bool(up @ down > 0.5 * np.linalg.norm(up) * np.linalg.norm(down) > 0)

    def _normalise(self) -> tuple[str, ...]:
        """Set ``_to_house``; return what had to be done beyond what glTF promises."""
        notes = []
        turn = np.eye(3)
        if self.humanoid:
            places = {slot: self.rest[node, :3, 3] for slot, node in self.humanoid.items()}
            up = places["head"] - 0.5 * (places["left_foot"] + places["right_foot"])
            axis = int(np.abs(up).argmax())
            if axis != 1 or up[1] < 0:
                turn = _turn_up(axis, float(np.sign(up[axis])))
                notes.append(f"its {'+' if up[axis] > 0 else '-'}{'XYZ'[axis]} is taken for up")
            left = sum(places[f"left_{limb}"] - places[f"right_{limb}"] for limb in ("upper_leg", "upper_arm"))
            left = turn @ left
            yaw = float(np.arctan2(left[2], left[0]))
            if abs(yaw) > MAX_YAW:
                turn = about_up(yaw) @ turn
                notes.append(f"turned by {np.degrees(yaw):.0f} degrees, so that it faces +Z")
        self._to_house[:3, :3] = turn
        height = float(np.ptp(np.concatenate([m.vertices for m in self.skinned(self._to_house @ self.rest)])[:, 1]))
        scale, note = unit_scale(height)
        self._to_house[:3, :3] *= scale
        return (*notes, note) if note else tuple(notes)

    def skinned(
        self, frames: Float[np.ndarray, "n 4 4"], gains: Float[np.ndarray, "p 3"] | None = None
    ) -> list[ShadedMesh]:
        """All pieces with the nodes at some frames of the house's world."""
        factors = np.ones((len(self.pieces), 3)) if gains is None else gains
        return [piece.posed(frames, gain) for piece, gain in zip(self.pieces, factors, strict=True)]

    def animated(self, animation: int, time: float) -> Float[np.ndarray, "n 4 4"]:
        """Frames at a time of one of the file's animations."""
        pose: Pose = self.animations[animation].sample(self._pose, time)
        return self._to_house @ global_frames(pose.local(), self.parents, self.order)


def unit_scale(height: float) -> tuple[float, str]:
    """The factor to metres of a character of some height, and what to tell the user, if anything.

    Raises:
        UserError: If there is no height.
    """
    if not np.isfinite(height) or height <= 0:
        raise UserError(f"a character is {height} units high; export it anew")
    for low, high in (LIKELY_HEIGHTS, POSSIBLE_HEIGHTS):
        for unit, scale in UNITS.items():
            if low <= height * scale <= high:
                return scale, "" if unit == "metres" else f"{height:.4g} units high, taken for {unit}"
    return (
        DEFAULT_HEIGHT / height,
        f"{height:.4g} units high, which is a person in no unit: scaled to {DEFAULT_HEIGHT} m",
    )


def _piece(drawn: Drawn, part: Primitive) -> Piece | None:
    surface = surface_of(part)
    if surface is None or not len(part.faces):
        return None
    if drawn.skin is None or part.joints is None or part.weights is None:
        nodes, binds = np.array([drawn.node]), np.eye(4)[None]
        joints, weights = np.zeros((len(part.vertices), 1), np.int64), np.ones((len(part.vertices), 1), np.float32)
    else:
        nodes, binds = np.array(drawn.skin.joints), drawn.skin.inverse_binds
        joints, weights = part.joints, part.weights
    return Piece(
        surface=surface,
        faces=part.faces,
        vertices=np.concatenate([part.vertices, np.ones((len(part.vertices), 1))], 1).astype(np.float64),
        normals=None if part.normals is None else part.normals.astype(np.float64),
        nodes=nodes,
        inverse_binds=binds,
        joints=joints,
        weights=weights,
        parts=None,
    )


def _labelled(piece: Piece, labels: tuple[int, ...]) -> Piece:
    """The piece with the part that pulls each vertex most."""
    of_node = np.array(labels)[piece.nodes]
    pull = np.zeros((len(piece.vertices), max(labels) + 1))
    for column in range(piece.joints.shape[1]):
        np.add.at(pull, (np.arange(len(pull)), of_node[piece.joints[:, column]]), piece.weights[:, column])
    return replace(piece, parts=pull.argmax(1).astype(np.uint8))


def _moves(worlds: Float[np.ndarray, "j 4 4"]) -> bool:
    """Whether joints disagree on where the mesh's frame is in the world: the nodes do not stand as they were bound."""
    turned = rotation_part(worlds)
    cosines = 0.5 * (np.einsum("jab,ab->j", turned, turned[0]) - 1.0)
    return bool(cosines.min() < np.cos(0.05))


def _invertible(matrix: Float[np.ndarray, "4 4"]) -> bool:
    return bool(abs(np.linalg.det(matrix)) > LEAST_DETERMINANT)


def _above(frames: Float[np.ndarray, "n 4 4"], parent: int) -> Float[np.ndarray, "4 4"]:
    return frames[parent] if parent >= 0 else np.eye(4)


def _nearest_quarter(turned: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    return min(_QUARTER_TURNS, key=lambda quarter: float(np.linalg.norm(quarter - turned)))


def _hangs(node: int, joints: frozenset[int], parents: tuple[int, ...]) -> bool:
    """Whether a node hangs on a joint: glasses, a sword; not the floor."""
    while node >= 0 and node not in joints:
        node = parents[node]
    return node >= 0


def _turn_up(axis: int, sign: float) -> Float[np.ndarray, "3 3"]:
    """A rotation by a quarter or a half that takes a signed axis to +Y."""
    if axis == 1:
        return np.diag([1.0, -1.0, -1.0])
    other = 2 if axis == 0 else 0
    turn = np.zeros((3, 3))
    turn[1, axis], turn[axis, 1], turn[other, other] = sign, -sign, 1.0
    return turn
