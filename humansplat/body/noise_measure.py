"""How wrong fitted bodies are, in the terms in which ``humansplat.body.noise`` draws wrong ones."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.body.noise import TRUNK, sight_axes
from humansplat.body.skinning import Skeleton
from humansplat.config import NoiseLevels
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import TensorStruct

LYING_ACROSS = 0.5
"""Up to this cosine between them a bone counts as lying across the line of sight."""


class Bone(NamedTuple):
    """A joint at which errors are compared, the joint from which on they count as its own, and its bone's end."""

    group: str
    joint: str
    above: str
    end: str


TRUNK_BONES = (Bone("spine", "spine01", "root", "neck01"), Bone("head", "head", "spine01", "levator02"))
LIMB_BONES = (
    Bone("upper arm", "upperarm01", "spine01", "lowerarm01"),
    Bone("lower arm", "lowerarm01", "upperarm01", "wrist"),
    Bone("hand", "wrist", "lowerarm01", "finger3-1"),
    Bone("upper leg", "upperleg01", "root", "lowerleg01"),
    Bone("lower leg", "lowerleg01", "upperleg01", "foot"),
    Bone("foot", "foot", "lowerleg01", "toe2-1"),
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
    """Each bone of :func:`body_bones`, beyond the turn of what it hangs from."""
    swings: Float[Tensor, "*b k"]
    """The part of these that swings the bone in depth; the rest is in the picture or about the bone."""
    towards: Float[Tensor, "*b k"]
    """Cosine of the angle between the true bone and the line of sight, 0 to 1."""
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


def turn_errors(
    found: Float[Tensor, "*b j 3"],
    true: Float[Tensor, "*b j 3"],
    found_viewing: Float[Tensor, "*b 3"],
    viewing: Float[Tensor, "*b 3"],
    true_joints: Float[Tensor, "*b j 3"],
    joint_names: Sequence[str],
    skeleton: Skeleton,
) -> dict[str, Tensor]:
    """Compare rotations, each as seen from its own camera.

    Args:
        found: Rotations of the joints, axis times angle.
        true: The same of the true body.
        found_viewing: Unit direction from the fit's camera to the fitted root joint, in the fit's world.
        viewing: The same of the truth.
        true_joints: Positions, world frame.
        joint_names: Of the body model.
        skeleton: Of the body model.

    Returns:
        ``root``, ``bones``, ``swings`` and ``towards`` of :class:`BodyErrors`.
    """
    axes = toward_camera(sight_axes(viewing))
    seen = [
        axes_of @ skeleton(torch.zeros_like(rotations), axis_angle_to_matrix(rotations), rotations[..., 0, :])[0]
        for rotations, axes_of in (
            (found, toward_camera(sight_axes(found_viewing))[..., None, :, :]),
            (true, axes[..., None, :, :]),
        )
    ]
    errors = seen[0] @ seen[1].mT
    bones = body_bones(joint_names)
    joints, above, ends = (
        [joint_names.index(getattr(bone, part)) for bone in bones] for part in ("joint", "above", "end")
    )
    turns = matrix_to_axis_angle(errors[..., above, :, :].mT @ errors[..., joints, :, :])
    directions = F.normalize(true_joints[..., ends, :] - true_joints[..., joints, :], dim=-1) @ axes.mT
    x, y, z = directions.unbind(dim=-1)
    across = F.normalize(torch.stack([-y, x, torch.zeros_like(x)], dim=-1), dim=-1)
    return {
        "root": matrix_to_axis_angle(errors[..., 0, :, :]),
        "bones": turns,
        "swings": (turns * across).sum(dim=-1),
        "towards": z.abs(),
    }


def toward_camera(axes: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The axes of the line of sight with the last reversed, which makes them right-handed."""
    return torch.cat([axes[..., :2, :], -axes[..., 2:, :]], dim=-2)


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

    limbs, extremities, spine = turned(LIMBS), turned(EXTREMITIES), turned(("spine",))
    lean, turn, roll = (math.degrees(spread(errors.root[:, axis], robust)) for axis in range(3))
    return NoiseLevels(
        limb_depth=limbs[0],
        limb_picture=limbs[1],
        extremity_depth=extremities[0],
        extremity_picture=extremities[1],
        spine_depth=spine[0] / math.sqrt(len(TRUNK)),  # the spine's joints turn independently of each other
        spine_picture=spine[1] / math.sqrt(len(TRUNK)),
        root_lean=lean,
        root_turn=turn,
        root_roll=roll,
        phenotypes=spread(errors.phenotypes, robust),
        across=spread(errors.place[:, :2], robust),
        depth=spread(errors.place[:, 2], robust),
    )


def report(errors: BodyErrors, bones: Sequence[Bone], phenotype_names: Sequence[str]) -> list[str]:
    """Lines of a table: root mean squares, the robust estimate in brackets; degrees and centimetres."""

    def figure(values: Tensor, unit: float) -> str:
        if not values.numel():
            return "-".rjust(12)
        return f"{unit * spread(values, False):5.1f} ({unit * spread(values, True):4.1f})".rjust(12)

    degrees = math.degrees(1.0)
    titles = ("about each axis", "about the line", "swings in depth:", "across the line", "others")
    lines = ["bone".ljust(10) + "".join(title.rjust(18) for title in titles)]
    for group in dict.fromkeys(bone.group for bone in bones):
        chosen = [bone.group == group for bone in bones]
        turns, swings, across = errors.bones[:, chosen], errors.swings[:, chosen], errors.towards[:, chosen]
        lying = across <= LYING_ACROSS
        columns = (turns[..., :2], turns[..., 2], swings, swings[lying], swings[~lying])
        lines.append(group.ljust(10) + "".join(figure(values, degrees).rjust(18) for values in columns))
    for name, axis in (("lean", 0), ("turn", 1), ("roll", 2)):
        mean = degrees * float(errors.root[:, axis].mean())
        lines.append(
            f"root {name}".ljust(10) + figure(errors.root[:, axis], degrees).rjust(18) + f"   mean {mean:+.1f}"
        )
    for name, axis in (("right", 0), ("up", 1), ("depth", 2)):
        mean = 100 * float(errors.place[:, axis].mean())
        lines.append(
            f"root {name}".ljust(10) + figure(errors.place[:, axis], 100.0).rjust(18) + f"   mean {mean:+.1f}"
        )
    shape = (f"{name} {spread(errors.phenotypes[:, i], False):.2f}" for i, name in enumerate(phenotype_names))
    return [*lines, "phenotypes: " + ", ".join(shape)]
