"""How the CPU rasterizer lays projected splats out, and the kernel that sorts them into tiles.

numba's cache on disk watches the file that a kernel stands in, not those that it imports: whoever changes a
constant here removes ``__pycache__`` too.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit

TILE = 16  # pixels along a side
MIN_ALPHA = np.float32(1.0 / 255.0)  # a splat fainter than this at a pixel is skipped there

# Columns of the array of projected splats; 12 floats, so that a splat is read from one cache line or two.
X, Y, CONIC_XX, CONIC_XY, CONIC_YY, OPACITY, RED, GREEN, BLUE, DEPTH, EXTENT_X, EXTENT_Y = range(12)
NUM_COLUMNS = 12

_ZERO = np.float32(0.0)

# Fused multiply-add is the only liberty: results stay the same whatever the vector width.
compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz"})
inlined = njit(nogil=True, error_model="numpy", fastmath={"contract", "nsz"}, inline="always")


@inlined
@no_type_check
def _tile_rows(splat, tiles_y):
    """Rows of tiles that a splat can reach, as a half-open range."""
    first = max(np.floor((splat[Y] - splat[EXTENT_Y]) / np.float32(TILE)), _ZERO)
    last = min(np.ceil((splat[Y] + splat[EXTENT_Y]) / np.float32(TILE)), np.float32(tiles_y))
    return np.int64(first), np.int64(last)


@inlined
@no_type_check
def _tile_columns(splat, row, tiles_x):
    """Tiles of a row that the splat overlaps, as a half-open range: by its box, or if that is wide by its ellipse.

    The ellipse, ``a dx^2 + 2 b dx dy + c dy^2 <= level``, is cut by the row's edges; its leftmost and
    rightmost points count where they lie between them. In float64, for needles lose digits here.
    """
    box_first = np.int64(max(np.floor((splat[X] - splat[EXTENT_X]) / np.float32(TILE)), _ZERO))
    box_last = np.int64(min(np.ceil((splat[X] + splat[EXTENT_X]) / np.float32(TILE)), np.float32(tiles_x)))
    if box_last - box_first <= 2:
        return box_first, box_last
    a, b, c = np.float64(splat[CONIC_XX]), np.float64(splat[CONIC_XY]), np.float64(splat[CONIC_YY])
    low = max(np.float64(row * TILE) - splat[Y], -np.float64(splat[EXTENT_Y]))
    high = min(np.float64((row + 1) * TILE) - splat[Y], np.float64(splat[EXTENT_Y]))
    extent = np.float64(splat[EXTENT_X])
    # Not from the extent and the conic, whose determinant is all rounding for a needle.
    level = 2.01 * math.log(max(np.float64(splat[OPACITY]) / MIN_ALPHA, 1.0)) + 0.01
    rightmost = -b / c * extent  # its dy; that of the leftmost point is the negative
    at = min(max(rightmost, low), high)
    right = (-b * at + math.sqrt(max(a * level - (a * c - b * b) * at * at, 0.0))) / a
    at = min(max(-rightmost, low), high)
    left = (-b * at - math.sqrt(max(a * level - (a * c - b * b) * at * at, 0.0))) / a
    first = max(np.int64(math.floor((splat[X] + left) / TILE)), box_first)
    last = min(np.int64(math.floor((splat[X] + right) / TILE)) + 1, box_last)
    return first, last


@compiled
@no_type_check
def sort_into_tiles(splats, order, tiles_x, tiles_y):
    """List the splats of each tile, near to far.

    Args:
        splats: Projected splats, float32 ``[n, NUM_COLUMNS]``.
        order: Indices of the visible ones, near to far, int64 ``[m]``.
        tiles_x: Tiles in a row of the image.
        tiles_y: Rows of tiles.

    Returns:
        ``offsets [tiles + 1]`` and ``members``: tile ``t`` owns ``members[offsets[t]:offsets[t + 1]]``.
    """
    offsets = np.zeros(tiles_x * tiles_y + 1, np.int64)
    for i in range(order.shape[0]):
        splat = splats[order[i]]
        y0, y1 = _tile_rows(splat, tiles_y)
        for y in range(y0, y1):
            x0, x1 = _tile_columns(splat, y, tiles_x)
            for x in range(x0, x1):
                offsets[y * tiles_x + x + 1] += 1
    for tile in range(tiles_x * tiles_y):
        offsets[tile + 1] += offsets[tile]
    members = np.empty(offsets[-1], np.int32)
    cursor = offsets[:-1].copy()
    for i in range(order.shape[0]):
        splat = splats[order[i]]
        y0, y1 = _tile_rows(splat, tiles_y)
        for y in range(y0, y1):
            x0, x1 = _tile_columns(splat, y, tiles_x)
            for x in range(x0, x1):
                tile = y * tiles_x + x
                members[cursor[tile]] = order[i]
                cursor[tile] += 1
    return offsets, members
