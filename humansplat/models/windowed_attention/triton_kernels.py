"""Triton kernels of windowed attention over sorted tokens, forward and backward.

A program takes a tile of neighbouring queries and a few heads. The tokens that any query of the tile can see lie, for
each row of bins, in one range of the sorted tokens; the program walks along these ranges laid end to end, a block at a
time, tests each pair of the block by its positions, and keeps a running softmax. Tiles that see nothing only write
zeros. The backward pass walks the same way with the forward pass's softmax sums, and adds each block's share to the
gradients of its keys and values atomically, in float32.
"""

# mypy: ignore-errors
from typing import no_type_check

import triton
import triton.language as tl

from humansplat.models.windowed_attention.triton_sort import _MARGIN, find_bin

_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
@no_type_check
def _tile(cells, query_order, num_queries, half, side, bins_per_cell: tl.constexpr, tile: tl.constexpr):
    """The queries of this program, their cells' centres, and the bins that their windows touch."""
    image = tl.program_id(2).to(tl.int64)
    place = tl.program_id(0) * tile + tl.arange(0, tile)
    exists = place < num_queries
    query = tl.load(query_order + image * num_queries + place, mask=exists, other=0)
    x = tl.load(cells + 2 * (image * num_queries + query), mask=exists, other=0.0)
    y = tl.load(cells + 2 * (image * num_queries + query) + 1, mask=exists, other=0.0)
    reach = half + _MARGIN
    left = find_bin(tl.min(tl.where(exists, x, float("inf")), 0) - reach, side, bins_per_cell)
    right = find_bin(tl.max(tl.where(exists, x, float("-inf")), 0) + reach, side, bins_per_cell)
    top = find_bin(tl.min(tl.where(exists, y, float("inf")), 0) - reach, side, bins_per_cell)
    bottom = find_bin(tl.max(tl.where(exists, y, float("-inf")), 0) + reach, side, bins_per_cell)
    return query, exists, x, y, left, right, top, bottom


@triton.jit
@no_type_check
def _ranges(start, first, bottom, left, right, side, rows: tl.constexpr):
    """Where the sorted tokens of up to ``rows`` rows of bins begin, and how many they are."""
    row = first + tl.arange(0, rows)
    begin = tl.load(start + row * side + left, mask=row <= bottom, other=0)
    end = tl.load(start + row * side + right + 1, mask=row <= bottom, other=0)
    return begin, end - begin


@triton.jit
@no_type_check
def _count(start, top, bottom, left, right, side, rows: tl.constexpr):
    total = tl.zeros([], tl.int32)
    for first in range(top, bottom + 1, rows):
        begin, length = _ranges(start, first, bottom, left, right, side, rows)
        total += tl.sum(length, 0)
    return total


@triton.jit
@no_type_check
def _block(
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
    across = tl.load(positions + 2 * place, mask=listed, other=0.0)
    down = tl.load(positions + 2 * place + 1, mask=listed, other=0.0)
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


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "views", "side"])
@no_type_check
def attend(
    query, key, value, cells, query_order, token_order, positions, start, out, lse,
    num_queries, num_tokens, views, side, half, scale, key_batch, key_row, value_batch, value_row,
    heads: tl.constexpr, dim: tl.constexpr, dim_block: tl.constexpr, bins_per_cell: tl.constexpr,
    tile: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, group: tl.constexpr, pair: tl.constexpr,
    precision: tl.constexpr,
):  # fmt: skip
    """Output and base-2 logarithm of the softmax sums, ``inf`` for a query that sees nothing.

    By ``pair`` two heads are taken at a time, which share the search for tokens.
    """
    asked, exists, x, y, left, right, top, bottom = _tile(
        cells, query_order, num_queries, half, side, bins_per_cell, tile
    )
    image = tl.program_id(2).to(tl.int64)
    entry = image // views
    start += image * (side * side + 1)
    token_order += image * num_tokens
    positions += 2 * image * num_tokens
    row_head = (image * num_queries + asked) * heads
    channel = tl.arange(0, dim_block)
    wide = exists[:, None] & (channel < dim)[None, :]
    empty = _count(start, top, bottom, left, right, side, rows) == 0
    for member in range(0, group, 2 if pair else 1):
        head = tl.program_id(1) * group + member
        cell = (row_head + head)[:, None] * dim + channel[None, :]
        if empty:
            nothing = tl.zeros([tile, dim_block], out.dtype.element_ty)
            endless = tl.full([tile], float("inf"), tl.float32)
            tl.store(out + cell, nothing, mask=wide)
            tl.store(lse + row_head + head, endless, mask=exists)
            if pair:
                tl.store(out + cell + dim, nothing, mask=wide)
                tl.store(lse + row_head + head + 1, endless, mask=exists)
        else:
            keys = key + entry * key_batch + head * dim
            values = value + entry * value_batch + head * dim
            q = tl.load(query + cell, mask=wide, other=0.0)
            highest = tl.full([tile], float("-inf"), tl.float32)
            mass = tl.zeros([tile], tl.float32)
            result = tl.zeros([tile, dim_block], tl.float32)
            if pair:
                q_2 = tl.load(query + cell + dim, mask=wide, other=0.0)
                highest_2, mass_2, result_2 = highest, mass, result
            for first_row in range(top, bottom + 1, rows):
                begin, length = _ranges(start, first_row, bottom, left, right, side, rows)
                ends = tl.cumsum(length, 0)
                total = tl.sum(length, 0)
                for first in range(0, total, block):
                    token, listed, seen = _block(
                        token_order, positions, begin, ends, length, first, total, x, y, exists, half, rows, block
                    )
                    known = listed[:, None] & (channel < dim)[None, :]
                    highest, mass, result = _step(
                        q, keys, values, token, known, seen, channel, key_row, value_row, scale,
                        highest, mass, result, precision,
                    )  # fmt: skip
                    if pair:
                        highest_2, mass_2, result_2 = _step(
                            q_2, keys + dim, values + dim, token, known, seen, channel, key_row, value_row, scale,
                            highest_2, mass_2, result_2, precision,
                        )  # fmt: skip
            _finish(out, lse, cell, row_head + head, wide, exists, highest, mass, result)
            if pair:
                _finish(out, lse, cell + dim, row_head + head + 1, wide, exists, highest_2, mass_2, result_2)


@triton.jit(do_not_specialize=["num_queries", "num_tokens", "views", "side"])
@no_type_check
def attend_backward(
    grad, query, key, value, out, lse, cells, query_order, token_order, positions, start, v_query, v_key, v_value,
    num_queries, num_tokens, views, side, half, scale, key_batch, key_row, value_batch, value_row,
    heads: tl.constexpr, dim: tl.constexpr, dim_block: tl.constexpr, bins_per_cell: tl.constexpr,
    tile: tl.constexpr, block: tl.constexpr, rows: tl.constexpr, group: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Gradients; those of keys and values are float32, contiguous, and start from zero."""
    asked, exists, x, y, left, right, top, bottom = _tile(
        cells, query_order, num_queries, half, side, bins_per_cell, tile
    )
    image = tl.program_id(2).to(tl.int64)
    entry = image // views
    start += image * (side * side + 1)
    token_order += image * num_tokens
    positions += 2 * image * num_tokens
    row_head = (image * num_queries + asked) * heads
    channel = tl.arange(0, dim_block)
    wide = exists[:, None] & (channel < dim)[None, :]
    empty = _count(start, top, bottom, left, right, side, rows) == 0
    for member in range(group):
        head = tl.program_id(1) * group + member
        cell = (row_head + head)[:, None] * dim + channel[None, :]
        if empty:
            tl.store(v_query + cell, tl.zeros([tile, dim_block], v_query.dtype.element_ty), mask=wide)
        else:
            q = tl.load(query + cell, mask=wide, other=0.0)
            given = tl.load(grad + cell, mask=wide, other=0.0)
            told = tl.load(out + cell, mask=wide, other=0.0)
            delta = tl.sum(given.to(tl.float32) * told.to(tl.float32), 1)
            level = tl.load(lse + row_head + head, mask=exists, other=float("inf"))
            keys = key + entry * key_batch + head * dim
            values = value + entry * value_batch + head * dim
            shares = (entry * num_tokens * heads + head) * dim
            result = tl.zeros([tile, dim_block], tl.float32)
            for first_row in range(top, bottom + 1, rows):
                begin, length = _ranges(start, first_row, bottom, left, right, side, rows)
                ends = tl.cumsum(length, 0)
                total = tl.sum(length, 0)
                for first in range(0, total, block):
                    token, listed, seen = _block(
                        token_order, positions, begin, ends, length, first, total, x, y, exists, half, rows, block
                    )
                    known = listed[:, None] & (channel < dim)[None, :]
                    k = tl.load(keys + token[:, None] * key_row + channel[None, :], mask=known, other=0.0)
                    v = tl.load(values + token[:, None] * value_row + channel[None, :], mask=known, other=0.0)
                    logit = tl.dot(q, tl.trans(k), input_precision=precision) * (scale * _LOG2_E)
                    weight = tl.where(seen, tl.exp2(logit - level[:, None]), 0.0)
                    agreement = tl.dot(given, tl.trans(v), input_precision=precision)
                    slope = (weight * (agreement - delta[:, None]) * scale).to(q.dtype)
                    result += tl.dot(slope, k, input_precision=precision)
                    v_k = tl.dot(tl.trans(slope), q, input_precision=precision)
                    v_v = tl.dot(tl.trans(weight.to(q.dtype)), given, input_precision=precision)
                    hit = (tl.max(seen.to(tl.int32), 0) > 0)[:, None] & known
                    share = shares + token[:, None] * (heads * dim) + channel[None, :]
                    tl.atomic_add(v_key + share, v_k, mask=hit, sem="relaxed")
                    tl.atomic_add(v_value + share, v_v, mask=hit, sem="relaxed")
            tl.store(v_query + cell, result.to(v_query.dtype.element_ty), mask=wide)
