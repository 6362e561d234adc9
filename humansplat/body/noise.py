"""Bodies that are wrong as a fit from one picture is: a model trained on them forgives the fit.

A fit puts a limb where the picture shows it and guesses how far away it is. So the errors lie along the line of
sight: a joint turns wrongly by degrees about the axes across that line, which moves what hangs from it in depth,
and hardly at all about the line itself, which would move it in the picture.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from humansplat.body.skinning import Skeleton
from humansplat.config import NoiseLevels
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle

LIMBS = ("upperleg01", "lowerleg01", "upperarm01", "lowerarm01")
EXTREMITIES = ("wrist", "foot")
NECK = ("neck01", "head")
"""Half of the variance of an extremity each: together they turn the head as a wrist turns the hand."""
TRUNK = ("spine05", "spine04", "spine03", "spine02", "spine01")


class BodyNoise(nn.Module):
    """Draws wrong parameters around true ones; nothing is learned."""

    _depth: Float[Tensor, "j 1"]
    _picture: Float[Tensor, "j 1"]

    def __init__(self, levels: NoiseLevels, joint_names: Sequence[str], skeleton: Skeleton) -> None:
        """Look up the level of each joint.

        Args:
            levels: Standard deviations.
            joint_names: Of the body model; the first is the root.
            skeleton: Of the body model.
        """
        super().__init__()
        self.levels, self.skeleton = levels, skeleton
        degrees = torch.tensor([joint_levels(name, levels) for name in joint_names])
        depth, picture = torch.deg2rad(degrees)[:, :, None].unbind(1)
        self.register_buffer("_depth", depth, persistent=False)
        self.register_buffer("_picture", picture, persistent=False)

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
            return torch.randn(like.shape, generator=generator, device=like.device)

        share = amount[:, None]
        turns = axis_angle_to_matrix(rotations)
        world, _ = self.skeleton(torch.zeros_like(rotations), turns, translation)
        draws = noise(rotations)
        sight = viewing[:, None]
        along = (draws * sight).sum(dim=-1, keepdim=True) * sight
        small = self._picture * along + self._depth * (draws - along)
        # A joint turns in its parent's axes; the root has no parent, and levels of its own.
        local = (world[:, self.skeleton.parents].mT @ small[..., None])[..., 0]
        local = torch.cat([self._root_turn(draws[:, 0], viewing)[:, None], local[:, 1:]], dim=1)
        turned = matrix_to_axis_angle(axis_angle_to_matrix(share[..., None] * local) @ turns)
        touched = local.abs().sum(dim=-1, keepdim=True) * share[..., None] > 0

        step = noise(translation)
        distance = (step * viewing).sum(dim=-1, keepdim=True)
        levels = self.levels
        shift = levels.depth * distance * viewing + levels.across * (step - distance * viewing)
        formed = (phenotypes + levels.phenotypes * share * noise(phenotypes)).clamp(0.0, 1.0)
        return {
            "phenotypes": torch.where(share > 0, formed, phenotypes),
            "rotations": torch.where(touched, turned, rotations),
            "translation": translation + share * shift,
        }

    def _root_turn(self, draws: Float[Tensor, "b 3"], viewing: Float[Tensor, "b 3"]) -> Float[Tensor, "b 3"]:
        """Axis times angle, radians, world axes."""
        levels = [
            math.radians(level) for level in (self.levels.root_lean, self.levels.root_turn, self.levels.root_roll)
        ]
        axes = sight_axes(viewing).unbind(dim=1)
        turn = torch.zeros_like(draws)
        for axis, level, draw in zip(axes, levels, draws.split(1, dim=-1), strict=True):
            turn = turn + level * draw * axis
        return turn


def joint_levels(name: str, levels: NoiseLevels) -> tuple[float, float]:
    """Degrees by which a joint turns: about each axis across the line of sight, and about that line."""
    joint = name.partition(".")[0]
    if joint in LIMBS:
        return levels.limb_depth, levels.limb_picture
    if joint in EXTREMITIES:
        return levels.extremity_depth, levels.extremity_picture
    if joint in NECK:
        return levels.extremity_depth / math.sqrt(len(NECK)), levels.extremity_picture / math.sqrt(len(NECK))
    if joint in TRUNK:
        return levels.spine_depth, levels.spine_picture
    return (levels.fingers, levels.fingers) if joint.startswith("finger") else (0.0, 0.0)


def sight_axes(viewing: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rows: right in the picture (level), up in the picture, away from the camera; unit vectors, world frame.

    The body leans about the first, turns about the second and rolls about the third.

    Args:
        viewing: Unit directions away from the camera, not vertical.
    """
    x, _, z = viewing.unbind(dim=-1)
    right = F.normalize(torch.stack([-z, torch.zeros_like(x), x], dim=-1), dim=-1)
    return torch.stack([right, torch.linalg.cross(right, viewing), viewing], dim=-2)
