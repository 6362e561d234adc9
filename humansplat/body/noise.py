"""Bodies that are a little wrong, as a fit from one picture is: a model trained on them forgives the fit."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

LIMBS = (
    "upperleg01",
    "lowerleg01",
    "upperarm01",
    "lowerarm01",
    "shoulder01",
    "clavicle",
    "foot",
    "wrist",
    "neck",
    "head",
)
"""Joints (by the beginnings of their names) that a fit misses by most, for lack of depth."""
TRUNK = ("spine", "pelvis")


def rotation_noise_scale(joint_names: Sequence[str]) -> Float[Tensor, "j 1"]:
    """How uncertain each joint's rotation is, against a limb's: trunk less, fingers as much, the face not at all."""
    scales = [
        1.0 if name.startswith(LIMBS) else 0.5 if name.startswith(TRUNK) else 1.0 if name.startswith("finger") else 0.0
        for name in joint_names
    ]
    return torch.tensor(scales)[:, None]


def perturb_parameters(
    phenotypes: Float[Tensor, "b p"],
    rotations: Float[Tensor, "b j 3"],
    translation: Float[Tensor, "b 3"],
    viewing: Float[Tensor, "b 3"],
    joint_scale: Float[Tensor, "j 1"],
    amount: Float[Tensor, " b"],
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Draw wrong parameters around true ones.

    At ``amount`` 1 the standard deviations are 0.08 of a phenotype's range, 7 degrees for a limb,
    4 degrees for the whole body (10 about the vertical), 1 cm across the picture and 4 cm in depth:
    about what fitting one picture leaves.

    Args:
        phenotypes: In [0, 1].
        rotations: Axis times angle, radians; the first is the whole body's.
        translation: Metres, world frame.
        viewing: Unit direction from the camera to the body, world frame.
        joint_scale: From :func:`rotation_noise_scale`.
        amount: Of each body, >= 0.
        generator: On the tensors' device.

    Returns:
        The three, by their names.
    """

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=like.device)

    share = amount[:, None]
    turned = rotations + 0.12 * share[..., None] * joint_scale * noise(rotations)
    root = noise(translation) * translation.new_tensor([0.07, 0.17, 0.07])
    turned[:, 0] = rotations[:, 0] + share * root
    moved = translation + share * (0.01 * noise(translation) + 0.04 * viewing * noise(translation[:, :1]))
    return {
        "phenotypes": (phenotypes + 0.08 * share * noise(phenotypes)).clamp(0.0, 1.0),
        "rotations": turned,
        "translation": moved,
    }
