"""Things in a person's hands, which the pose graph leaves out of its mask: bags, balls, canes.

They are found only before a plain background, where whatever is not background must be a thing.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from humansplat.capture.background import THING_DIFFERENCE, person_length

# Shares of the person's length, or of the person's area.
_REACH = 0.07
_MIN_DEPTH = 0.02
_SMALLEST, _LARGEST = 0.002, 0.4


def carried_things(
    difference: Float[np.ndarray, "h w"], inside: Bool[np.ndarray, "h w"], hands: Float[np.ndarray, "n 2"]
) -> Bool[np.ndarray, "h w"]:
    """Find what a person holds.

    Args:
        difference: How far each pixel is from the plain background (``background_difference``).
        inside: The person.
        hands: Points on the hands, pixels.

    Returns:
        The pixels of things that begin near a hand.
    """
    nothing = np.zeros_like(inside)
    things, count = ndimage.label((difference > THING_DIFFERENCE) & ~inside, structure=np.ones((3, 3)))
    if not count or not inside.any():
        return nothing
    length = person_length(inside)
    y, x = np.mgrid[0 : inside.shape[0], 0 : inside.shape[1]] + 0.5
    near = np.zeros_like(inside)
    for hand in hands:
        near |= np.hypot(x - hand[0], y - hand[1]) < _REACH * length
    areas = np.bincount(things.ravel(), minlength=count + 1) / inside.sum()
    held = np.bincount(things[near], minlength=count + 1) > 0
    # What begins at a hand but stays close to the outline is a halo of the person, not a thing.
    depth = ndimage.maximum(ndimage.distance_transform_edt(~inside), things, np.arange(count + 1))
    keep = held & (areas > _SMALLEST) & (areas < _LARGEST) & (depth > _MIN_DEPTH * length)
    keep[0] = False
    return ndimage.binary_fill_holes(inside | keep[things]) & ~inside if keep.any() else nothing
