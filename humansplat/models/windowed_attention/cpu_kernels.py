"""Windowed attention on the CPU, at a cost linear in the pairs of cells and tokens that see each other.

The kernels are serial and release the interpreter's lock; they are dealt out to as many threads as torch uses, on
ranges of queries (forward) or pairs of a batch entry and a head (backward), so that nothing is written twice and
the result does not depend on the number of threads. numba compiles them at the first call and caches them on disk.
"""

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
import torch
from numba import njit
from torch import Tensor

from humansplat.models.windowed_attention.sorted_windows import (
    BINS_PER_CELL,
    BOUND_MARGIN,
    ORIGIN_SHIFT,
    SortedWindows,
    curve_side,
    tile_list_size,
)

_SHIFT = np.float32(ORIGIN_SHIFT)
_MARGIN = np.float32(BOUND_MARGIN)
_SCALE = np.float32(BINS_PER_CELL)
_QUERIES_PER_JOB = 256

# Sums may be reordered, which vectorises the dot products; nothing that touches infinities is assumed away.
_compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "nsz", "reassoc"})


@njit(nogil=True, inline="always")
@no_type_check
def _bin(coordinate, side):
    place = np.floor((coordinate + _SHIFT) * _SCALE)
    return np.int64(min(max(place, np.float32(0)), np.float32(side - 1)))


@_compiled
@no_type_check
def _sort_tokens(tokens, inside, side, order, positions, start):
    """Counting sort of each image's tokens by bin, row by row; the order within a bin is that of the input."""
    images, num_tokens = inside.shape
    bins = np.empty(num_tokens, np.int64)
    for i in range(images):
        start[i] = 0
        for j in range(num_tokens):
            if inside[i, j]:
                bins[j] = _bin(tokens[i, j, 1], side) * side + _bin(tokens[i, j, 0], side)
                start[i, bins[j]] += 1
        total = 0
        for k in range(side * side + 1):
            count = start[i, k]
            start[i, k] = total
            total += count
        for j in range(num_tokens):
            if inside[i, j]:
                place = start[i, bins[j]]
                order[i, place] = j
                positions[i, place] = tokens[i, j]
                start[i, bins[j]] += 1
        for k in range(side * side, 0, -1):  # each start has become its bin's end, the next bin's start
            start[i, k] = start[i, k - 1]
        start[i, 0] = 0


@_compiled
@no_type_check
def _find_pairs(first, last, fill, cells, side, half, order, positions, start, offsets, pairs):
    """Count the tokens that each query of a range sees, or with ``fill`` write their numbers."""
    num_queries = cells.shape[1]
    for query in range(first, last):
        i, n = query // num_queries, query % num_queries
        x, y = cells[i, n, 0], cells[i, n, 1]
        left, right = _bin(x - half - _MARGIN, side), _bin(x + half + _MARGIN, side)
        top, bottom = _bin(y - half - _MARGIN, side), _bin(y + half + _MARGIN, side)
        found = offsets[query] if fill else 0
        for row in range(top, bottom + 1):
            for place in range(start[i, row * side + left], start[i, row * side + right + 1]):
                if max(abs(positions[i, place, 0] - x), abs(positions[i, place, 1] - y)) <= half:
                    if fill:
                        pairs[found] = order[i, place]
                    found += 1
        if not fill:
            offsets[query + 1] = found


@_compiled
@no_type_check
def _attend(first, last, query, key, value, queries_per_entry, scale, offsets, pairs, out, lse):
    """Softmax attention of a range of queries over their pairs; ``[rows, heads, d]``, keys ``[b, j, heads, d]``."""
    _, heads, dim = query.shape
    logits = np.empty(max(np.max(offsets[first + 1 : last + 1] - offsets[first:last]), 1), query.dtype)
    for row in range(first, last):
        entry = row // queries_per_entry
        begin, count = offsets[row], offsets[row + 1] - offsets[row]
        for head in range(heads):
            target = out[row, head]
            target[:] = 0
            if count == 0:
                lse[row, head] = np.inf
                continue
            asked = query[row, head]
            top = -np.inf
            for n in range(count):
                known = key[entry, pairs[begin + n], head]
                total = query.dtype.type(0)
                for c in range(dim):
                    total += asked[c] * known[c]
                logits[n] = total * scale
                top = max(top, logits[n])
            mass = query.dtype.type(0)
            for n in range(count):
                weight = np.exp(logits[n] - top)
                mass += weight
                told = value[entry, pairs[begin + n], head]
                for c in range(dim):
                    target[c] += weight * told[c]
            inverse = query.dtype.type(1) / mass
            for c in range(dim):
                target[c] *= inverse
            lse[row, head] = top + np.log(mass)


@_compiled
@no_type_check
def _attend_backward(
    first, last, grad, query, key, value, out, lse, queries_per_entry, scale, offsets, pairs, v_query, v_key, v_value
):
    """Gradients of a range of (batch entry, head); all outputs start from zero."""
    _, heads, dim = query.shape
    for job in range(first, last):
        entry, head = job // heads, job % heads
        for row in range(entry * queries_per_entry, (entry + 1) * queries_per_entry):
            if offsets[row] == offsets[row + 1]:
                continue
            asked, given, v_asked = query[row, head], grad[row, head], v_query[row, head]
            delta = query.dtype.type(0)
            for c in range(dim):
                delta += given[c] * out[row, head, c]
            for n in range(offsets[row], offsets[row + 1]):
                known, told = key[entry, pairs[n], head], value[entry, pairs[n], head]
                v_known, v_told = v_key[entry, pairs[n], head], v_value[entry, pairs[n], head]
                logit = query.dtype.type(0)
                agreement = query.dtype.type(0)
                for c in range(dim):
                    logit += asked[c] * known[c]
                    agreement += given[c] * told[c]
                weight = np.exp(logit * scale - lse[row, head])
                slope = weight * (agreement - delta) * scale
                for c in range(dim):
                    v_asked[c] += slope * known[c]
                    v_known[c] += slope * asked[c]
                    v_told[c] += weight * given[c]


def sort(cells: Tensor, tokens: Tensor, inside: Tensor, _window: float, grid: int) -> tuple[Tensor, ...]:
    """The fields of ``SortedWindows`` after ``inside``; see ``kernel_ops.sort_windows``."""
    batch, views, num_tokens, _ = tokens.shape
    side = grid * BINS_PER_CELL
    order = torch.zeros(batch, views, num_tokens, dtype=torch.int32)
    positions = torch.zeros(batch, views, num_tokens, 2)
    start = torch.empty(batch, views, side * side + 1, dtype=torch.int32)
    flat = [x.flatten(0, 1).numpy() for x in (tokens, inside, order, positions, start)]
    _sort_tokens(flat[0], flat[1], side, *flat[2:])
    rows = torch.arange(cells.shape[2], dtype=torch.int32).expand(batch, views, -1).contiguous()
    tiles = torch.zeros(tile_list_size(*cells.shape[:3]), dtype=torch.int32)
    places = torch.zeros(batch, views, curve_side(grid) ** 2 + 1, dtype=torch.int32)
    return rows, places, order, positions, start, tiles


def forward(query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows) -> tuple[Tensor, Tensor]:
    """Attend; returns the output and the logarithm of each query's softmax sum (``inf`` where it sees nothing)."""
    out = torch.empty(query.shape, dtype=_working_type(query))
    lse = torch.empty(query.shape[:-1], dtype=out.dtype)
    offsets, pairs = _pairs(windows)
    q, k, v = (_array(x, out.dtype) for x in (query, key, value))
    rows = (q.reshape(-1, *q.shape[3:]), k, v, query.shape[1] * query.shape[2], _scale(q))
    results = out.flatten(0, 2).numpy(), lse.flatten(0, 2).numpy()
    _deal(_attend, len(rows[0]), _QUERIES_PER_JOB, *rows, offsets, pairs, *results)
    return out.to(query.dtype), lse


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, windows: SortedWindows
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    working = _working_type(query)
    offsets, pairs = _pairs(windows)
    g, q, k, v, o = (_array(x, working) for x in (grad, query, key, value, out))
    gradients = [torch.zeros(x.shape, dtype=working) for x in (query, key, value)]
    flat = [x.reshape(-1, *x.shape[3:]) for x in (g, q, o)]
    results = gradients[0].flatten(0, 2).numpy(), gradients[1].numpy(), gradients[2].numpy()
    _deal(
        _attend_backward, query.shape[0] * query.shape[3], 1,
        *flat[:2], k, v, flat[2], lse.flatten(0, 2).numpy(), query.shape[1] * query.shape[2], _scale(q),
        offsets, pairs, *results,
    )  # fmt: skip
    v_query, v_key, v_value = (x.to(query.dtype) for x in gradients)
    return v_query, v_key, v_value


def _working_type(query: Tensor) -> torch.dtype:
    return torch.float64 if query.dtype == torch.float64 else torch.float32


def _array(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    return x.detach().to(dtype).contiguous().numpy()


def _scale(query: np.ndarray) -> np.floating:
    return query.dtype.type(query.shape[-1] ** -0.5)


def _pairs(windows: SortedWindows) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that each query sees, one after the other, and where each query's begin."""
    cells, order, positions, start = (
        x.flatten(0, 1).numpy()
        for x in (windows.cells, windows.token_order, windows.token_positions, windows.bin_start)
    )
    total = cells.shape[0] * cells.shape[1]
    offsets = np.zeros(total + 1, np.int64)
    arguments = (cells, windows.side, np.float32(windows.window / 2), order, positions, start, offsets)
    _deal(_find_pairs, total, _QUERIES_PER_JOB, False, *arguments, np.empty(0, np.int32))
    np.cumsum(offsets, out=offsets)
    pairs = np.empty(offsets[-1], np.int32)
    _deal(_find_pairs, total, _QUERIES_PER_JOB, True, *arguments, pairs)
    return offsets, pairs


def _deal(kernel: Callable[..., None], total: int, piece: int, *arguments: object) -> None:
    """Run ``kernel(first, last, *arguments)`` over pieces of a range, on torch's number of threads."""
    threads = torch.get_num_threads()
    if threads == 1 or total <= piece:
        if total:
            kernel(0, total, *arguments)
        return
    bounds = [*range(0, total, piece), total]
    with ThreadPoolExecutor(threads) as pool:
        for job in [pool.submit(kernel, a, b, *arguments) for a, b in itertools.pairwise(bounds)]:
            job.result()
