"""Square windows of a picture, turned or not: sampling into them and mapping points out of them."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image


@dataclass(frozen=True)
class Window:
    """A square of the photo; it may reach beyond the picture."""

    x: float
    """Centre, photo pixels."""
    y: float
    """Centre, photo pixels."""
    side: float
    """Photo pixels."""
    angle: float = 0.0
    """Radians, clockwise as seen in the picture."""

    def to_photo(self, size: int) -> Float[np.ndarray, "2 3"]:
        """Affine map from pixels of a ``size`` x ``size`` sampling of the window to photo pixels."""
        scale = self.side / size
        linear = scale * rotation(self.angle)
        offset = np.array([self.x, self.y]) - linear @ np.array([size / 2.0, size / 2.0])
        return np.concatenate([linear, offset[:, None]], axis=1)


def rotation(angle: float) -> Float[np.ndarray, "2 2"]:
    """Turn pixel vectors clockwise (y points down) by ``angle`` radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def invert(affine: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that undoes ``affine``."""
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate([linear, -(linear @ affine[:, 2:])], axis=1)


def chain(outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that applies ``inner``, then ``outer``."""
    linear = outer[:, :2] @ inner[:, :2]
    return np.concatenate([linear, outer[:, :2] @ inner[:, 2:] + outer[:, 2:]], axis=1)


def apply(affine: Float[np.ndarray, "2 3"], points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Map points."""
    return points @ affine[:, :2].T + affine[:, 2]


def sample(
    pixels: UInt8[np.ndarray, "h w 3"], window: Window, size: int
) -> tuple[Float[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "2 3"]]:
    """Look through a window, without aliasing; black beyond the picture.

    Returns:
        The square, sRGB in ``[0, 1]``, and the affine map from its pixels to photo pixels.
    """
    height, width = pixels.shape[:2]
    to_photo = window.to_photo(size)
    corners = apply(to_photo, np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]]))
    # Two pixels more than the window shows, for the interpolation at its border.
    x0, y0 = np.maximum(np.floor(corners.min(axis=0)) - 2, 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=0)) + 2, [width, height]).astype(int)
    if x1 <= x0 or y1 <= y0:
        return np.zeros((size, size, 3), np.float32), to_photo
    image = Image.fromarray(pixels[y0:y1, x0:x1])
    scale = window.side / size
    if scale > 1.0:
        reduced = (max(1, round(image.width / scale)), max(1, round(image.height / scale)))
        image = image.resize(reduced, Image.Resampling.BICUBIC, reducing_gap=3.0)
    to_image = np.array(
        [[image.width / (x1 - x0), 0.0, 0.0], [0.0, image.height / (y1 - y0), 0.0]]
    )  # photo pixels, less the corner (x0, y0), to pixels of the cut and reduced image
    to_image[:, 2] = -to_image[:, :2] @ np.array([x0, y0])
    coefficients = tuple(chain(to_image, to_photo).ravel())
    square = image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32) / 255.0, to_photo


def resample(
    values: Float[np.ndarray, "h w"], affine: Float[np.ndarray, "2 3"], width: int, height: int, fill: float
) -> Float[np.ndarray, "{height} {width}"]:
    """Read a map at other pixels, bilinearly.

    Args:
        values: The map.
        affine: From the wanted pixels to pixels of ``values``.
        width: Of the result.
        height: Of the result.
        fill: Value beyond the map.
    """
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    result = image.transform(
        (width, height), Image.Transform.AFFINE, tuple(affine.ravel()), Image.Resampling.BILINEAR, fillcolor=fill
    )
    return np.asarray(result)
