"""SMPL, SMPL-H and SMPL-X behind the body protocol.

SMPL (Loper et al. 2015), SMPL-H (Romero et al. 2017) and SMPL-X (Pavlakos et al. 2019) are one recipe:
a template plus shape and expression offsets, plus offsets that depend on the pose, then linear blend
skinning. The parameters have the names and the meaning of the smplx package, so that what other
programs estimate drops in; the surface equals smplx's to 1e-5 m, of which the tests make sure.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor, nn

from humansplat.body.parts import PART_NAMES, parts_from_weights
from humansplat.body.protocol import BodyModel
from humansplat.body.rest_pose import rest_placement, rest_rotations
from humansplat.body.skinning import Skeleton, linear_blend_skinning
from humansplat.body.smpl_files import Gender, SmplFile, SmplName, read_smpl_file
from humansplat.errors import UserError
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.structures.body import PosedBody

_BODY_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
_FINGERS = tuple(f"{finger}{link}" for finger in ("index", "middle", "pinky", "ring", "thumb") for link in (1, 2, 3))
_HANDS = tuple(f"{side}_{link}" for side in ("left", "right") for link in _FINGERS)
JOINT_NAMES: dict[str, tuple[str, ...]] = {
    "smpl": (*_BODY_JOINTS, "left_hand", "right_hand"),
    "smplh": (*_BODY_JOINTS, *_HANDS),
    "smplx": (*_BODY_JOINTS, "jaw", "left_eye", "right_eye", *_HANDS),
}
ROTATIONS: dict[str, dict[str, int]] = {
    "smpl": {"global_orient": 1, "body_pose": 23},
    "smplh": {"global_orient": 1, "body_pose": 21, "left_hand_pose": 15, "right_hand_pose": 15},
    "smplx": {
        "global_orient": 1, "body_pose": 21, "jaw_pose": 1, "leye_pose": 1, "reye_pose": 1, "left_hand_pose": 15,
        "right_hand_pose": 15,
    },
}  # fmt: skip
"""The rotations by their parameters, in the order of the joints: how many joints each turns."""
HAND_POSES = {"left_hand_pose": "l", "right_hand_pose": "r"}


@BodyModel.register  # isinstance() does not see buffers from Python 3.12 on
class SmplBody(nn.Module):
    """A body of the SMPL family: metres, +Y up, facing +Z, the left hand at +X; at rest a T-pose.

    Attributes:
        name: ``smpl``, ``smplh`` or ``smplx``.
        gender: Of the file.
        canonical: The template in the default body's rest pose (``humansplat.body.rest_pose``).
        num_betas: Shape coefficients that the file has.
        num_expression: Expression coefficients that the file has; only SMPL-X has any.
    """

    canonical: Float[Tensor, "v 3"]
    weights: Float[Tensor, "v j"]
    faces: Int[Tensor, "f 3"]
    uvs: Float[Tensor, "t 2"] | None
    uv_faces: Int[Tensor, "f 3"] | None
    parts: Int[Tensor, " v"]
    _template: Float[Tensor, " v3"]
    _basis: Float[Tensor, "d v3"]
    _pose_basis: Float[Tensor, "p v3"]
    _joint_template: Float[Tensor, " j3"]
    _joint_basis: Float[Tensor, "d j3"]
    _neutral_transl: Float[Tensor, "3"]

    def __init__(self, file: SmplFile, *, flat_hand_mean: bool = True, num_pca_comps: int | None = None) -> None:
        """Make the model of a file.

        Args:
            file: What ``read_smpl_file`` reads.
            flat_hand_mean: Whether a hand pose of zeros is the flat hand; else it is the file's mean hand.
            num_pca_comps: Hand poses are this many of the file's principal components; ``None``: 15 rotations.

        Raises:
            UserError: If the model or the file has no such hands, or its joints are no tree from joint 0.
        """
        super().__init__()
        if file.name == "smpl" and not (flat_hand_mean and num_pca_comps is None):
            raise UserError("smpl has no hand poses, so flat_hand_mean and num_pca_comps are for smplh and smplx")
        self.name, self.gender = file.name, file.gender
        self.num_betas, self.num_expression = file.num_betas, file.num_expression
        self.flat_hand_mean, self.num_pca_comps = flat_hand_mean, num_pca_comps
        self.joint_names = JOINT_NAMES[file.name]
        arrays = file.arrays
        self.joint_parents = (-1, *(int(parent) for parent in arrays["kintree_table"][0, 1:]))
        if not all(0 <= parent < joint for joint, parent in enumerate(self.joint_parents[1:], start=1)):
            raise UserError(f"{file.path}: kintree_table is not the tree of a body, parents {self.joint_parents}")
        self.skeleton = Skeleton(self.joint_parents)
        if num_pca_comps is not None and not 1 <= num_pca_comps <= 45:
            raise UserError(f"hands have 1 to 45 principal components, not {num_pca_comps}")
        self.parameter_shapes = self._shapes()

        regressor = arrays["J_regressor"].astype(np.float64)
        shapedirs = arrays["shapedirs"]
        joint_basis = np.tensordot(regressor, shapedirs, axes=1)  # [j, 3, d]
        weights = _float(arrays["weights"])
        buffers: dict[str, Tensor | None] = {
            "_template": _float(arrays["v_template"]).flatten(),
            "_basis": _float(shapedirs).flatten(0, 1).T.contiguous(),
            "_pose_basis": _float(arrays["posedirs"]).flatten(0, 1).T.contiguous(),
            "_joint_template": _float(regressor @ arrays["v_template"]).flatten(),
            "_joint_basis": _float(joint_basis).flatten(0, 1).T.contiguous(),
            "weights": weights,
            "faces": torch.from_numpy(arrays["f"].astype(np.int64)),
            "parts": parts_from_weights(weights, [_joint_part(joint) for joint in self.joint_names]),
        }
        has_uvs = "vt" in arrays and "ft" in arrays and len(arrays["ft"]) == len(arrays["f"])
        buffers["uvs"] = _float(arrays["vt"]) if has_uvs else None
        buffers["uv_faces"] = torch.from_numpy(arrays["ft"].astype(np.int64)) if has_uvs else None
        for hand, side in HAND_POSES.items():
            if hand in ROTATIONS[self.name]:
                buffers |= self._hand(hand, side, file)
        pelvis, ground = regressor[0] @ arrays["v_template"], arrays["v_template"][:, 1].min()
        buffers["_neutral_transl"] = -_float(np.array([pelvis[0], ground, pelvis[2]]))
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        self.register_buffer("canonical", self._canonical(), persistent=False)

    @staticmethod
    def load(
        name: SmplName,
        *,
        folder: str | Path | None = None,
        gender: Gender = "neutral",
        flat_hand_mean: bool = True,
        num_pca_comps: int | None = None,
    ) -> "SmplBody":
        """Read a model's file (``read_smpl_file`` says which) and make the model of it."""
        file = read_smpl_file(name, folder, gender)
        return SmplBody(file, flat_hand_mean=flat_hand_mean, num_pca_comps=num_pca_comps)

    def neutral(self, *batch: int) -> dict[str, Tensor]:
        """Parameters of the mean adult, standing on the ground: zeros, but for ``transl``."""
        like = self._neutral_transl
        parameters = {name: like.new_zeros(*batch, *shape) for name, shape in self.parameter_shapes.items()}
        return {**parameters, "transl": like.expand(*batch, 3).clone()}

    def pose(self, parameters: Mapping[str, Tensor]) -> PosedBody:
        """The posed body of named parameters, which mean what they mean to the smplx package.

        Args:
            parameters: ``[*batch, n]`` each; batch axes broadcast, missing ones are ``neutral()``'s.

                * ``betas`` and, for SMPL-X, ``expression``: the first n coefficients, up to as many as the file has.
                * ``global_orient`` [3], ``body_pose`` [69, or 63 for SMPL-H and SMPL-X], and for SMPL-X ``jaw_pose``,
                  ``leye_pose``, ``reye_pose`` [3 each]: axis times angle, radians, each joint against its parent, in
                  axes that are parallel to the world's at rest.
                * ``left_hand_pose``, ``right_hand_pose`` (SMPL-H, SMPL-X): [45] rotations, or ``num_pca_comps``
                  components; relative to the flat hand, or to the mean hand without ``flat_hand_mean``.
                * ``transl`` [3]: added to all points, metres. It is not where the pelvis lands: that is the rest
                  pose's pelvis plus ``transl``, and the body turns about it. Zeros put the body where smplx does.

        Returns:
            Joints are the model's 24, 52 or 55, the first that smplx gives. ``parameters`` holds the hands as
            rotations from the flat hand, so they mean the same whatever this model was loaded with.

        Raises:
            UserError: If a parameter is unknown or of another width.
        """
        given = self._complete(parameters)
        vertices, joints = self._surface(given)
        return PosedBody(
            vertices=vertices,
            joints=joints,
            canonical=self.canonical,
            faces=self.faces,
            parts=self.parts,
            model=self.name,
            gender=self.gender,
            parameters={name: value.expand(*joints.shape[:-2], -1) for name, value in given.items()},
        )

    def forward(self, parameters: Mapping[str, Tensor]) -> PosedBody:
        """``pose`` by the usual name of a module's work."""
        return self.pose(parameters)

    def joints_only(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "*batch j 3"]:
        """Posed joints without the surface; the parameters of ``pose``."""
        return self._posed_joints(self._complete(parameters))[2]

    def subset(self, vertex_ids: Int[Tensor, " k"]) -> "SmplBody":
        """The same body with only some vertices, and the faces that all lie among them."""
        body = copy.copy(self)
        body._buffers = dict(self._buffers)
        body._modules = {"skeleton": copy.deepcopy(self.skeleton)}  # so that moving the subset leaves this body alone
        for name in ("_template", "_basis", "_pose_basis"):
            setattr(body, name, getattr(self, name).unflatten(-1, (-1, 3))[..., vertex_ids, :].flatten(-2))
        renamed = torch.full((len(self.canonical),), -1, device=vertex_ids.device)
        renamed[vertex_ids] = torch.arange(len(vertex_ids), device=vertex_ids.device)
        corners = renamed[self.faces]
        inside = (corners >= 0).all(dim=1)
        for name in ("canonical", "weights", "parts"):
            setattr(body, name, getattr(self, name)[vertex_ids])
        body.faces = corners[inside]
        if self.uv_faces is not None:
            body.uv_faces = self.uv_faces[inside]
        return body

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {"betas": (self.num_betas,)}
        for name, joints in ROTATIONS[self.name].items():
            components = self.num_pca_comps if name in HAND_POSES else None
            shapes[name] = (components or 3 * joints,)
        if self.num_expression:
            shapes["expression"] = (self.num_expression,)
        return {**shapes, "transl": (3,)}

    def _hand(self, hand: str, side: str, file: SmplFile) -> dict[str, Tensor | None]:
        """What turns one hand's parameters into rotations."""
        components, mean = None, None
        if self.num_pca_comps is not None:
            components = _float(_needed(file, f"hands_components{side}")[: self.num_pca_comps])
        if not self.flat_hand_mean:
            mean = _float(_needed(file, f"hands_mean{side}"))
        return {f"_{hand}_components": components, f"_{hand}_mean": mean}

    def _complete(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All parameters, hands as rotations from the flat hand."""
        for name, value in parameters.items():
            if name not in self.parameter_shapes:
                known = ", ".join(self.parameter_shapes)
                raise UserError(f"{self.name} has no parameter {name!r}; it has {known}")
            width, (full,) = value.shape[-1] if value.ndim else 0, self.parameter_shapes[name]
            if width != full and not (name in ("betas", "expression") and 0 < width < full):
                raise UserError(f"{name} has {width} numbers where this {self.name} model has {full}")
        given = {**self.neutral(), **parameters}
        for hand in HAND_POSES.keys() & given.keys():
            components, mean = getattr(self, f"_{hand}_components"), getattr(self, f"_{hand}_mean")
            if components is not None:
                given[hand] = given[hand] @ components
            if mean is not None:
                given[hand] = given[hand] + mean
        return given

    def _coefficients(self, given: Mapping[str, Tensor]) -> Float[Tensor, "*batch d"]:
        betas = F.pad(given["betas"], (0, self.num_betas - given["betas"].shape[-1]))
        if not self.num_expression:
            return betas
        expression = F.pad(given["expression"], (0, self.num_expression - given["expression"].shape[-1]))
        batch = torch.broadcast_shapes(betas.shape[:-1], expression.shape[:-1])
        return torch.cat([betas.expand(*batch, -1), expression.expand(*batch, -1)], dim=-1)

    def _surface(self, given: Mapping[str, Tensor]) -> tuple[Float[Tensor, "*batch v 3"], Float[Tensor, "*batch j 3"]]:
        """Posed vertices and joints."""
        joints, turns, placed, turned = self._posed_joints(given)
        batch = joints.shape[:-2]
        correctives = (turns[..., 1:, :, :] - torch.eye(3, dtype=turns.dtype, device=turns.device)).flatten(-3)
        rest = self._template + self._coefficients(given) @ self._basis + correctives @ self._pose_basis
        rest = rest.unflatten(-1, (-1, 3)).expand(*batch, -1, 3)
        return linear_blend_skinning(rest, joints, turned, placed, self.weights), placed

    def _canonical(self) -> Float[Tensor, "v 3"]:
        """The template in the default body's rest pose, with flat hands whatever this model's hands are."""
        template, joints = (points.unflatten(0, (-1, 3)) for points in (self._template, self._joint_template))
        scale, shift = rest_placement(self.joint_names, joints, template)
        turns = rest_rotations(self.joint_names, self.joint_parents, scale * joints + shift).flatten()
        widths = [3 * num for num in ROTATIONS[self.name].values()]
        zeros = {"betas": turns.new_zeros(1), "expression": turns.new_zeros(1), "transl": turns.new_zeros(3)}
        vertices, _ = self._surface({**dict(zip(ROTATIONS[self.name], turns.split(widths), strict=True)), **zeros})
        vertices = scale * vertices + shift
        return vertices - vertices[:, 1].min() * torch.tensor([0.0, 1.0, 0.0])

    def _posed_joints(self, given: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Joints at rest, their own rotations, where they land and how they are turned there."""
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in given.values()))
        vectors = torch.cat([given[name].expand(*batch, -1) for name in ROTATIONS[self.name]], dim=-1)
        turns = axis_angle_to_matrix(vectors.unflatten(-1, (-1, 3)))
        joints = self._joint_template + self._coefficients(given) @ self._joint_basis
        joints = joints.unflatten(-1, (-1, 3)).expand(*batch, -1, 3)
        turned, placed = self.skeleton(joints, turns, joints[..., 0, :] + given["transl"])
        return joints, turns, placed, turned


def _joint_part(joint: str) -> int:
    """Label of a joint: the body's are named in the same order, fingers are hands, jaw and eyes the head."""
    if joint in _BODY_JOINTS:
        return _BODY_JOINTS.index(joint)
    if joint in ("jaw", "left_eye", "right_eye"):
        return PART_NAMES.index("head")
    return PART_NAMES.index(f"{joint.partition('_')[0]}HandIndex1")


def _needed(file: SmplFile, key: str) -> NDArray:
    if key not in file.arrays:
        raise UserError(
            f"{file.path} has no {key}: load it with flat hands and without principal components, or merge the hands "
            "of MANO into it"
        )
    return file.arrays[key]


def _float(array: NDArray) -> Float[Tensor, "..."]:
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
