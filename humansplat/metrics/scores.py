"""All figures of rendered views at once: validation while training and evaluation both take them from here."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.metrics.image import psnr, psnr_in_box, saturation, sharpness, silhouette_iou, ssim_and_in_box
from humansplat.metrics.views import MAX_PSNR, SIDES, person_box

OF_COLORS = ("psnr", "ssim", "psnr_box", "ssim_box", "sharpness", "saturation")
"""What :func:`score_colors` gives."""
METRICS = ("psnr", "ssim", "silhouette_iou", "psnr_box", "ssim_box", "psnr_head", "sharpness", "saturation")
FIGURES = (*METRICS, *(f"{name}_{side}" for name in METRICS for side in SIDES))
"""Names of what :func:`means_by_side` gives."""


def score_views(
    colors: Float[Tensor, "*batch 3 h w"],
    alphas: Float[Tensor, "*batch h w"],
    truth: Float[Tensor, "*batch 3 h w"],
    mask: Float[Tensor, "*batch h w"],
    head_box: Int[Tensor, "*batch 4"],
) -> dict[str, Float[Tensor, "*batch"]]:
    """Compare views, without waiting for the device.

    Args:
        colors: Rendered before white, sRGB in [0, 1].
        alphas: Rendered coverage.
        truth: True pictures before white.
        mask: True alpha.
        head_box: As :func:`humansplat.metrics.parts.projected_box` gives it.

    Returns:
        Of each view the figures that :data:`METRICS` names; ``psnr_head`` is NaN where the box is empty.
    """
    found = score_colors(colors, truth, mask) | {
        "silhouette_iou": silhouette_iou(alphas, mask),
        "psnr_head": psnr_in_box(colors, truth, head_box).clamp(max=MAX_PSNR),
    }
    return {name: found[name] for name in METRICS}


def score_colors(
    colors: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"], mask: Float[Tensor, "*batch h w"]
) -> dict[str, Float[Tensor, "*batch"]]:
    """The figures that need no more than pictures before white and the person's true mask; see :func:`score_views`."""
    box = person_box(mask)
    whole, in_box = ssim_and_in_box(colors, truth, box)
    return {
        "psnr": psnr(colors, truth).clamp(max=MAX_PSNR),
        "ssim": whole,
        "psnr_box": psnr_in_box(colors, truth, box).clamp(max=MAX_PSNR),
        "ssim_box": in_box,
        "sharpness": sharpness(colors, truth, mask),
        "saturation": saturation(colors, truth, mask),
    }


def means_by_side(scores: dict[str, Float[Tensor, " n"]], side: Int[Tensor, " n"]) -> dict[str, Float[Tensor, ""]]:
    """Means of all views, by the figures' names, and of each side, ``psnr_back``; NaN where there is nothing to mean.

    Args:
        scores: Of ``n`` views; those whose head is not seen do not count for ``psnr_head``.
        side: Places in ``SIDES``; a negative one leaves the view out.
    """
    figures: dict[str, Tensor] = {}
    for name, values in scores.items():
        valid = side >= 0 if name != "psnr_head" else ~values.isnan() & (side >= 0)
        figures[name] = _mean(values, valid)
        for place, label in enumerate(SIDES):
            figures[f"{name}_{label}"] = _mean(values, valid & (side == place))
    return figures


def _mean(values: Tensor, members: Tensor) -> Tensor:
    """NaN without members."""
    return torch.where(members, values, 0.0).sum() / members.sum()
