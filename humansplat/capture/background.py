"""Plain backgrounds: whatever is not of their colour is no background, and the other way round."""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

# All lengths are shares of the person's length.
_SPREAD = 0.12
_SAFETY = 0.04
# A background is plain when nine in ten of its pixels are this near to its smooth part (sRGB, each channel).
_PLAIN = 0.035
# Things differ from the background by this much at least: more than soft shadows do.
THING_DIFFERENCE = 0.12
# Pixels this near to the background may be background.
_ALIKE = 0.05
# Gaps between limbs lie this near to the outline of the graph's mask, in its pixels; what lies deeper is person.
_GAP_DEPTH = 8.0
_DEEP = 3.0
# Area of the smallest gap, in pixels of the graph's mask.
_SMALLEST_GAP = 0.3
_SURROUNDINGS = 0.05
_MAX_SHARE_ALIKE = 0.05
_MIN_SHARE_DEEP = 0.1


def background_difference(
    image: Float[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"] | None:
    """Measure how far every pixel is from a plain background.

    Args:
        image: sRGB in ``[0, 1]``.
        inside: The person.

    Returns:
        The largest difference of the channels; ``None`` when the background is not plain.
    """
    length = person_length(inside)
    clear = ndimage.distance_transform_edt(~inside) > _SAFETY * length
    if clear.sum() < 0.05 * clear.size:
        return None
    difference = np.abs(image - _smooth_background(image, clear, _SPREAD * length)).max(axis=-1)
    if np.quantile(difference[clear], 0.7) > _PLAIN:
        return None
    # A thing beside the person pulls the smooth background towards it; estimate again without it.
    clear &= difference < THING_DIFFERENCE
    difference = np.abs(image - _smooth_background(image, clear, _SPREAD * length)).max(axis=-1)
    return difference if np.quantile(difference[clear], 0.9) <= _PLAIN else None


def sure_background(
    difference: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], graph_pixel: float
) -> Bool[np.ndarray, "h w"]:
    """Find background near the outline that a coarse mask may take for person: between the legs, in a fist.

    Where the person itself is of the background's colour nothing is found.

    Args:
        difference: From :func:`background_difference`.
        inside: The person.
        graph_pixel: How many of these pixels one pixel of the graph's mask is.
    """
    depth = ndimage.distance_transform_edt(inside)
    alike = difference < _ALIKE
    deep = depth > _DEEP * graph_pixel
    spread = _SURROUNDINGS * person_length(inside)
    # Of thin parts too little lies deep to tell their colour.
    all_deep = blurred(deep.astype(np.float32), spread)
    clothed_alike = blurred((deep & (difference < 1.3 * _ALIKE)).astype(np.float32), spread) / (all_deep + 1e-3)
    sure = alike & (depth < _GAP_DEPTH * graph_pixel)
    sure &= (clothed_alike < _MAX_SHARE_ALIKE) & (all_deep > _MIN_SHARE_DEEP)
    labels, count = ndimage.label(sure)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes > _SMALLEST_GAP * graph_pixel**2)[labels]


def person_length(inside: Bool[np.ndarray, "h w"]) -> float:
    """The longer side of a mask's box, pixels; 1 for an empty mask."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) if rows.size else 1.0


def _smooth_background(
    image: Float[np.ndarray, "h w 3"], clear: Bool[np.ndarray, "h w"], spread: float
) -> Float[np.ndarray, "h w 3"]:
    """The background's slow changes, continued behind the person."""
    weight = clear.astype(np.float32)
    total = blurred(weight, spread) + 1e-4
    mean = image[clear].mean(axis=0)
    planes = [blurred(weight * (image[..., c] - mean[c]), spread) / total + mean[c] for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.float32)


def blurred(values: Float[np.ndarray, "h w"], spread: float) -> Float[np.ndarray, "h w"]:
    """Blur by a Gaussian of ``spread`` pixels."""
    step = max(1, int(spread / 4))  # a coarse grid is enough for what is smooth
    height, width = values.shape
    rows, columns = -(-height // step), -(-width // step)
    padded = np.pad(values, ((0, rows * step - height), (0, columns * step - width)))
    coarse = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    blurred = ndimage.gaussian_filter(coarse, spread / step)
    grown = ndimage.zoom(blurred, step, order=1, grid_mode=True, mode="nearest")
    return grown[:height, :width].astype(np.float32)
