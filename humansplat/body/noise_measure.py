"""How wrong fitted bodies are, in the terms in which ``humansplat.body.noise`` draws wrong ones."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.noise import sight_axes
from humansplat.body.skinning import Skeleton
from humansplat.config import NoiseLevels
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import TensorStruct

LYING_ACROSS = 0.5
"""Up to this cosine between them a bone counts as lying across the line of sight."""


class Bone(NamedTuple):
    """A joint at which errors are compared, and where its bone ends."""

    group: str
    joint: str
    end: str


TRUNK_BONES = (Bone("chest", "spine01", "neck01"), Bone("head", "head", "levator02"))
LIMB_BONES = (
    Bone("upper arm", "upperarm01", "lowerarm01"),
    Bone("lower arm", "lowerarm01", "wrist"),
    Bone("hand", "wrist", "finger3-1"),
    Bone("upper leg", "upperleg01", "lowerleg01"),
    Bone("lower leg", "lowerleg01", "foot"),
    Bone("foot", "foot", "toe2-1"),
)
LIMBS = ("upper arm", "lower arm", "upper leg", "lower leg")
EXTREMITIES = ("hand", "foot", "head")


class BodyErrors(TensorStruct):
    """What is wrong with ``b`` bodies; turns are axis times angle, radians.

    Vectors run along the axes of the line of sight: right, up, towards the camera.
    """

    root: Float[Tensor, "*b 3"]
    """The whole body leans, turns and rolls."""
    bones: Float[Tensor, "*b k 3"]
    """Each bone of :func:`body_bones`, in the world."""
    swings: Float[Tensor, "*b k"]
    """The part of these that swings the bone in depth; the rest is in the picture or about the bone."""
    towards: Float[Tensor, "*b k"]
    """Cosine of the angle between the true bone and the line of sight, 0 to 1."""
    ends: Float[Tensor, "*b k 3"]
    """Of the places of the bones' ends, the root joints put together, metres."""
    phenotypes: Float[Tensor, "*b p"]
    place: Float[Tensor, "*b 3"]
    """Of the root joint, metres."""


def body_bones(joint_names: Sequence[str]) -> list[Bone]:
    """The bones of the trunk, the left and the right limbs, by the skeleton's own names."""

    def sided(joint: str, side: str) -> str:
        return joint if joint in joint_names else f"{joint}.{side}"

    trunk = [bone._replace(end=sided(bone.end, "L")) for bone in TRUNK_BONES]
    limbs = [Bone(bone.group, *(sided(joint, side) for joint in bone[1:])) for side in "LR" for bone in LIMB_BONES]
    return trunk + limbs


class SeenPose(TensorStruct):
    """A pose in the axes of its own line of sight."""

    rotations: Float[Tensor, "*b j 3 3"]
    """Of each joint against the rest pose."""
    joints: Float[Tensor, "*b j 3"]
    """Places, the root joint at the origin, metres."""


def seen_pose(
    skeleton: Skeleton,
    rotations: Float[Tensor, "*b j 3"],
    joints: Float[Tensor, "*b j 3"],
    viewing: Float[Tensor, "*b 3"],
) -> SeenPose:
    """See a pose from its camera.

    Args:
        skeleton: Of the body model.
        rotations: Of the joints against their parents, axis times angle.
        joints: World frame, metres.
        viewing: Unit direction from the camera to the root joint, world frame.
    """
    axes = sight_axes(viewing)
    axes = torch.cat([axes[..., :2, :], -axes[..., 2:, :]], dim=-2)  # towards the camera: right-handed
    turns, _ = skeleton(torch.zeros_like(rotations), axis_angle_to_matrix(rotations), rotations[..., 0, :])
    return SeenPose(rotations=axes[..., None, :, :] @ turns, joints=(joints - joints[..., :1, :]) @ axes.mT)


def pose_errors(found: SeenPose, true: SeenPose, joint_names: Sequence[str]) -> dict[str, Tensor]:
    """Compare poses, each as seen from its own camera.

    Returns:
        ``root``, ``bones``, ``swings``, ``towards`` and ``ends`` of :class:`BodyErrors`.
    """
    errors = found.rotations @ true.rotations.mT
    bones = body_bones(joint_names)
    joints, ends = ([joint_names.index(getattr(bone, part)) for bone in bones] for part in ("joint", "end"))
    turns = matrix_to_axis_angle(errors[..., joints, :, :])
    directions = F.normalize(true.joints[..., ends, :] - true.joints[..., joints, :], dim=-1)
    x, y, z = directions.unbind(dim=-1)
    across = F.normalize(torch.stack([-y, x, torch.zeros_like(x)], dim=-1), dim=-1)
    return {
        "root": matrix_to_axis_angle(errors[..., 0, :, :]),
        "bones": turns,
        "swings": (turns * across).sum(dim=-1),
        "towards": z.abs(),
        "ends": (found.joints - true.joints)[..., ends, :],
    }


def spread(values: Tensor, robust: bool) -> float:
    """Root of the mean square; or 1.48 times the median of the sizes, which is the same for normal errors."""
    if robust:
        return 1.4826 * float(values.abs().median())
    return float(values.square().mean().sqrt())


def estimated_levels(errors: BodyErrors, bones: Sequence[Bone], robust: bool = False) -> NoiseLevels:
    """The levels of :class:`NoiseLevels` that would draw such errors; fingers keep their default.

    Args:
        errors: Of many bodies.
        bones: From :func:`body_bones`.
        robust: Let a few wild errors not count.
    """

    def turned(groups: Sequence[str]) -> tuple[float, float]:
        chosen = errors.bones[:, [bone.group in groups for bone in bones]]
        depth, picture = (math.degrees(spread(part, robust)) for part in (chosen[..., :2], chosen[..., 2]))
        return depth, picture

    limbs, extremities, chest = turned(LIMBS), turned(EXTREMITIES), turned(("chest",))
    lean, turn, roll = (math.degrees(spread(errors.root[:, axis], robust)) for axis in range(3))
    return NoiseLevels(
        limb_depth=limbs[0],
        limb_picture=limbs[1],
        extremity_depth=extremities[0],
        extremity_picture=extremities[1],
        chest_depth=chest[0],
        chest_picture=chest[1],
        root_lean=lean,
        root_turn=turn,
        root_roll=roll,
        phenotypes=spread(errors.phenotypes, robust),
        across=spread(errors.place[:, :2], robust),
        depth=spread(errors.place[:, 2], robust),
    )


def report(errors: BodyErrors, bones: Sequence[Bone], phenotype_names: Sequence[str]) -> list[str]:
    """Lines of a table: root mean squares, the robust estimate in brackets; degrees and centimetres.

    The swings are those of bones that lie across the line of sight.
    """

    def figure(values: Tensor, unit: float) -> str:
        if not values.numel():
            return "-".rjust(12)
        return f"{unit * spread(values, False):5.1f} ({unit * spread(values, True):4.1f})".rjust(12)

    degrees = math.degrees(1.0)
    titles = ("about each axis", "about the line", "swings in depth", "end in picture", "end in depth")
    lines = ["bone".ljust(12) + "".join(title.rjust(18) for title in titles)]
    for group in dict.fromkeys(bone.group for bone in bones):
        chosen = [bone.group == group for bone in bones]
        turns, ends = errors.bones[:, chosen], errors.ends[:, chosen]
        lying = errors.towards[:, chosen] <= LYING_ACROSS
        columns = [figure(x, degrees) for x in (turns[..., :2], turns[..., 2], errors.swings[:, chosen][lying])]
        columns += [figure(x, 100.0) for x in (ends[..., :2], ends[..., 2])]
        lines.append(group.ljust(12) + "".join(column.rjust(18) for column in columns))
    for name, axis in (("lean", 0), ("turn", 1), ("roll", 2)):
        mean = degrees * float(errors.root[:, axis].mean())
        lines.append(
            f"root {name}".ljust(12) + figure(errors.root[:, axis], degrees).rjust(18) + f"   mean {mean:+.1f}"
        )
    for name, axis in (("right", 0), ("up", 1), ("nearer", 2)):
        mean = 100 * float(errors.place[:, axis].mean())
        lines.append(
            f"root {name}".ljust(12) + figure(errors.place[:, axis], 100.0).rjust(18) + f"   mean {mean:+.1f}"
        )
    shape = (f"{name} {spread(errors.phenotypes[:, i], False):.2f}" for i, name in enumerate(phenotype_names))
    return [*lines, "phenotypes: " + ", ".join(shape)]
