"""Triton kernel that sorts tokens by bin and queries along a Morton curve: one launch."""

# mypy: ignore-errors
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

from humansplat.models.windowed_attention.sorted_windows import (
    BINS_PER_CELL,
    ORIGIN_SHIFT,
    TILE_BUCKETS,
    curve_side,
    tile_list_size,
)
from humansplat.models.windowed_attention.triton_direct import launch

_SHIFT = tl.constexpr(ORIGIN_SHIFT)


@triton.jit
@no_type_check
def find_bin(coordinate, side, bins_per_cell: tl.constexpr):
    """The bin of a coordinate, the nearest where it lies outside the grid."""
    place = tl.floor((coordinate + _SHIFT) * bins_per_cell)
    return tl.minimum(tl.maximum(place, 0.0), side - 1.0).to(tl.int32)


@triton.jit
@no_type_check
def as_points(coordinates):
    """Pointer to pairs of float32 as one int64 each."""
    return coordinates.to(tl.pointer_type(tl.int64), bitcast=True)


@triton.jit
@no_type_check
def unpack(point):
    """The two float32 coordinates of a point that was loaded as one int64: half as many loads."""
    return point.to(tl.int32).to(tl.float32, bitcast=True), (point >> 32).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
@no_type_check
def _spread(x):
    """Put a zero bit before each of the lower 16 bits."""
    x = (x | (x << 8)) & 0x00FF00FF
    x = (x | (x << 4)) & 0x0F0F0F0F
    x = (x | (x << 2)) & 0x33333333
    return (x | (x << 1)) & 0x55555555


@triton.jit
@no_type_check
def curve_place(column, row):
    """Where a cell stands along the Morton curve."""
    return _spread(column) | (_spread(row) << 1)


@triton.jit
@no_type_check
def _bins(points, inside, item, exists, side, bins_per_cell: tl.constexpr, along_curve: tl.constexpr):
    x, y = unpack(tl.load(points + item, mask=exists, other=0))
    column, row = find_bin(x, side, bins_per_cell), find_bin(y, side, bins_per_cell)
    if along_curve:
        return curve_place(column, row)
    else:
        return tl.where(tl.load(inside + item, mask=exists, other=0) != 0, row * side + column, side * side)


@triton.jit
@no_type_check
def _counting_sort(
    points, inside, order, positions, start, rank, count, side, bins,
    bins_per_cell: tl.constexpr, along_curve: tl.constexpr, block: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    """Sort into ``bins`` and one more, of the tokens outside the image; what they count is overwritten."""
    for first in range(0, bins, span):
        place = first + tl.arange(0, span)
        tl.store(start + place, tl.zeros([span], tl.int32), mask=place < bins)
    tl.store(start + bins, 0)
    tl.debug_barrier()
    for first in range(0, count, block):
        item = first + tl.arange(0, block)
        listed = item < count
        found = _bins(points, inside, item, listed, side, bins_per_cell, along_curve)
        earlier = tl.atomic_add(start + found, 1, mask=listed, sem="relaxed")
        tl.store(rank + item, earlier, mask=listed)
    tl.debug_barrier()
    before = tl.zeros([], tl.int32)
    for first in range(0, bins, span):
        place = first + tl.arange(0, span)
        members = tl.load(start + place, mask=place < bins, other=0)
        tl.store(start + place, before + tl.cumsum(members, 0) - members, mask=place < bins)
        before += tl.sum(members, 0)
    tl.store(start + bins, before)
    tl.debug_barrier()
    for first in range(0, count, block):
        item = first + tl.arange(0, block)
        listed = item < count
        found = _bins(points, inside, item, listed, side, bins_per_cell, along_curve)
        place = tl.load(start + found, mask=listed, other=0) + tl.load(rank + item, mask=listed, other=0)
        tl.store(order + place, item, mask=listed)
        if not along_curve:
            tl.store(positions + place, tl.load(points + item, mask=listed, other=0), mask=listed)


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "side", "curve_side"])
@no_type_check
def _sort(
    cells, tokens, inside, query_order, query_start, token_order, positions, token_start, tile_counts, ranks,
    num_queries, num_tokens, side, curve_side,
    buckets: tl.constexpr, bins_per_cell: tl.constexpr, block: tl.constexpr, span: tl.constexpr,
):  # fmt: skip
    image = tl.program_id(0).to(tl.int64)
    queries, these = image * num_queries, image * num_tokens
    ranks += image * (num_queries + num_tokens)
    if image + tl.program_id(1) == 0:
        tl.store(tile_counts + tl.arange(0, buckets), tl.zeros([buckets], tl.int32))
    if tl.program_id(1) == 0:
        _counting_sort(
            as_points(tokens) + these, inside + these, token_order + these, as_points(positions) + these,
            token_start + image * (side * side + 1), ranks,
            num_tokens, side, side * side, bins_per_cell, False, block, span,
        )  # fmt: skip
    else:
        _counting_sort(
            as_points(cells) + queries, inside, query_order + queries, as_points(positions),
            query_start + image * (curve_side * curve_side + 1), ranks + num_tokens,
            num_queries, curve_side, curve_side * curve_side, 1, True, block, span,
        )  # fmt: skip


def aligned(points: Tensor) -> Tensor:
    """Points that begin at a multiple of the 8 bytes of each; copied where they do not."""
    return points.clone() if points.data_ptr() % 8 else points


def sort(
    cells: Tensor, tokens: Tensor, inside: Tensor, grid: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sort tokens and queries; returns the fields of ``SortedWindows`` after ``inside``, the tiles' counts zero."""
    batch, views, num_queries, _ = cells.shape
    num_tokens = tokens.shape[2]
    side, curve = grid * BINS_PER_CELL, curve_side(grid)
    integers = {"dtype": torch.int32, "device": cells.device}
    results = (
        torch.empty((batch, views, num_queries), **integers),
        torch.empty((batch, views, curve * curve + 1), **integers),
        torch.empty((batch, views, num_tokens), **integers),
        torch.empty_like(tokens),
        torch.empty((batch, views, side * side + 1), **integers),
        torch.empty(tile_list_size(batch, views, num_queries), **integers),
    )
    ranks = torch.empty(batch * views * (num_tokens + num_queries), **integers)
    block = 1024 if max(num_tokens, num_queries) <= 2048 else 8192
    launch(
        _sort, (batch * views, 2, 1), (cells, tokens, inside, *results, ranks), (num_queries, num_tokens, side, curve),
        (("buckets", TILE_BUCKETS), ("bins_per_cell", BINS_PER_CELL), ("block", block), ("span", 4096),
         ("num_warps", 16)),
    )  # fmt: skip
    return results
