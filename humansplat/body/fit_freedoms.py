"""The degrees of freedom of a fitted pose: one anatomical angle each, with its limits and its prior.

A body rig has a hundred joints and three angles in each; what a photograph can tell is some
forty angles. Each row of :data:`FREEDOMS` is one of them. It turns one joint or is shared among
several (a spine, a twisting forearm), about an axis that is derived from the model's rest pose, so
the same table serves every rig that has the joints it names.

The local rotation of a joint is ``exp(swing) exp(twist)``: twists about the bone first, then the
swing that carries the bone. Axes are world-aligned at rest (+Y up, facing +Z, the left hand at +X).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.protocol import BodyModel
from humansplat.geometry.rotations import axis_angle_to_matrix, skew

RELAXED_FINGERS = {
    "finger2": (10.0, 18.0, 10.0),
    "finger3": (14.0, 20.0, 12.0),
    "finger4": (16.0, 22.0, 12.0),
    "finger5": (18.0, 22.0, 12.0),
}
"""Degrees by which the joints of relaxed fingers bend from the rest pose's flat hand."""


@dataclass(frozen=True)
class Freedom:
    """One angle of the pose, in degrees; positive in the direction that the name says."""

    name: str
    shares: tuple[tuple[str, float], ...]
    """Joints that it turns, and the share of the angle that each takes."""
    axis: str
    """``x``, ``y``, ``z``: world axes; ``bone``, ``across``, ``lift``: of the limb, see :func:`limb_axes`."""
    limits: tuple[float, float]
    """Range without penalty, from the rest pose."""
    mean: float
    std: float
    twist: bool = False


SPINE = tuple((f"spine0{i}", 0.2) for i in (5, 4, 3, 2, 1))
NECK = (("neck01", 0.2), ("neck02", 0.2), ("neck03", 0.2), ("head", 0.4))

# Limits: the ranges of motion of the American Academy of Orthopaedic Surgeons (Joint Motion, 1965), counted from the
# rest pose, in which the arms hang 45 degrees off the body, the elbows are bent by 41 and the knees by 8 degrees;
# widened by ten to twenty degrees at the shoulder, hip and ankle, where the rig has one joint and the body several.
# Means and deviations: of 300 poses that `humansplat synthesize` draws (MakeHuman's poses and animations, and people
# who stand, walk, sit ...), expressed in these angles, both sides together.
TRUNK = (
    Freedom("spine_flexion", SPINE, "x", (-30, 75), 3, 12),
    Freedom("spine_tilt_left", SPINE, "-z", (-35, 35), 0, 10),
    Freedom("spine_turn_left", SPINE, "y", (-45, 45), 0, 14, twist=True),
    Freedom("neck_flexion", NECK, "x", (-55, 50), 4, 12),
    Freedom("neck_tilt_left", NECK, "-z", (-40, 40), 0, 7),
    Freedom("neck_turn_left", NECK, "y", (-75, 75), 0, 19, twist=True),
)

LIMBS = (
    Freedom("clavicle_raise", (("clavicle", 1.0),), "z", (-12, 40), 1, 8),
    Freedom("clavicle_forward", (("clavicle", 1.0),), "-y", (-20, 25), -2, 8),
    Freedom("arm_raise", (("upperarm01", 1.0),), "across", (-65, 130), -10, 27),
    Freedom("arm_forward", (("upperarm01", 1.0),), "lift", (-60, 130), 4, 21),
    Freedom("arm_twist", (("upperarm01", 0.5), ("upperarm02", 0.5)), "bone", (-100, 100), 14, 45, twist=True),
    Freedom("elbow_flexion", (("lowerarm01", 1.0),), "lift", (-44, 105), -2, 38),
    Freedom("forearm_twist", (("lowerarm02", 0.6), ("wrist", 0.4)), "bone", (-85, 85), 0, 30, twist=True),
    Freedom("wrist_flexion", (("wrist", 1.0),), "-across", (-65, 65), 0, 15),
    Freedom("wrist_deviation", (("wrist", 1.0),), "lift", (-30, 30), 0, 10),
    Freedom("hip_flexion", (("upperleg01", 1.0),), "-x", (-35, 125), 5, 26),
    Freedom("hip_abduction", (("upperleg01", 1.0),), "z", (-35, 60), 3, 11),
    Freedom("hip_twist", (("upperleg01", 0.5), ("upperleg02", 0.5)), "-bone", (-45, 50), 9, 13, twist=True),
    Freedom("knee_flexion", (("lowerleg01", 1.0),), "x", (-12, 137), 7, 26),
    Freedom("ankle_flexion", (("foot", 1.0),), "-x", (-50, 30), 1, 13),
    Freedom("ankle_tilt", (("foot", 1.0),), "z", (-25, 25), -1, 7),
    Freedom("ankle_turn", (("foot", 1.0),), "y", (-25, 30), 2, 12),
)

LIMB_BONES = {  # first word of a freedom's first joint -> the joints its bone runs between
    "upperarm01": ("upperarm01", "lowerarm01"),
    "lowerarm01": ("lowerarm01", "wrist"),
    "lowerarm02": ("lowerarm01", "wrist"),
    "wrist": ("lowerarm01", "wrist"),
    "upperleg01": ("upperleg01", "lowerleg01"),
    "lowerleg01": ("lowerleg01", "foot"),
}


def all_freedoms() -> tuple[Freedom, ...]:
    """The trunk's freedoms, then the left limbs', then the right limbs' in the same order."""
    sided = tuple(
        Freedom(
            f"{row.name}.{side}",
            tuple((f"{joint}.{side}", share) for joint, share in row.shares),
            row.axis,
            row.limits,
            row.mean,
            row.std,
            row.twist,
        )
        for side in ("L", "R")
        for row in LIMBS
    )
    return TRUNK + sided


def limb_axes(start: Float[Tensor, "3"], end: Float[Tensor, "3"]) -> dict[str, Tensor]:
    """Axes of a left limb at rest: the ``bone``; ``across`` it, near +Z; and ``lift``, which takes the bone to +Z."""
    bone = torch.nn.functional.normalize(end - start, dim=0)
    forward = bone.new_tensor([0.0, 0.0, 1.0])
    across = torch.nn.functional.normalize(forward - (forward @ bone) * bone, dim=0)
    return {"bone": bone, "across": across, "lift": torch.linalg.cross(bone, across)}


def rest_axis(freedom: Freedom, rest: dict[str, Tensor]) -> Float[Tensor, "3"]:
    """Unit axis of a freedom in the rest pose.

    Args:
        freedom: A row of the table.
        rest: Joint positions of the mean adult at rest, by joint name.

    Returns:
        The axis; for the right side the left one's mirror image, ``(x, -y, -z)`` of a turning axis, so
        that the same angle means the same pose on both sides.
    """
    joint = freedom.shares[0][0]
    stem, side = joint.rpartition(".")[::2] if joint.endswith((".L", ".R")) else (joint, "")
    sign, name = (-1.0, freedom.axis[1:]) if freedom.axis.startswith("-") else (1.0, freedom.axis)
    if name in "xyz":
        axis = torch.eye(3)["xyz".index(name)]
    else:
        start, end = (rest[f"{bone}.L"] for bone in LIMB_BONES[stem])
        axis = limb_axes(start, end)[name]
    mirror = axis.new_tensor([1.0, -1.0, -1.0]) if side == "R" else torch.ones(3)
    return sign * axis * mirror


class PoseSpace:
    """Maps angles to local rotations of the joints of a rig.

    Args:
        joint_names: Joints to be turned; the others of the table are left out.
        rest: Joint positions of the mean adult at rest, by joint name.
    """

    def __init__(self, joint_names: list[str], rest: dict[str, Tensor]) -> None:
        self.freedoms = all_freedoms()
        self.index = {freedom.name: i for i, freedom in enumerate(self.freedoms)}
        bases = torch.zeros(2, len(joint_names), 3, len(self.freedoms))
        for column, freedom in enumerate(self.freedoms):
            axis = rest_axis(freedom, rest)
            for joint, share in freedom.shares:
                bases[int(freedom.twist), joint_names.index(joint), :, column] = share * axis
        self.swing, self.twist = bases
        table = [(*freedom.limits, freedom.mean, freedom.std) for freedom in self.freedoms]
        self.lower, self.upper, self.mean, self.std = torch.deg2rad(torch.tensor(table)).unbind(-1)

    def rotations(self, angles: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch j 3 3"]:
        """Local rotations of the joints for angles in radians."""
        swing = axis_angle_to_matrix(torch.einsum("jad,...d->...ja", self.swing, angles))
        twist = axis_angle_to_matrix(torch.einsum("jad,...d->...ja", self.twist, angles))
        return swing @ twist

    def spins(self, angles: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch j 3 d"]:
        """Angular velocity of each joint, in its parent's frame, by each angle: the derivative of ``rotations``."""
        swing = torch.einsum("jad,...d->...ja", self.swing, angles)
        # All twists of a joint share one axis, which a twist about it leaves in place.
        return left_jacobian(swing) @ self.swing + axis_angle_to_matrix(swing) @ self.twist

    def mirrored(self, angles: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The angles of the mirror image of a pose: sides exchanged, sideways trunk angles negated."""
        trunk, left, right = angles.split([len(TRUNK), len(LIMBS), len(LIMBS)], dim=-1)
        sign = trunk.new_tensor([1.0 if row.axis.strip("-") == "x" else -1.0 for row in TRUNK])
        return torch.cat([sign * trunk, right, left], dim=-1)


def left_jacobian(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Takes the rate of an axis-angle vector to the angular velocity, in the fixed frame, of the rotation it means."""
    squared = vector.square().sum(dim=-1)[..., None, None]
    safe = squared.clamp(min=1e-4)
    angle = safe.sqrt()
    first = torch.where(squared < 1e-4, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    second = torch.where(squared < 1e-4, 1 / 6 - squared / 120, (angle - angle.sin()) / (safe * angle))
    cross = skew(vector)
    return torch.eye(3) + first * cross + second * (cross @ cross)


def relaxed_hands(model: BodyModel) -> Float[Tensor, "j 3"]:
    """Rotations of all joints that bend the fingers a little towards the palm, as hands at rest are.

    The palms face down at rest with the arms 45 degrees out, so a finger bends about the axis ``across`` its hand.
    """
    rotations = torch.zeros(len(model.joint_names), 3)
    rest = model.pose(model.neutral()).joints
    index = model.joint_names.index
    for side, sign in (("L", -1.0), ("R", 1.0)):
        bone = torch.nn.functional.normalize(rest[index(f"finger3-1.{side}")] - rest[index(f"wrist.{side}")], dim=0)
        knuckles = rest[index(f"finger2-1.{side}")] - rest[index(f"finger5-1.{side}")]
        across = torch.nn.functional.normalize(knuckles - (knuckles @ bone) * bone, dim=0)
        for finger, curls in RELAXED_FINGERS.items():
            for phalanx, curl in enumerate(curls, start=1):
                rotations[index(f"{finger}-{phalanx}.{side}")] = sign * torch.deg2rad(torch.tensor(curl)) * across
    return rotations
