"""How novel views of a person are compared: from which side they are taken, and in which box.

Shared by validation while training and by evaluation, so nothing here waits for the device.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.metrics.image import mask_box
from humansplat.structures import Cameras

SIDES = ("front", "side", "back")
SIDE_LIMITS = (45.0, 135.0)
"""A view is the next side's beyond so many degrees from the photograph's."""
BOX_MARGIN = 0.05
"""Added around the person's box, as a fraction of its larger side."""
MIN_BOX_SIZE = 16
"""Pixels; SSIM needs some."""
MAX_PSNR = 99.0
"""Equal pictures have an infinite ratio, which no mean and no JSON can hold."""


def bearings(photo: Cameras, others: Cameras, axis: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch v"]:
    """How far cameras are carried about a person from the photograph's.

    Args:
        photo: ``[*batch]``.
        others: ``[*batch, v]``.
        axis: A point of the vertical axis, world frame: the person's root joint.

    Returns:
        Angles about the vertical, radians in [-pi, pi).
    """
    first, second = photo.centers - axis, others.centers - axis[..., None, :]
    angle = torch.atan2(second[..., 0], second[..., 2]) - torch.atan2(first[..., 0], first[..., 2])[..., None]
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi


def sides(bearing: Float[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
    """Places in :data:`SIDES` of views at these bearings, radians."""
    past_front, past_side = (bearing.abs() > math.radians(limit) for limit in SIDE_LIMITS)
    return past_front.long() + past_side.long()


def person_box(alpha: Float[Tensor, "*batch h w"]) -> Int[Tensor, "*batch 4"]:
    """The box around a true silhouette in which renders of the person are compared; see ``mask_box``."""
    return mask_box(alpha, BOX_MARGIN, min_size=MIN_BOX_SIZE)
