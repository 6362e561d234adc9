"""Triton kernels of windowed attention over sorted tokens: forward; ``triton_gradients`` has the backward ones.

A piece of work is a tile of neighbouring queries and a head. The tokens that any query of the tile can see lie, for
each row of bins, in one range of the sorted tokens; a program walks along these ranges laid end to end, a block at a
time, tests each pair of the block by its positions, and keeps a running softmax. Programs take their work from the
list of tiles, those that reach most tokens first, last those that reach none, which get zeros in all heads at once.
"""

# mypy: ignore-errors
from typing import no_type_check

import triton
import triton.language as tl

from humansplat.models.windowed_attention.triton_sort import as_points, unpack
from humansplat.models.windowed_attention.triton_tiles import count_tiles, find_ranges, find_tile, take_tile

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
@no_type_check
def take_block(
    token_order, positions, begin, ends, length, first, total, x, y, exists, half,
    rows: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """A block of the ranges laid end to end: its tokens, which of them exist, and which pairs see each other."""
    at = first + tl.arange(0, block)
    listed = at < total
    row = tl.sum((at[:, None] >= ends[None, :]).to(tl.int32), 1)
    shift = begin - (ends - length)
    place = at + tl.sum(tl.where(row[:, None] == tl.arange(0, rows)[None, :], shift[None, :], 0), 1)
    token = tl.load(token_order + place, mask=listed, other=0)
    across, down = unpack(tl.load(as_points(positions) + place, mask=listed, other=0))
    near = tl.maximum(tl.abs(across[None, :] - x[:, None]), tl.abs(down[None, :] - y[:, None])) <= half
    return token, listed, near & listed[None, :] & exists[:, None]


@triton.jit
@no_type_check
def _step(
    q, key, value, token, known, seen, channel, key_row, value_row, scale, highest, mass, result,
    precision: tl.constexpr,
):  # fmt: skip
    """Take one block into a head's running softmax."""
    k = tl.load(key + token[:, None] * key_row + channel[None, :], mask=known, other=0.0)
    v = tl.load(value + token[:, None] * value_row + channel[None, :], mask=known, other=0.0)
    logit = tl.dot(q, tl.trans(k), input_precision=precision) * (scale * _LOG2_E)
    logit = tl.where(seen, logit, float("-inf"))
    higher = tl.maximum(highest, tl.max(logit, 1))
    level = tl.where(higher == float("-inf"), 0.0, higher)
    weight = tl.exp2(logit - level[:, None])
    fade = tl.exp2(highest - level)
    mass = mass * fade + tl.sum(weight, 1)
    result = result * fade[:, None] + tl.dot(weight.to(v.dtype), v, input_precision=precision)
    return higher, mass, result


@triton.jit
@no_type_check
def _finish(out, lse, cell, row_head, wide, exists, highest, mass, result):
    lonely = mass == 0.0
    mass = tl.where(lonely, 1.0, mass)
    tl.store(out + cell, (result / mass[:, None]).to(out.dtype.element_ty), mask=wide)
    tl.store(lse + row_head, tl.where(lonely, float("inf"), highest + tl.log2(mass)), mask=exists)


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "num_tiles", "views", "side"])
@no_type_check
def attend(
    query, key, value, cells, query_order, token_order, positions, start, tile_list, out, lse,
    num_queries, num_tokens, num_tiles, views, side, half, scale, key_batch, key_row, value_batch, value_row,
    heads: tl.constexpr, dim: tl.constexpr, dim_block: tl.constexpr, bins_per_cell: tl.constexpr,
    tile: tl.constexpr, buckets: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, pair: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Output and base-2 logarithm of the softmax sums, ``inf`` for a query that sees nothing.

    A piece of work is ``pair`` heads, 1 or 2, which share the search for tokens.
    """
    counts, busy, idle = count_tiles(tile_list, buckets)
    channel = tl.arange(0, dim_block)
    pairs: tl.constexpr = heads // pair
    for item in range(tl.program_id(0), busy * pairs + idle, tl.num_programs(0)):
        rank = tl.where(item < busy * pairs, item // pairs, item - busy * (pairs - 1))
        image, asked, exists, x, y, left, right, top, bottom = find_tile(
            cells, query_order, take_tile(tile_list, counts, rank, num_tiles, buckets), num_queries, half, side,
            bins_per_cell, tile,
        )  # fmt: skip
        row_head = (image * num_queries + asked) * heads
        wide = exists[:, None] & (channel < dim)[None, :]
        if item >= busy * pairs:
            for head in range(heads):
                nothing = tl.zeros([tile, dim_block], out.dtype.element_ty)
                tl.store(out + (row_head + head)[:, None] * dim + channel[None, :], nothing, mask=wide)
                tl.store(lse + row_head + head, tl.full([tile], float("inf"), tl.float32), mask=exists)
        else:
            head = item % pairs * pair
            cell = (row_head + head)[:, None] * dim + channel[None, :]
            keys = key + image // views * key_batch + head * dim
            values = value + image // views * value_batch + head * dim
            q = tl.load(query + cell, mask=wide, other=0.0)
            highest = tl.full([tile], float("-inf"), tl.float32)
            mass = tl.zeros([tile], tl.float32)
            result = tl.zeros([tile, dim_block], tl.float32)
            if pair == 2:
                q_2 = tl.load(query + cell + dim, mask=wide, other=0.0)
                highest_2, mass_2, result_2 = highest, mass, result
            for first_row in range(top, bottom + 1, rows):
                begin, length = find_ranges(
                    start + image * (side * side + 1), first_row, bottom, left, right, side, rows
                )
                ends = tl.cumsum(length, 0)
                total = tl.sum(length, 0)
                for first in range(0, total, block):
                    token, listed, seen = take_block(
                        token_order + image * num_tokens, positions + image * num_tokens * 2,
                        begin, ends, length, first, total, x, y, exists, half, rows, block,
                    )  # fmt: skip
                    known = listed[:, None] & (channel < dim)[None, :]
                    highest, mass, result = _step(
                        q, keys, values, token, known, seen, channel, key_row, value_row, scale,
                        highest, mass, result, precision,
                    )  # fmt: skip
                    if pair == 2:
                        highest_2, mass_2, result_2 = _step(
                            q_2, keys + dim, values + dim, token, known, seen, channel, key_row, value_row, scale,
                            highest_2, mass_2, result_2, precision,
                        )  # fmt: skip
            _finish(out, lse, cell, row_head + head, wide, exists, highest, mass, result)
            if pair == 2:
                _finish(out, lse, cell + dim, row_head + head + 1, wide, exists, highest_2, mass_2, result_2)
