"""The canonical crop: a square with the person centred at a fixed scale."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

PERSON_SHARE = 0.85
"""The longer side of the person's box, as a share of the crop's side."""
# A pixel belongs to the person's box when the mask says so at least this strongly.
_BOX_THRESHOLD = 0.5


@dataclass(frozen=True)
class Region:
    """An upright part of the photo, resampled to a grid of its own."""

    x0: float
    """Left edge, photo pixels."""
    y0: float
    """Top edge, photo pixels."""
    x1: float
    """Right edge, photo pixels."""
    y1: float
    """Bottom edge, photo pixels."""
    width: int
    """Grid pixels."""
    height: int
    """Grid pixels."""

    @property
    def to_photo(self) -> Float[np.ndarray, "2 3"]:
        """Affine map from grid pixels to photo pixels."""
        return np.array(
            [[(self.x1 - self.x0) / self.width, 0.0, self.x0], [0.0, (self.y1 - self.y0) / self.height, self.y0]]
        )


Box = tuple[float, float, float, float]
"""Left, top, right and bottom edges, pixels."""


def mask_box(mask: Float[np.ndarray, "h w"]) -> Box:
    """The edges of the person in a mask.

    Raises:
        ValueError: If the mask is empty.
    """
    inside = mask >= _BOX_THRESHOLD
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    if not columns.size:
        raise ValueError("the mask is empty")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def working_region(box: Box, width: int, height: int, *, margin: float, longest: float) -> Region:
    """The part of the photo around a box, reduced so that the box is at most ``longest`` px long.

    Args:
        box: Photo pixels.
        width: Of the photo.
        height: Of the photo.
        margin: Added on all sides, as a share of the box's longer side.
        longest: Grid pixels.
    """
    x0, y0, x1, y1 = box
    side = max(x1 - x0, y1 - y0)
    extra = margin * side
    x0, y0 = max(0.0, np.floor(x0 - extra)), max(0.0, np.floor(y0 - extra))
    x1, y1 = min(float(width), np.ceil(x1 + extra)), min(float(height), np.ceil(y1 + extra))
    scale = min(1.0, longest / side)
    return Region(x0, y0, x1, y1, max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale)))


def cut_region(
    pixels: UInt8[np.ndarray, "h w 3"], region: Region
) -> Float[np.ndarray, "{region.height} {region.width} 3"]:
    """The pixels of a region, sRGB in ``[0, 1]``, without aliasing."""
    image = Image.fromarray(pixels)
    edges = (region.x0, region.y0, region.x1, region.y1)
    small = image.resize((region.width, region.height), Image.Resampling.LANCZOS, box=edges, reducing_gap=3.0)
    return np.asarray(small, dtype=np.float32) / 255.0


def cut_plane(plane: Float[np.ndarray, "h w"], region: Region) -> Float[np.ndarray, "{region.height} {region.width}"]:
    """The values of one plane of the photo in a region, without aliasing or overshoot."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    edges = (region.x0, region.y0, region.x1, region.y1)
    return np.asarray(image.resize((region.width, region.height), Image.Resampling.BILINEAR, box=edges))


def canonical_square(box: Box) -> Box:
    """The square of the canonical crop around the person's box; it may reach beyond the picture."""
    x0, y0, x1, y1 = box
    half = 0.5 * max(x1 - x0, y1 - y0) / PERSON_SHARE
    x, y = 0.5 * (x0 + x1), 0.5 * (y0 + y1)
    return x - half, y - half, x + half, y + half


def cut_square(
    colors: Float[np.ndarray, "h w 3"], mask: Float[np.ndarray, "h w"], square: Box, size: int
) -> tuple[Float[np.ndarray, "{size} {size} 3"], Float[np.ndarray, "{size} {size}"]]:
    """Resample the person's colours and mask to a square; beyond the grid the mask is 0.

    Args:
        colors: The person's colours, continued beyond the silhouette.
        mask: In ``[0, 1]``.
        square: Its edges in grid pixels; it may reach beyond the grid.
        size: Pixels of the result.

    Returns:
        Colours and mask; the colours are white where the mask is 0.
    """
    height, width = mask.shape
    x0, y0, x1, y1 = square
    # Pad with the border's colours and an empty mask as far as the square reaches.
    before = (max(0, int(np.ceil(-y0))), max(0, int(np.ceil(-x0))))
    after = (max(0, int(np.ceil(y1 - height))), max(0, int(np.ceil(x1 - width))))
    pads = [(before[0], after[0]), (before[1], after[1])]
    padded = np.pad(mask, pads)
    edges = (x0 + before[1], y0 + before[0], x1 + before[1], y1 + before[0])
    # Sharp for the colours; without ringing for the mask.
    small_mask = _resize_plane(padded, edges, size, Image.Resampling.HAMMING).clip(0.0, 1.0)
    continued = [np.pad(colors[..., c], pads, "edge") for c in range(3)]
    planes = [_resize_plane(plane, edges, size, Image.Resampling.LANCZOS) for plane in continued]
    small_colors = np.stack(planes, axis=-1).clip(0.0, 1.0)
    small_colors[small_mask <= 0.0] = 1.0
    return small_colors, small_mask


def _resize_plane(
    plane: Float[np.ndarray, "h w"], edges: Box, size: int, resampling: Image.Resampling
) -> Float[np.ndarray, "{size} {size}"]:
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    edges = (max(0.0, edges[0]), max(0.0, edges[1]), min(image.width, edges[2]), min(image.height, edges[3]))
    return np.asarray(image.resize((size, size), resampling, box=edges))
