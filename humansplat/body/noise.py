"""Bodies that are wrong as a fit from one picture is: a model trained on them forgives the fit.

A fit puts a limb where the picture shows it and guesses how far away its end is. So errors lie along the line of
sight: a bone is turned wrongly by degrees about the axes across that line, and hardly about the line itself, which
would show in the picture. And each bone is turned wrongly by itself: what the fit has done to the upper arm it makes
up for in the forearm, to reach the hand that it sees.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from humansplat import draws
from humansplat.body.skinning import Skeleton
from humansplat.config import NoiseLevels
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

LIMBS = ("upperleg01", "lowerleg01", "upperarm01", "lowerarm01")
EXTREMITIES = ("wrist", "foot", "head")
CHEST = "spine01"
BETWEEN = {
    "spine05": (CHEST, 0.2),
    "spine04": (CHEST, 0.4),
    "spine03": (CHEST, 0.6),
    "spine02": (CHEST, 0.8),
    "neck01": ("head", 0.25),
    "neck02": ("head", 0.5),
    "neck03": ("head", 0.75),
}
"""Joints that go part of the way from what they hang from (the root, the chest) to another joint."""
HANGS_FROM = {"spine": "root", "neck": CHEST}


class BodyNoise(nn.Module):
    """Draws wrong parameters around true ones; nothing is learned."""

    _levels: Float[Tensor, "j 3"]
    """Of each joint's own error about the axes of the line of sight, radians."""
    _mixing: Float[Tensor, "j j"]
    """From own errors to the errors of the world rotations."""
    _touched: Bool[Tensor, "j 1"]
    """Joints that turn against their parents."""

    def __init__(self, levels: NoiseLevels, joint_names: Sequence[str], skeleton: Skeleton) -> None:
        """Look up the level of each joint.

        Args:
            levels: Standard deviations.
            joint_names: Of the body model; the first is the root.
            skeleton: Of the body model.
        """
        super().__init__()
        self.levels, self.skeleton = levels, skeleton
        mixing = mixing_matrix(joint_names, skeleton.parents.tolist())
        carried = mixing[skeleton.parents.cpu()]
        carried[0] = 0.0
        degrees = torch.tensor([joint_levels(name, levels) for name in joint_names])
        self.register_buffer("_levels", torch.deg2rad(degrees), persistent=False)
        self.register_buffer("_mixing", mixing, persistent=False)
        self.register_buffer("_touched", (mixing != carried).any(dim=1, keepdim=True), persistent=False)

    def forward(
        self,
        phenotypes: Float[Tensor, "b p"],
        rotations: Float[Tensor, "b j 3"],
        translation: Float[Tensor, "b 3"],
        viewing: Float[Tensor, "b 3"],
        amount: Float[Tensor, " b"],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Draw one wrong body for each true one; no synchronisation with the device.

        The root moves along its ray, so that it stays where it is in the picture.

        Args:
            phenotypes: In [0, 1].
            rotations: Axis times angle of each joint against its parent, radians; the first is the whole body's.
            translation: World position of the root joint, metres.
            viewing: Unit direction from the camera to the root joint, world frame, not vertical.
            amount: What the levels are multiplied by for each body, >= 0; at 0 a body stays as it is.
            generator: On the tensors' device.

        Returns:
            The three parameters, by their names.
        """

        def noise(like: Tensor) -> Tensor:
            return draws.normal(generator, *like.shape)

        share, axes = amount[:, None], sight_axes(viewing)
        errors = self._mixing @ (share[..., None] * self._levels * noise(rotations)) @ axes
        true_turns, wrong_turns = axis_angle_to_matrix(torch.stack([rotations, errors])).unbind(0)
        world, _ = self.skeleton(torch.zeros_like(rotations), true_turns, translation)
        wrong = wrong_turns @ world
        local = wrong[:, self.skeleton.parents[1:]].mT @ wrong[:, 1:]
        turned = matrix_to_axis_angle(torch.cat([wrong[:, :1], local], dim=1))

        formed = (phenotypes + self.levels.phenotypes * share * noise(phenotypes)).clamp(0.0, 1.0)
        across, depth = noise(translation).split([2, 1], dim=-1)
        shift = torch.cat([self.levels.across * across, self.levels.depth * depth], dim=-1)
        return {
            "phenotypes": torch.where(share > 0, formed, phenotypes),
            "rotations": torch.where(self._touched & (share[..., None] > 0), turned, rotations),
            "translation": translation + share * (shift[:, None] @ axes)[:, 0],
        }


def joint_levels(name: str, levels: NoiseLevels) -> tuple[float, float, float]:
    """Degrees by which a joint turns wrongly about the axes of the line of sight: right, up and the line itself."""
    joint = name.partition(".")[0]
    if joint == "root":
        return levels.root_lean, levels.root_turn, levels.root_roll
    if joint in LIMBS:
        return levels.limb_depth, levels.limb_depth, levels.limb_picture
    if joint in EXTREMITIES:
        return levels.extremity_depth, levels.extremity_depth, levels.extremity_picture
    if joint == CHEST:
        return levels.chest_depth, levels.chest_depth, levels.chest_picture
    return (levels.fingers,) * 3 if joint.startswith("finger") else (0.0,) * 3


def mixing_matrix(joint_names: Sequence[str], parents: Sequence[int]) -> Float[Tensor, "j j"]:
    """Rows: of whose own errors a joint's error in the world consists.

    The root, the limbs, the hands, the feet, the chest and the head have only their own; the joints of the spine and
    the neck lie between two of those; fingers add theirs to the hand's; all others go with their parents.

    Args:
        joint_names: The first is the root.
        parents: Of each joint, before it in the order.
    """
    own = torch.eye(len(joint_names))
    rows: list[Tensor] = []
    for joint, name in enumerate(joint_names):
        stem = name.partition(".")[0]
        if joint == 0 or stem in (*LIMBS, *EXTREMITIES, CHEST):
            rows.append(own[joint])
        elif stem in BETWEEN:
            target, part = BETWEEN[stem]
            base = own[joint_names.index(HANGS_FROM[stem[:-2]])]
            rows.append(torch.lerp(base, own[joint_names.index(target)], part))
        else:
            rows.append(rows[parents[joint]] + (own[joint] if stem.startswith("finger") else 0.0))
    return torch.stack(rows)


def sight_axes(viewing: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rows: right in the picture (level), up in the picture, away from the camera; unit vectors, world frame.

    The body leans about the first, turns about the second and rolls about the third.

    Args:
        viewing: Unit directions away from the camera, not vertical.
    """
    x, _, z = viewing.unbind(dim=-1)
    right = F.normalize(torch.stack([-z, torch.zeros_like(x), x], dim=-1), dim=-1)
    return torch.stack([right, torch.linalg.cross(right, viewing), viewing], dim=-2)
