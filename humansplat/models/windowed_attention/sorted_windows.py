"""Body tokens sorted by the place where they project, so that a window's tokens are a few contiguous ranges.

The tokens of an image are sorted into square bins, row by row. A window's tokens then lie, for each row of bins that
it touches, in one contiguous range; whether a token of it is seen is decided by its exact position. Bins therefore
cost or save time, and never change a result.
"""

from jaxtyping import Bool, Float32, Int32
from torch import Tensor

from humansplat.structures.base import TensorStruct

BINS_PER_CELL = 1
"""Bins along a side of a cell."""
ORIGIN_SHIFT = 2.0**-10
"""Bins begin this much before the cells' edges, in cells: a window that begins on an edge reaches no bin before it."""
BOUND_MARGIN = 2.0**-12
"""A window is this much larger when its bins are looked up, for its bounds are rounded; less than the shift."""

TILE = 16
"""Queries that a GPU program takes together."""
TILE_BUCKETS = 16
"""Tiles are listed in so many buckets, by the tokens that they reach."""


class SortedWindows(TensorStruct):
    """Tokens sorted by bin, and an order of the queries in which neighbours stand together."""

    cells: Float32[Tensor, "b v t 2"]
    """Centres of the queries' cells, in cell units."""
    tokens: Float32[Tensor, "b v j 2"]
    """Projections of the tokens, in cell units, in the order in which they were given."""
    inside: Bool[Tensor, "b v j"]
    """Which of those can be seen."""
    query_order: Int32[Tensor, "b v t"]
    """The queries along a Morton curve where an implementation works on tiles of them."""
    query_start: Int32[Tensor, "b v places"]
    """On the GPU, where each place's queries begin in that order; else nothing of meaning."""
    token_order: Int32[Tensor, "b v j"]
    """Numbers of the tokens, sorted by bin: those inside the image, and then, on the GPU, the others."""
    token_positions: Float32[Tensor, "b v j 2"]
    """Their projections, in cell units, in the same order."""
    bin_start: Int32[Tensor, "b v bins"]
    """Where each bin's tokens begin in that order; one more entry than bins."""
    tiles: Int32[Tensor, "listed"]
    """On the GPU, tiles of queries by the tokens that they reach, see ``triton_tiles``; else nothing of meaning."""
    window: float
    """``K``, side of the window in cells."""
    grid: int
    """Cells along a side that have bins of their own; tokens beyond share the last."""

    @property
    def side(self) -> int:
        """Bins along a side."""
        return self.grid * BINS_PER_CELL


def curve_side(grid: int) -> int:
    """Places along a side of the queries' Morton curve: the grid's cells, up to the next power of two."""
    return 1 << (grid - 1).bit_length()


def tile_list_size(batch: int, views: int, num_queries: int) -> int:
    """Numbers that the list of tiles takes."""
    return TILE_BUCKETS * (1 + batch * views * -(-num_queries // TILE))
