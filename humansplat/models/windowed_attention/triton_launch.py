"""Launches the Triton kernels: the same three functions as ``cpu_kernels`` has."""

import contextlib
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from humansplat.models.windowed_attention import triton_kernels, triton_sort, triton_tiles
from humansplat.models.windowed_attention.sorted_windows import (
    BINS_PER_CELL,
    TILE,
    TILE_BUCKETS,
    SortedWindows,
)

_SUMS_BYTES = 2**24
"""The backward pass takes no more heads at a time than have their float32 sums in this, where that is any."""


class Shape(NamedTuple):
    """How the work is cut for the GPU; changes time, never a result beyond rounding."""

    block: int = 64
    """Tokens taken at once."""
    warps: int = 4
    stages: int = 2
    pair: bool = False
    """Forward: take two heads at a time where they are even; they share the search for tokens."""
    programs: int = 32
    """Programs for each of the GPU's processors; more than it runs at a time evens out the load."""


def _shape(query: Tensor, backward: bool) -> Shape:
    """What is fast on an H200; float32 is multiplied outside the matrix units and takes more registers."""
    wide = query.shape[-1] > 64
    if query.dtype == torch.float32:
        if wide:
            return Shape(block=16, warps=8, stages=1)
        return Shape(warps=8, stages=1) if backward else Shape(block=32, warps=2)
    if wide:
        return Shape(block=32)
    return Shape(block=128) if backward else Shape(pair=True)


def sort(cells: Tensor, tokens: Tensor, inside: Tensor, window: float, grid: int) -> tuple[Tensor, ...]:
    """The fields of ``SortedWindows`` after ``cells``; see ``kernel_ops.sort_windows``."""
    cells = cells.contiguous()
    with _on(cells):
        ordered = triton_sort.sort(cells, tokens.contiguous(), inside.contiguous(), grid)
        query_order, _, _, start, tiles = ordered
        triton_tiles.list_tiles(cells, query_order, start, tiles, window, grid * BINS_PER_CELL)
        return ordered


def forward(
    query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows, shape: Shape | None = None
) -> tuple[Tensor, Tensor]:
    """Attend; returns the output and the base-2 logarithm of each query's softmax sum, ``inf`` where it has none."""
    query, key, value = query.contiguous(), _rows(key), _rows(value)
    out = torch.empty_like(query)
    lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    shape = shape or _shape(query, backward=False)
    group = 2 if shape.pair and query.shape[3] % 2 == 0 else 1
    if query.numel():
        with _on(query):
            grid, arguments, options = _work((query, key, value), windows, (query, key, value), (out, lse), shape)
            triton_kernels.attend[grid](*arguments, group=group, **options)
    return out, lse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    windows: SortedWindows,
    shape: Shape | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    query, key, value = query.contiguous(), _rows(key), _rows(value)
    batch, num_tokens, heads, dim = key.shape
    v_query, v_both = torch.empty_like(query), key.new_empty(2, *key.shape)
    if not query.numel():
        return v_query, *v_both.zero_()
    part = _part(heads, 8 * batch * num_tokens * dim)
    sums = torch.empty(2, batch, num_tokens, part, dim, dtype=torch.float32, device=key.device)
    inputs = (grad.contiguous(), query, key, value, out, lse)
    shape = shape or _shape(query, backward=True)
    with _on(query):
        grid, arguments, options = _work((query, key, value), windows, inputs, (v_query, sums[0], sums[1]), shape)
        for number, v_part in enumerate(v_both.unflatten(3, (heads // part, part)).unbind(3)):
            sums.zero_()
            triton_kernels.attend_backward[grid](*arguments, first_head=number * part, part=part, **options)
            v_part.copy_(sums)
    return v_query, v_both[0], v_both[1]


def _part(heads: int, head_bytes: int) -> int:
    """Heads whose sums are in memory together."""
    fits = (n for n in range(heads, 1, -1) if heads % n == 0 and n * head_bytes <= _SUMS_BYTES)
    return next(fits, 1)


def _work(
    triple: tuple[Tensor, Tensor, Tensor],
    windows: SortedWindows,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    shape: Shape,
) -> tuple[tuple[int], tuple[Tensor | int | float, ...], dict[str, int | str]]:
    """What both kernels are launched with: the grid, arguments by place, and those by name."""
    query, key, value = triple
    _, views, num_queries, heads, dim = query.shape
    num_tiles = (len(windows.tiles) - TILE_BUCKETS) // TILE_BUCKETS
    arguments = (
        *inputs, triton_sort.packed(windows.cells), windows.query_order, windows.token_order,
        triton_sort.packed(windows.token_positions), windows.bin_start, windows.tiles, *outputs,
        num_queries, key.shape[1], num_tiles, views, windows.side, windows.window / 2, dim**-0.5,
        key.stride(0), key.stride(1), value.stride(0), value.stride(1),
    )  # fmt: skip
    options = {
        "heads": heads,
        "dim": dim,
        "dim_block": max(1 << (dim - 1).bit_length(), 16),
        "bins_per_cell": BINS_PER_CELL,
        "tile": TILE,
        "buckets": TILE_BUCKETS,
        "block": shape.block,
        "rows": triton_tiles.rows_at_once(windows.window),
        "precision": "ieee" if query.dtype == torch.float32 else "tf32",
        "num_warps": shape.warps,
        "num_stages": shape.stages,
    }
    return (min(num_tiles * heads, shape.programs * _processors(query.device)),), arguments, options


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _rows(x: Tensor) -> Tensor:
    """Each token's heads in one contiguous row; the rows may stand apart."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(x.device)
