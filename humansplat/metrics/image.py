"""PSNR, SSIM, silhouette overlap, detail and colours of rendered images, and the box that some are taken in."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
INSIDE = 0.5
"""A pixel is the person's from this alpha on."""
_C1, _C2 = 0.01**2, 0.03**2  # Wang et al. (2004), K1 and K2, for a range of 1


def psnr(image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio, dB, of images in ``[0, 1]``; infinite for equal images.

    Example:
        >>> round(psnr(torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), 0.6)).item(), 3)  # a tenth everywhere
        20.0
    """
    return -10 * (image - reference).square().mean(dim=(-3, -2, -1)).log10()


def ssim(image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]) -> Float[Tensor, "*batch"]:
    """Structural similarity of images in ``[0, 1]``, the mean over pixels and channels; differentiable.

    Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004: Gaussian window of 11 x 11, sigma 1.5, population
    covariances, only windows that lie within the image.

    Raises:
        ValueError: If the image is smaller than the window.
    """
    return _ssim_map(image, reference).mean(dim=(-3, -2, -1))


def _ssim_map(
    image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"]
) -> Float[Tensor, "*batch c y x"]:
    """Structural similarity of each window within the image, by its top left corner."""
    height, width = image.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, got {width} x {height}")
    with torch.autocast(image.device.type, enabled=False):  # variances are differences of nearly equal numbers
        dtype = torch.promote_types(image.dtype, torch.float32)
        a, b = (pictures.to(dtype).reshape(-1, height, width) for pictures in (image, reference))
        blurred = _blur(torch.stack([a, b, a * a, b * b, a * b], dim=1))
        means, squares, product = blurred.split([2, 2, 1], dim=1)
        squared_means, mean_product = means * means, means[:, 0] * means[:, 1]
        variances = (squares - squared_means).sum(dim=1)
        covariance = product[:, 0] - mean_product
        luminance = (2 * mean_product + _C1) / (squared_means.sum(dim=1) + _C1)
        values = luminance * (2 * covariance + _C2) / (variances + _C2)
    return values.reshape(*image.shape[:-2], *values.shape[-2:])


def _blur(images: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k y x"]:
    """Gaussian means of all windows within the image.

    A grouped convolution has its own float32 kernel on a GPU, where the ordinary one rounds to 10 bits (TF32).
    """
    groups = images.shape[1]
    offset = torch.arange(SSIM_WINDOW, dtype=images.dtype, device=images.device) - SSIM_WINDOW // 2
    weights = torch.exp(-offset.square() / (2 * SSIM_SIGMA**2))
    row = (weights / weights.sum()).expand(groups, 1, 1, -1)
    return F.conv2d(F.conv2d(images, row, groups=groups), row.mT, groups=groups)


def silhouette_iou(
    alpha: Float[Tensor, "*batch h w"], mask: Float[Tensor, "*batch h w"], threshold: float = 0.5
) -> Float[Tensor, "*batch"]:
    """Intersection over union of two silhouettes, each the pixels above ``threshold``; 1 when both are empty."""
    a, b = alpha > threshold, mask > threshold
    union = (a | b).sum(dim=(-2, -1))
    return torch.where(union == 0, 1.0, (a & b).sum(dim=(-2, -1)) / union.clamp(min=1))


def mask_box(
    mask: Float[Tensor, "*batch h w"], margin: float = 0.05, threshold: float = 0.5, min_size: int = 0
) -> Int[Tensor, "*batch 4"]:
    """The box of a silhouette, widened.

    Args:
        mask: The pixels above ``threshold`` count.
        margin: Added on every side, as a fraction of the box's larger side.
        threshold: See ``mask``.
        min_size: The box is widened to at least this many pixels, as far as the image reaches.

    Returns:
        ``(left, top, right, bottom)``, pixels, right and bottom exclusive; the whole image if the mask is empty.
    """
    inside = mask > threshold
    top, bottom = _span(inside.any(dim=-1))
    left, right = _span(inside.any(dim=-2))
    pad = (margin * torch.maximum(right - left, bottom - top)).round().long()
    left, right = _widened(left - pad, right + pad, mask.shape[-1], min_size)
    top, bottom = _widened(top - pad, bottom + pad, mask.shape[-2], min_size)
    return torch.stack([left, top, right, bottom], dim=-1)


def _span(flags: Bool[Tensor, "*batch n"]) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """From the first to after the last true entry; everything if there is none."""
    length = flags.shape[-1]
    places = torch.arange(length, device=flags.device)
    none = ~flags.any(dim=-1)
    first = torch.where(flags, places, length).amin(dim=-1).masked_fill(none, 0)
    return first, torch.where(flags, places + 1, 0).amax(dim=-1).masked_fill(none, length)


def _widened(
    start: Int[Tensor, "*batch"], stop: Int[Tensor, "*batch"], length: int, min_size: int
) -> tuple[Int[Tensor, "*batch"], Int[Tensor, "*batch"]]:
    """Ranges of at least ``min_size`` within ``[0, length)`` around the given ones."""
    start, stop, least = start.clamp(min=0), stop.clamp(max=length), min(min_size, length)
    lack = (least - (stop - start)).clamp(min=0)
    start = torch.minimum(start - lack // 2, length - (stop - start) - lack).clamp(min=0)
    return start, torch.maximum(stop, start + least)


def crop(image: Float[Tensor, "*batch h w"], box: Sequence[int]) -> Float[Tensor, "*batch y x"]:
    """The part of an image within ``(left, top, right, bottom)``."""
    left, top, right, bottom = box
    return image[..., top:bottom, left:right]


def psnr_in_box(
    image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"], box: Int[Tensor, "*batch 4"]
) -> Float[Tensor, "*batch"]:
    """``psnr`` of the parts within boxes, each image its own, without waiting for the device."""
    inside = _within(box, image.shape[-2], image.shape[-1])
    squared = (image - reference).square().mean(dim=-3) * inside
    return -10 * (squared.sum(dim=(-2, -1)) / inside.sum(dim=(-2, -1))).log10()


def ssim_and_in_box(
    image: Float[Tensor, "*batch c h w"], reference: Float[Tensor, "*batch c h w"], box: Int[Tensor, "*batch 4"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """``ssim``, and that of the parts within boxes, each image its own, without waiting for the device.

    Args:
        image: In ``[0, 1]``.
        reference: In ``[0, 1]``.
        box: At least 11 x 11 pixels.
    """
    values = _ssim_map(image, reference).mean(dim=-3)
    corners = torch.cat([box[..., :2], box[..., 2:] - (SSIM_WINDOW - 1)], dim=-1)  # of windows within the box
    inside = _within(corners, values.shape[-2], values.shape[-1])
    return values.mean(dim=(-2, -1)), (values * inside).sum(dim=(-2, -1)) / inside.sum(dim=(-2, -1))


def _within(box: Int[Tensor, "*batch 4"], height: int, width: int) -> Bool[Tensor, "*batch h w"]:
    """The pixels of a picture that lie in its box."""
    left, top, right, bottom = (edge[..., None] for edge in box.unbind(dim=-1))
    x, y = (torch.arange(length, device=box.device) for length in (width, height))
    return ((y >= top) & (y < bottom))[..., :, None] & ((x >= left) & (x < right))[..., None, :]


def sharpness(
    drawn: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"], masks: Float[Tensor, "*batch h w"]
) -> Float[Tensor, "*batch"]:
    """How much neighbouring pixels of the person differ, as a share of how much they truly do: below 1 is blurred."""
    inside = (masks > INSIDE).to(truth.dtype)
    pairs = inside[..., 1:, :] * inside[..., :-1, :], inside[..., :, 1:] * inside[..., :, :-1]

    def detail(pictures: Tensor) -> Tensor:
        down, across = (pictures.diff(dim=dim).abs().mean(dim=-3) for dim in (-2, -1))
        return (down * pairs[0]).sum(dim=(-2, -1)) + (across * pairs[1]).sum(dim=(-2, -1))

    return detail(drawn) / detail(truth).clamp(min=1e-6)


def saturation(
    drawn: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"], masks: Float[Tensor, "*batch h w"]
) -> Float[Tensor, "*batch"]:
    """How far a pixel's channels lie apart on the person, as a share of how far they truly do: 0 is grey.

    Errors of colour hardly count in what compares pixels: clothes and skin are mostly light or dark.
    """
    inside = (masks > INSIDE).to(truth.dtype)

    def spread(pictures: Tensor) -> Tensor:
        return ((pictures.amax(dim=-3) - pictures.amin(dim=-3)) * inside).sum(dim=(-2, -1))

    return spread(drawn) / spread(truth).clamp(min=1e-6)


def color_error(
    pictures: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"], masks: Float[Tensor, "b h w"]
) -> Float[Tensor, " b"]:
    """Squared error of colours less their shade within masks, as a share of the truth's own: grey pictures have 1.

    It shows what PSNR hardly does: people, their clothes and their hair are mostly light or dark.
    """
    true_colors = less_shade(truth) * masks[:, None]
    wrong = less_shade(pictures) * masks[:, None] - true_colors
    return wrong.square().sum(dim=(1, 2, 3)) / true_colors.square().sum(dim=(1, 2, 3)).clamp(min=1e-6)


def less_shade(pictures: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """Each pixel's channels less their mean: what a grey copy lacks."""
    return pictures - pictures.mean(dim=-3, keepdim=True)
