"""The person's soft mask: from the pose graph and the picture's own edges, or from another matting model."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

from humansplat.capture.graph import sigmoid
from humansplat.capture.matting import solve_alpha
from humansplat.errors import UserError

Matting = Literal["graph", "rembg"]
"""Who draws the mask."""

# Half-width of the band along the outline that is solved against the picture, in pixels of the graph's mask.
_BAND = 2.0
_WIDEST_BAND = 6.0
_UNSURE = (0.03, 0.97)
# How much the graph's guess counts inside the band, against the matting term's unit weight.
_PRIOR_WEIGHT = 1e-2


def refine_mask(
    image: Float[np.ndarray, "h w 3"], logits: Float[np.ndarray, "h w"], graph_pixel: float
) -> Float[np.ndarray, "h w"]:
    """Draw the soft edge of a coarse mask along the edges of the picture.

    Args:
        image: sRGB in ``[0, 1]``.
        logits: Log-odds of the person at the same pixels, smooth.
        graph_pixel: How many of these pixels one pixel of the graph's mask is.

    Returns:
        Alpha in ``[0, 1]``.
    """
    probability = sigmoid(logits)
    inside = keep_largest(probability > 0.5)
    distance = np.where(inside, ndimage.distance_transform_edt(inside), ndimage.distance_transform_edt(~inside))
    unsure = (probability > _UNSURE[0]) & (probability < _UNSURE[1]) & (distance < _WIDEST_BAND * graph_pixel)
    unknown = unsure | (distance < _BAND * graph_pixel)
    prior = np.where(unknown, probability, inside).astype(np.float32)
    return solve_alpha(image, prior, unknown, np.full_like(prior, _PRIOR_WEIGHT))


def keep_largest(inside: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Keep the largest connected piece, and others at least a tenth its size (a leg behind a bag)."""
    labels, count = ndimage.label(inside, structure=np.ones((3, 3)))
    if count <= 1:
        return inside
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return (sizes >= 0.1 * sizes.max())[labels]


def rembg_mask(image: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Let ``rembg`` draw the mask; it downloads its model on first use.

    Raises:
        UserError: If ``rembg`` is not installed.
    """
    try:
        import rembg
    except ImportError as error:
        raise UserError(
            "matting 'rembg' needs the package rembg, which is not installed; run: pip install 'rembg[cpu]'"
        ) from error
    picture = Image.fromarray((image * 255.0 + 0.5).astype(np.uint8))
    mask = rembg.remove(picture, session=rembg.new_session("u2net_human_seg"), only_mask=True)
    return np.asarray(mask.convert("L"), dtype=np.float32) / 255.0
