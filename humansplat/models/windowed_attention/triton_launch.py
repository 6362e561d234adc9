"""Launches the Triton kernels: the same three functions as ``cpu_kernels`` has."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from humansplat.models.windowed_attention import triton_gradients, triton_kernels, triton_sort, triton_tiles
from humansplat.models.windowed_attention.sorted_windows import (
    BINS_PER_CELL,
    TILE,
    TILE_BUCKETS,
    SortedWindows,
    curve_side,
)
from humansplat.models.windowed_attention.triton_direct import launch, on_device_of

Options = tuple[tuple[str, object], ...]


class Shape(NamedTuple):
    """How the work is cut for the GPU; changes time, never a result beyond rounding."""

    block: int = 64
    """Tokens, or for the gradients of tokens cells, taken at once."""
    warps: int = 4
    stages: int = 2
    pair: bool = False
    """Take two heads at a time where they are even; they share the search."""
    programs: int = 32
    """Programs for each of the GPU's processors; more than it runs at a time evens out the load."""
    group: int = 16
    """Gradients of tokens: tokens that a program takes together."""


def sort(cells: Tensor, tokens: Tensor, inside: Tensor, window: float, grid: int) -> tuple[Tensor, ...]:
    """The fields of ``SortedWindows`` after ``inside``; see ``kernel_ops.sort_windows``."""
    cells, tokens = triton_sort.aligned(cells), triton_sort.aligned(tokens)
    with on_device_of(cells):
        ordered = triton_sort.sort(cells, tokens, inside, grid)
        query_order, _, _, _, start, tiles = ordered
        triton_tiles.list_tiles(cells, query_order, start, tiles, window, grid * BINS_PER_CELL)
        return ordered


def forward(
    query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows, shape: Shape | None = None
) -> tuple[Tensor, Tensor]:
    """Attend; returns the output and the base-2 logarithm of each query's softmax sum, ``inf`` where it has none."""
    query, key, value = query.contiguous(), _rows(key), _rows(value)
    _, views, num_queries, heads, dim = query.shape
    out = torch.empty_like(query)
    lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    if not query.numel():
        return out, lse
    shape, options = _forward_options(query.dtype, heads, dim, windows.window, shape)
    tensors = (
        query, key, value, triton_sort.aligned(windows.cells), windows.query_order, windows.token_order,
        windows.token_positions, windows.bin_start, windows.tiles, out, lse,
    )  # fmt: skip
    num_tiles = windows.tiles.shape[0] // TILE_BUCKETS - 1
    numbers = (num_queries, key.shape[1], num_tiles, views, windows.side, windows.window / 2, dim**-0.5)
    with on_device_of(query):
        programs = _programs(num_tiles * heads, shape, query.device)
        launch(triton_kernels.attend, programs, tensors, (*numbers, *_strides(key, value)), options)
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
    token_shape: Shape | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    grad, query, key, value = grad.contiguous(), query.contiguous(), _rows(key), _rows(value)
    batch, views, num_queries, heads, dim = query.shape
    num_tokens = key.shape[1]
    v_query, v_key, v_value = torch.empty_like(query), _like(key), _like(value)
    if not query.numel() or not key.numel():
        return v_query.zero_(), v_key.zero_(), v_value.zero_()
    delta = torch.empty_like(lse)
    cells = triton_sort.aligned(windows.cells)
    half, scale = windows.window / 2, dim**-0.5
    num_tiles = windows.tiles.shape[0] // TILE_BUCKETS - 1
    with on_device_of(query):
        shape, options = _query_options(query.dtype, heads, dim, windows.window, shape)
        launch(
            triton_gradients.query_gradients, _programs(num_tiles * heads, shape, query.device),
            (grad, query, key, value, out, lse, cells, windows.query_order, windows.token_order,
             windows.token_positions, windows.bin_start, windows.tiles, v_query, delta),
            (num_queries, num_tokens, num_tiles, views, windows.side, half, scale, *_strides(key, value)),
            options,
        )  # fmt: skip
        shape, options = _token_options(query.dtype, heads, dim, token_shape)
        pieces = batch * -(-num_tokens // shape.group) * heads // _heads(heads, shape)
        launch(
            triton_gradients.token_gradients, (pieces, 1, 1),
            (grad, query, key, value, lse, delta, cells, triton_sort.aligned(windows.tokens), windows.inside,
             windows.query_order, windows.query_start, windows.token_order, v_key, v_value),
            (num_queries, num_tokens, views, curve_side(windows.grid), half, scale, *_strides(key, value)),
            options,
        )  # fmt: skip
    return v_query, v_key, v_value


@cache
def _forward_options(
    dtype: torch.dtype, heads: int, dim: int, window: float, shape: Shape | None
) -> tuple[Shape, Options]:
    """What is fast on an H200; float32 is multiplied outside the matrix units and takes more registers."""
    if shape is None:
        if dtype == torch.float32:
            shape = Shape(block=16, warps=8, stages=1) if dim > 64 else Shape(block=32, warps=2)
        else:
            shape = Shape(block=32) if dim > 64 else Shape(pair=True)
    return shape, (
        *_sizes(heads, dim),
        *_walk(window, shape),
        ("pair", _heads(heads, shape)),
        *_compiler(dtype, shape),
    )


@cache
def _query_options(
    dtype: torch.dtype, heads: int, dim: int, window: float, shape: Shape | None
) -> tuple[Shape, Options]:
    if shape is None:
        if dtype == torch.float32:
            shape = Shape(block=16 if dim > 64 else 64, warps=8, stages=1)
        else:
            shape = Shape(block=32) if dim > 64 else Shape(warps=2)
    return shape, (
        *_sizes(heads, dim),
        *_walk(window, shape),
        ("pair", _heads(heads, shape)),
        *_compiler(dtype, shape),
    )


@cache
def _token_options(dtype: torch.dtype, heads: int, dim: int, shape: Shape | None) -> tuple[Shape, Options]:
    if shape is None:
        if dtype == torch.float32:
            shape = Shape(block=16 if dim > 64 else 32, warps=8 if dim > 64 else 4, stages=1)
        else:
            shape = Shape(block=32, stages=1) if dim > 64 else Shape(block=16, warps=1, stages=1)
    cut = ("group", shape.group), ("block", shape.block), ("pair", _heads(heads, shape))
    return shape, (*_sizes(heads, dim), *cut, *_compiler(dtype, shape))


def _heads(heads: int, shape: Shape) -> int:
    """Heads that a program takes together."""
    return 2 if shape.pair and heads % 2 == 0 else 1


def _sizes(heads: int, dim: int) -> Options:
    return ("heads", heads), ("dim", dim), ("dim_block", max(1 << (dim - 1).bit_length(), 16))


def _walk(window: float, shape: Shape) -> Options:
    return (
        ("bins_per_cell", BINS_PER_CELL), ("tile", TILE), ("buckets", TILE_BUCKETS), ("block", shape.block),
        ("rows", triton_tiles.rows_at_once(window)),
    )  # fmt: skip


def _compiler(dtype: torch.dtype, shape: Shape) -> Options:
    precision = "ieee" if dtype == torch.float32 else "tf32"
    return ("precision", precision), ("num_warps", shape.warps), ("num_stages", shape.stages)


def _programs(work: int, shape: Shape, device: torch.device) -> tuple[int, int, int]:
    return min(work, shape.programs * _processors(device)), 1, 1


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _strides(key: Tensor, value: Tensor) -> tuple[int, int, int, int]:
    of_key, of_value = key.stride(), value.stride()
    return of_key[0], of_key[1], of_value[0], of_value[1]


def _like(x: Tensor) -> Tensor:
    """A new tensor of its shape and type, contiguous."""
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _rows(x: Tensor) -> Tensor:
    """Each token's heads in one contiguous row; the rows may stand apart."""
    return x if x.is_contiguous() or x.stride()[2:] == (x.shape[3], 1) else x.contiguous()
