"""How good generated views of a person are: against the truth, and with each other.

No view's mask is known but the truth's, so what is compared between views is taken of everything that is not white.
Two level views of one person show the same colours at the same height, as far as front and back are dressed alike;
the true views' own disagreement, ``*_true``, says how far.

Shapes: b people, v views (the first is the photograph), bands: horizontal strips of a picture.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.metrics.scores import OF_COLORS, score_colors

NUM_BANDS = 16
WHITE = 0.04, 0.1
"""A pixel counts once its darkest channel is so far below white, which a decoder's haze is not, and in full from the
second on."""
OCCUPIED = 0.01
"""Share of a row that must not be white for the person to be there."""
VIEW_NAMES = {1: "left", 2: "back", 3: "right"}
"""Of the rig's views, as the person has sides."""
BETWEEN_VIEWS = ("front_back_color", "neighbour_color", "neighbour_height")
FIGURES = (
    *OF_COLORS,
    *(f"{name}_{view}" for view in VIEW_NAMES.values() for name in OF_COLORS),
    *BETWEEN_VIEWS,
    *(f"{name}_true" for name in BETWEEN_VIEWS),
)
"""Names that :func:`score_generated` gives."""


def score_generated(
    drawn: Float[Tensor, "b v 3 h w"], truth: Float[Tensor, "b v 3 h w"], masks: Float[Tensor, "b v h w"]
) -> dict[str, Float[Tensor, " b"]]:
    """All figures of each person, without waiting for the device.

    Args:
        drawn: Of the rig; the first is the photograph.
        truth: Before white.
        masks: True alpha.

    Returns:
        ``psnr``, ``ssim``, ``psnr_box``, ``ssim_box``, ``sharpness`` and ``saturation`` of the generated views and,
        with a suffix, of each; ``front_back_color``, ``neighbour_color`` (mean distances of a channel, 0 to 1) and
        ``neighbour_height`` (overlap of the rows that two views occupy), with ``_true`` those of the true views.
    """
    each = score_colors(drawn, truth, masks)
    figures = {name: values[:, 1:].mean(dim=1) for name, values in each.items()}
    for view in range(1, drawn.shape[1]):
        figures |= {f"{name}_{VIEW_NAMES[view]}": values[:, view] for name, values in each.items()}
    return figures | agreement(drawn) | {f"{name}_true": values for name, values in agreement(truth).items()}


def agreement(views: Float[Tensor, "b v 3 h w"]) -> dict[str, Float[Tensor, " b"]]:
    """How far views that stand around a person contradict each other; see :func:`score_generated`."""
    colors, shares = band_colors(views)
    following = colors.roll(-1, dims=1), shares.roll(-1, dims=1)
    opposite = views.shape[1] // 2
    occupied = _coverage(views).mean(dim=-1) > OCCUPIED  # [b, v, h]
    beside = occupied.roll(-1, dims=1)
    overlap = (occupied & beside).sum(-1) / (occupied | beside).sum(-1).clamp(min=1)
    return {
        "front_back_color": color_distance(colors[:, 0], shares[:, 0], colors[:, opposite], shares[:, opposite]),
        "neighbour_color": color_distance(colors, shares, *following).mean(dim=1),
        "neighbour_height": overlap.mean(dim=1),
    }


def band_colors(
    pictures: Float[Tensor, "*batch 3 h w"], num_bands: int = NUM_BANDS
) -> tuple[Float[Tensor, "*batch n 3"], Float[Tensor, "*batch n"]]:
    """Mean colour of what is not white in each horizontal band, and the band's share of it."""
    coverage = _coverage(pictures)[..., None, :, :]
    sums = torch.cat([pictures * coverage, coverage], dim=-3)
    means = F.adaptive_avg_pool2d(sums.flatten(0, -4), (num_bands, 1)).reshape(*sums.shape[:-2], num_bands)
    share = means[..., 3, :]
    return (means[..., :3, :] / share[..., None, :].clamp(min=1e-6)).mT, share


def color_distance(
    a: Float[Tensor, "*batch n 3"],
    share_a: Float[Tensor, "*batch n"],
    b: Float[Tensor, "*batch n 3"],
    share_b: Float[Tensor, "*batch n"],
) -> Float[Tensor, "*batch"]:
    """Mean distance of a channel between bands of two views, by how much both show there."""
    weight = torch.minimum(share_a, share_b)
    return ((a - b).abs().mean(dim=-1) * weight).sum(dim=-1) / weight.sum(dim=-1).clamp(min=1e-6)


def _coverage(pictures: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch h w"]:
    return ((1 - pictures.amin(dim=-3) - WHITE[0]) / (WHITE[1] - WHITE[0])).clamp(0, 1)
