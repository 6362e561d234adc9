"""Things in a person's hands, which the pose graph leaves out of its mask: bags, balls, canes.

They are found only before a plain background, where whatever is not background must be a thing.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

# All lengths and areas are shares of the person's length, or of the person's area.
_BACKGROUND_SPREAD = 0.12
_SAFETY = 0.04
_REACH = 0.07
_SMALLEST, _LARGEST = 0.002, 0.4
# A background is plain when 90 % of its pixels are this near to its smooth part (sRGB, each channel).
_PLAIN = 0.035
# A thing differs from the background by this much at least: more than soft shadows do.
_DIFFERENCE = 0.12


def carried_things(
    image: Float[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"], hands: Float[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "h w"]:
    """Find what a person holds.

    Args:
        image: sRGB in ``[0, 1]``.
        inside: The person.
        hands: Points on the hands, pixels.

    Returns:
        The pixels of things that begin near a hand; all false before a background that is not plain.
    """
    nothing = np.zeros_like(inside)
    rows, columns = np.nonzero(inside)
    if not rows.size:
        return nothing
    length = float(max(np.ptp(rows), np.ptp(columns)) + 1)
    outside = ndimage.distance_transform_edt(~inside)
    clear = outside > _SAFETY * length
    if clear.sum() < 0.05 * clear.size:
        return nothing
    difference = np.abs(image - _smooth_background(image, clear, _BACKGROUND_SPREAD * length)).max(axis=-1)
    if np.quantile(difference[clear], 0.7) > _PLAIN:
        return nothing
    # The thing itself pulls the smooth background towards it; estimate again without it.
    clear &= difference < _DIFFERENCE
    difference = np.abs(image - _smooth_background(image, clear, _BACKGROUND_SPREAD * length)).max(axis=-1)
    if np.quantile(difference[clear], 0.9) > _PLAIN:
        return nothing
    things, count = ndimage.label((difference > _DIFFERENCE) & ~inside, structure=np.ones((3, 3)))
    if not count:
        return nothing
    y, x = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
    near = np.zeros_like(inside)
    for hand in hands:
        near |= np.hypot(x - hand[0], y - hand[1]) < _REACH * length
    areas = np.bincount(things.ravel(), minlength=count + 1) / inside.sum()
    held = np.bincount(things[near], minlength=count + 1) > 0
    # What begins at a hand and runs along the whole outline is a halo of the person, not a thing.
    depth = ndimage.maximum(outside, things, np.arange(count + 1))
    keep = held & (areas > _SMALLEST) & (areas < _LARGEST) & (depth > 0.5 * _SAFETY * length)
    keep[0] = False
    return ndimage.binary_fill_holes(inside | keep[things]) & ~inside if keep.any() else nothing


def _smooth_background(
    image: Float[np.ndarray, "h w 3"], clear: Bool[np.ndarray, "h w"], spread: float
) -> Float[np.ndarray, "h w 3"]:
    """The background's slow changes, continued behind the person."""
    step = max(1, int(spread / 4))  # a coarse grid is enough for what is smooth
    weight = clear.astype(np.float32)
    total = _blurred(weight, step, spread) + 1e-4
    mean = image[clear].mean(axis=0)
    planes = [_blurred(weight * (image[..., c] - mean[c]), step, spread) / total + mean[c] for c in range(3)]
    return np.stack(planes, axis=-1).astype(np.float32)


def _blurred(values: Float[np.ndarray, "h w"], step: int, spread: float) -> Float[np.ndarray, "h w"]:
    height, width = values.shape
    rows, columns = -(-height // step), -(-width // step)
    padded = np.pad(values, ((0, rows * step - height), (0, columns * step - width)))
    coarse = padded.reshape(rows, step, columns, step).mean(axis=(1, 3))
    blurred = ndimage.gaussian_filter(coarse, spread / step)
    grown = ndimage.zoom(blurred, step, order=1, grid_mode=True, mode="nearest")
    return grown[:height, :width].astype(np.float32)
