"""Tiles of neighbouring queries on the GPU, listed by how many tokens they reach: the heaviest are begun first.

A tile is 16 queries that follow each other along the Morton curve. The list is one int32 tensor: the number of tiles
in each of 16 buckets, then the buckets, each with room for all tiles. Bucket 0 holds the tiles that reach most tokens,
each next one those that reach about half as many; the last holds the tiles that reach none.
"""

# mypy: ignore-errors
import math
from typing import no_type_check

import triton
import triton.language as tl
from torch import Tensor

from humansplat.models.windowed_attention.sorted_windows import BINS_PER_CELL, BOUND_MARGIN, TILE, TILE_BUCKETS
from humansplat.models.windowed_attention.triton_direct import launch
from humansplat.models.windowed_attention.triton_sort import as_points, find_bin, unpack

_MARGIN = tl.constexpr(BOUND_MARGIN)


@triton.jit
@no_type_check
def find_tile(cells, query_order, number, num_queries, half, side, bins_per_cell: tl.constexpr, tile: tl.constexpr):
    """A tile's image, its queries, which of them exist, their cells' centres, and the bins their windows touch."""
    tiles = tl.cdiv(num_queries, tile)
    image = (number // tiles).to(tl.int64)
    place = number % tiles * tile + tl.arange(0, tile)
    exists = place < num_queries
    query = tl.load(query_order + image * num_queries + place, mask=exists, other=0)
    x, y = unpack(tl.load(as_points(cells) + image * num_queries + query, mask=exists, other=0))
    reach = half + _MARGIN
    left = find_bin(tl.min(tl.where(exists, x, float("inf")), 0) - reach, side, bins_per_cell)
    right = find_bin(tl.max(tl.where(exists, x, float("-inf")), 0) + reach, side, bins_per_cell)
    top = find_bin(tl.min(tl.where(exists, y, float("inf")), 0) - reach, side, bins_per_cell)
    bottom = find_bin(tl.max(tl.where(exists, y, float("-inf")), 0) + reach, side, bins_per_cell)
    return image, query, exists, x, y, left, right, top, bottom


@triton.jit
@no_type_check
def find_ranges(start, first, bottom, left, right, side, rows: tl.constexpr):
    """Where the sorted tokens of up to ``rows`` rows of bins begin, and how many they are."""
    row = first + tl.arange(0, rows)
    begin = tl.load(start + row * side + left, mask=row <= bottom, other=0)
    end = tl.load(start + row * side + right + 1, mask=row <= bottom, other=0)
    return begin, end - begin


@triton.jit
@no_type_check
def count_tiles(tile_list, buckets: tl.constexpr):
    """How many tiles each bucket holds, and how many reach tokens and reach none."""
    bucket = tl.arange(0, buckets)
    counts = tl.load(tile_list + bucket)
    idle = tl.sum(tl.where(bucket == buckets - 1, counts, 0), 0)
    return counts, tl.sum(counts, 0) - idle, idle


@triton.jit
@no_type_check
def take_tile(tile_list, counts, rank, num_tiles, buckets: tl.constexpr):
    """The tile at a place of the list."""
    bucket = tl.sum((rank >= tl.cumsum(counts, 0)).to(tl.int32), 0)
    before = tl.sum(tl.where(tl.arange(0, buckets) < bucket, counts, 0), 0)
    return tl.load(tile_list + buckets + bucket * num_tiles + rank - before)


@triton.jit(do_not_specialize=["num_queries", "num_tiles", "side"])
@no_type_check
def _list_tiles(
    cells, query_order, start, tile_list, num_queries, num_tiles, side, half,
    bins_per_cell: tl.constexpr, tile: tl.constexpr, rows: tl.constexpr, buckets: tl.constexpr,
):  # fmt: skip
    number = tl.program_id(0)
    image, query, exists, x, y, left, right, top, bottom = find_tile(
        cells, query_order, number, num_queries, half, side, bins_per_cell, tile
    )
    start += image * (side * side + 1)
    total = tl.zeros([], tl.int32)
    for first in range(top, bottom + 1, rows):
        begin, length = find_ranges(start, first, bottom, left, right, side, rows)
        total += tl.sum(length, 0)
    level = tl.sum((total >= (1 << tl.arange(0, buckets))).to(tl.int32), 0)
    bucket = tl.maximum(buckets - 1 - level, 0)
    place = tl.atomic_add(tile_list + bucket, 1, sem="relaxed")
    tl.store(tile_list + buckets + bucket * num_tiles + place, number)


def list_tiles(cells: Tensor, query_order: Tensor, start: Tensor, tile_list: Tensor, window: float, side: int) -> None:
    """Fill the list, whose counts are zero."""
    num_queries = cells.shape[2]
    num_tiles = tile_list.shape[0] // TILE_BUCKETS - 1
    if num_tiles:
        launch(
            _list_tiles, (num_tiles, 1, 1), (cells, query_order, start, tile_list),
            (num_queries, num_tiles, side, window / 2),
            (("bins_per_cell", BINS_PER_CELL), ("tile", TILE), ("rows", rows_at_once(window)),
             ("buckets", TILE_BUCKETS), ("num_warps", 1)),
        )  # fmt: skip


def rows_at_once(window: float) -> int:
    """Rows of bins to look up at once: a tile is 4 x 4 cells where all queries are there, and its window adds K."""
    return 8 if (math.sqrt(TILE) + window + 1) * BINS_PER_CELL <= 8 else 16
