"""Losses of rendered pictures and splats.

Reduced to one scalar by a mean, not weighted. Computed in float32 whatever the autocast, since rendered
pictures and their errors are small differences. Pictures ``[*batch, c, h, w]`` in ``[0, 1]`` on the same background.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.metrics.image import ssim


def squared_loss(image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]) -> Float[Tensor, ""]:
    """Mean squared error."""
    return (image.float() - reference.float()).square().mean()


def absolute_loss(image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]) -> Float[Tensor, ""]:
    """Mean absolute error."""
    return (image.float() - reference.float()).abs().mean()


def ssim_loss(image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]) -> Float[Tensor, ""]:
    """``1 - SSIM`` (Wang et al., IEEE TIP 2004), in ``[0, 2]``."""
    return 1 - ssim(image, reference).mean()


def mask_loss(alpha: Float[Tensor, "*batch h w"], mask: Float[Tensor, "*batch h w"]) -> Float[Tensor, ""]:
    """Mean squared error of the silhouette (HumanSplat, Eq. 6)."""
    return (alpha.float() - mask.float()).square().mean()


def spill_penalty(
    alpha: Float[Tensor, "*batch h w"], mask: Float[Tensor, "*batch h w"], margin: int = 4
) -> Float[Tensor, ""]:
    """Mean opacity further than ``margin`` pixels (in the larger of x and y) outside the mask.

    Its gradient does not fade as that of a squared error does, so it clears faint floaters.
    """
    height, width = mask.shape[-2:]
    wide = F.max_pool2d(mask.float().reshape(-1, 1, height, width), 2 * margin + 1, stride=1, padding=margin)
    return (alpha.float() * (1 - wide.reshape(mask.shape))).mean()


def opacity_penalty(opacities: Float[Tensor, "*batch n"]) -> Float[Tensor, ""]:
    """``mean 4 o (1 - o)``, in ``[0, 1]``: pushes splats to be solid or absent, not a haze."""
    values = opacities.float()
    return (4 * values * (1 - values)).mean()
