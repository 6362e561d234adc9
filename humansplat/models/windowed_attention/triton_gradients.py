"""Triton kernels of windowed attention's gradients: one goes by queries, one by tokens, and nothing is added twice.

By queries: as in the forward pass, with its softmax sums. By tokens: a piece of work is 16 or more tokens that follow
each other in the first view's order, and a head. In every view the queries that may see one of them stand in a
rectangle of cells, whose places along the Morton curve say where in their order they are. Both kernels compute the
weights anew, so neither waits for the other's sums: no atomic addition, no float32 sums in memory.
"""

# mypy: ignore-errors
from typing import no_type_check

import triton
import triton.language as tl

from humansplat.models.windowed_attention.sorted_windows import BOUND_MARGIN
from humansplat.models.windowed_attention.triton_kernels import take_block
from humansplat.models.windowed_attention.triton_sort import as_points, curve_place, find_bin, unpack
from humansplat.models.windowed_attention.triton_tiles import count_tiles, find_ranges, find_tile, take_tile

_LOG2_E = tl.constexpr(1.4426950408889634)
_MARGIN = tl.constexpr(BOUND_MARGIN)


@triton.jit
@no_type_check
def _begin_query(
    grad, query, out, lse, delta, cell, row_head, wide, exists, tile: tl.constexpr, dim_block: tl.constexpr
):
    """A head's queries, their outputs' gradients and the two's products with the outputs, softmax sums, and zero."""
    q = tl.load(query + cell, mask=wide, other=0.0)
    given = tl.load(grad + cell, mask=wide, other=0.0)
    told = tl.load(out + cell, mask=wide, other=0.0)
    fall = tl.sum(given.to(tl.float32) * told.to(tl.float32), 1)
    tl.store(delta + row_head, fall, mask=exists)
    level = tl.load(lse + row_head, mask=exists, other=float("inf"))
    return q, given, fall, level, tl.zeros([tile, dim_block], tl.float32)


@triton.jit
@no_type_check
def _add_query(
    q, given, fall, level, result, key, value, token, known, seen, channel, key_row, value_row, scale,
    precision: tl.constexpr,
):  # fmt: skip
    """Add a block's share to a head's gradients."""
    k = tl.load(key + token[:, None] * key_row + channel[None, :], mask=known, other=0.0)
    v = tl.load(value + token[:, None] * value_row + channel[None, :], mask=known, other=0.0)
    logit = tl.dot(q, tl.trans(k), input_precision=precision) * (scale * _LOG2_E)
    weight = tl.where(seen, tl.exp2(logit - level[:, None]), 0.0)
    agreement = tl.dot(given, tl.trans(v), input_precision=precision)
    slope = (weight * (agreement - fall[:, None]) * scale).to(q.dtype)
    return result + tl.dot(slope, k, input_precision=precision)


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "num_tiles", "views", "side"])
@no_type_check
def query_gradients(
    grad, query, key, value, out, lse, cells, query_order, token_order, positions, start, tile_list, v_query, delta,
    num_queries, num_tokens, num_tiles, views, side, half, scale, key_batch, key_row, value_batch, value_row,
    heads: tl.constexpr, dim: tl.constexpr, dim_block: tl.constexpr, bins_per_cell: tl.constexpr,
    tile: tl.constexpr, buckets: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, pair: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Gradients of queries, and for ``token_gradients`` each query's output times its gradient, where it sees any.

    A piece of work is ``pair`` heads, 1 or 2, which share the search.
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
                nothing = tl.zeros([tile, dim_block], v_query.dtype.element_ty)
                tl.store(v_query + (row_head + head)[:, None] * dim + channel[None, :], nothing, mask=wide)
        else:
            head = item % pairs * pair
            row_head += head
            cell = row_head[:, None] * dim + channel[None, :]
            keys = key + image // views * key_batch + head * dim
            values = value + image // views * value_batch + head * dim
            q, given, fall, level, result = _begin_query(
                grad, query, out, lse, delta, cell, row_head, wide, exists, tile, dim_block
            )
            if pair == 2:
                q_2, given_2, fall_2, level_2, result_2 = _begin_query(
                    grad, query, out, lse, delta, cell + dim, row_head + 1, wide, exists, tile, dim_block
                )
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
                    result = _add_query(
                        q, given, fall, level, result, keys, values, token, known, seen, channel, key_row, value_row,
                        scale, precision,
                    )  # fmt: skip
                    if pair == 2:
                        result_2 = _add_query(
                            q_2, given_2, fall_2, level_2, result_2, keys + dim, values + dim, token, known, seen,
                            channel, key_row, value_row, scale, precision,
                        )  # fmt: skip
            tl.store(v_query + cell, result.to(v_query.dtype.element_ty), mask=wide)
            if pair == 2:
                tl.store(v_query + cell + dim, result_2.to(v_query.dtype.element_ty), mask=wide)


@triton.jit
@no_type_check
def _rectangle(x, y, listed, half, side):
    """Cells of the queries that may see one of some tokens: the first column and row, and how many of each."""
    reach = half + _MARGIN
    left = find_bin(tl.min(tl.where(listed, x, float("inf")), 0) - reach, side, 1)
    right = find_bin(tl.max(tl.where(listed, x, float("-inf")), 0) + reach, side, 1)
    top = find_bin(tl.min(tl.where(listed, y, float("inf")), 0) - reach, side, 1)
    bottom = find_bin(tl.max(tl.where(listed, y, float("-inf")), 0) + reach, side, 1)
    any_listed = tl.max(listed.to(tl.int32), 0)
    return left, top, right - left + 1, (bottom - top + 1) * any_listed


@triton.jit
@no_type_check
def _add_token(
    k, v, result_k, result_v, grad, query, lse, delta, asked, seen, sees, channel, scale,
    heads: tl.constexpr, dim: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Add some queries' shares to the gradients of a head's tokens."""
    level = tl.load(lse + asked * heads, mask=sees, other=float("inf"))
    fall = tl.load(delta + asked * heads, mask=sees, other=0.0)
    cell = asked[:, None] * (heads * dim) + channel[None, :]
    known = sees[:, None] & (channel < dim)[None, :]
    q = tl.load(query + cell, mask=known, other=0.0)
    given = tl.load(grad + cell, mask=known, other=0.0)
    logit = tl.dot(k, tl.trans(q), input_precision=precision) * (scale * _LOG2_E)
    weight = tl.where(seen, tl.exp2(logit - level[None, :]), 0.0)
    agreement = tl.dot(v, tl.trans(given), input_precision=precision)
    slope = weight * (agreement - fall[None, :]) * scale
    result_k += tl.dot(slope.to(q.dtype), q, input_precision=precision)
    result_v += tl.dot(weight.to(q.dtype), given, input_precision=precision)
    return result_k, result_v


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "views", "side"])
@no_type_check
def token_gradients(
    grad, query, key, value, lse, delta, cells, tokens, inside, query_order, query_start, token_order, v_key, v_value,
    num_queries, num_tokens, views, side, half, scale, key_batch, key_row, value_batch, value_row,
    heads: tl.constexpr, dim: tl.constexpr, dim_block: tl.constexpr, group: tl.constexpr, block: tl.constexpr,
    pair: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values, ``group`` tokens and ``pair`` heads a program, ``block`` cells at a time."""
    pairs: tl.constexpr = heads // pair
    head = tl.program_id(0) % pairs * pair
    number = tl.program_id(0) // pairs
    groups = tl.cdiv(num_tokens, group)
    entry = (number // groups).to(tl.int64)
    place = number % groups * group + tl.arange(0, group)
    exists = place < num_tokens
    token = tl.load(token_order + entry * views * num_tokens + place, mask=exists, other=0)
    channel = tl.arange(0, dim_block)
    wide = exists[:, None] & (channel < dim)[None, :]
    keys = key + entry * key_batch + head * dim + token[:, None] * key_row + channel[None, :]
    values = value + entry * value_batch + head * dim + token[:, None] * value_row + channel[None, :]
    k, v = tl.load(keys, mask=wide, other=0.0), tl.load(values, mask=wide, other=0.0)
    result_k = tl.zeros([group, dim_block], tl.float32)
    result_v = tl.zeros([group, dim_block], tl.float32)
    if pair == 2:
        k_2, v_2 = tl.load(keys + dim, mask=wide, other=0.0), tl.load(values + dim, mask=wide, other=0.0)
        result_k_2, result_v_2 = result_k, result_v
    for view in range(views):
        image = entry * views + view
        row_head = image * num_queries * heads + head
        across, down = unpack(tl.load(as_points(tokens) + image * num_tokens + token, mask=exists, other=0))
        listed = exists & (tl.load(inside + image * num_tokens + token, mask=exists, other=0) != 0)
        left, top, columns, rows = _rectangle(across, down, listed, half, side)
        total = columns * rows
        for first in range(0, total, block):
            at = first + tl.arange(0, block)
            spot = query_start + image * (side * side + 1) + curve_place(left + at % columns, top + at // columns)
            begin = tl.load(spot, mask=at < total, other=0)
            count = tl.load(spot + 1, mask=at < total, other=0) - begin
            for more in range(0, tl.max(count, 0)):  # more than one where cells repeat or lie beyond the grid
                there = more < count
                asked = tl.load(query_order + image * num_queries + begin + more, mask=there, other=0)
                x, y = unpack(tl.load(as_points(cells) + image * num_queries + asked, mask=there, other=0))
                offset = tl.maximum(tl.abs(across[:, None] - x[None, :]), tl.abs(down[:, None] - y[None, :]))
                seen = (offset <= half) & listed[:, None] & there[None, :]
                sees = tl.max(seen.to(tl.int32), 0) > 0
                result_k, result_v = _add_token(
                    k, v, result_k, result_v, grad + row_head * dim, query + row_head * dim, lse + row_head,
                    delta + row_head, asked, seen, sees, channel, scale, heads, dim, precision,
                )  # fmt: skip
                if pair == 2:
                    result_k_2, result_v_2 = _add_token(
                        k_2, v_2, result_k_2, result_v_2, grad + row_head * dim + dim, query + row_head * dim + dim,
                        lse + row_head + 1, delta + row_head + 1, asked, seen, sees, channel, scale, heads, dim,
                        precision,
                    )  # fmt: skip
    cell = ((entry * num_tokens + token) * heads + head)[:, None] * dim + channel[None, :]
    tl.store(v_key + cell, result_k.to(v_key.dtype.element_ty), mask=wide)
    tl.store(v_value + cell, result_v.to(v_value.dtype.element_ty), mask=wide)
    if pair == 2:
        tl.store(v_key + cell + dim, result_k_2.to(v_key.dtype.element_ty), mask=wide)
        tl.store(v_value + cell + dim, result_v_2.to(v_value.dtype.element_ty), mask=wide)
