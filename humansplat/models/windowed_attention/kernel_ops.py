"""Ties the kernels into autograd, and into ``torch.compile`` as operators that it need not look into.

The operators' schemas stand with torch's library; called eagerly, the kernels are reached without it, which saves
tens of microseconds a call.
"""

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor
from torch.autograd.function import once_differentiable

from humansplat.models.windowed_attention.sorted_windows import (
    BINS_PER_CELL,
    SortedWindows,
    curve_side,
    tile_list_size,
)

Kernels = Literal["cpu", "triton"]

_LIBRARY = torch.library.Library("humansplat", "DEF")
_WINDOWS = (
    "Tensor cells, Tensor tokens, Tensor inside, Tensor query_order, Tensor query_start, Tensor token_order,"
    " Tensor token_positions, Tensor bin_start, Tensor tiles"
)
_LIBRARY.define(
    "sort_windows(Tensor cells, Tensor tokens, Tensor inside, float window, int grid)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    f"windowed_attention(Tensor query, Tensor key, Tensor value, {_WINDOWS}, float window, int grid)"
    " -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "windowed_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor out, Tensor lse,"
    f" {_WINDOWS}, float window, int grid) -> (Tensor, Tensor, Tensor)"
)


def sort_windows(
    cells: Float32[Tensor, "b v t 2"],
    tokens: Float32[Tensor, "b v j 2"],
    inside: Bool[Tensor, "b v j"],
    window: float,
    grid: int,
    kernels: Kernels,
) -> SortedWindows:
    """Sort the tokens of every image by bin, and put the queries in an order in which neighbours stand together."""
    cells, tokens, inside = cells.contiguous(), tokens.contiguous(), inside.contiguous()
    if torch.compiler.is_compiling():
        sorted_ = torch.ops.humansplat.sort_windows(cells, tokens, inside, window, grid)
    else:
        sorted_ = _module(kernels).sort(cells, tokens, inside, window, grid)
    return _windows((cells, tokens, inside, *sorted_, window, grid))


def attend(
    query: Float[Tensor, "b v t h d"],
    key: Float[Tensor, "b j h d"],
    value: Float[Tensor, "b j h d"],
    windows: SortedWindows,
    kernels: Kernels,
) -> Float[Tensor, "b v t h d"]:
    """Attend by the CPU's or Triton's kernels."""
    if torch.compiler.is_compiling():
        return _AttendCompiled.apply(query, key, value, *_tensors(windows), windows.window, windows.grid)
    if torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad):
        return _Attend.apply(query, key, value, windows, kernels)
    return _module(kernels).forward(query, key, value, windows)[0]


class _Attend(torch.autograd.Function):
    """Launched one by one; the windows pass as they are, for each tensor given to autograd takes time."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows, kernels: Kernels
    ) -> Tensor:
        out, lse = _module(kernels).forward(query, key, value, windows)
        ctx.save_for_backward(query, key, value, out, lse)
        ctx.windows, ctx.kernels = windows, kernels
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return *_module(ctx.kernels).backward(grad, *ctx.saved_tensors, ctx.windows), None, None


class _AttendCompiled(torch.autograd.Function):
    """In a compiled graph: everything a tensor or a number, the kernels as operators."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor,
        cells: Tensor, tokens: Tensor, inside: Tensor, query_order: Tensor, query_start: Tensor, token_order: Tensor,
        positions: Tensor, start: Tensor, tiles: Tensor, window: float, grid: int,
    ) -> Tensor:  # fmt: skip
        sorted_ = (cells, tokens, inside, query_order, query_start, token_order, positions, start, tiles)
        out, lse = torch.ops.humansplat.windowed_attention(query, key, value, *sorted_, window, grid)
        ctx.save_for_backward(query, key, value, out, lse, *sorted_)
        ctx.window, ctx.grid = window, grid
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = torch.ops.humansplat.windowed_attention_backward(grad, *ctx.saved_tensors, ctx.window, ctx.grid)
        return *gradients, *[None] * 11


@cache
def _module(kernels: Kernels) -> ModuleType:
    """The kernels, imported when they are first asked for: each kind needs a compiler of its own."""
    if kernels == "triton":
        from humansplat.models.windowed_attention import triton_launch

        return triton_launch
    from humansplat.models.windowed_attention import cpu_kernels

    return cpu_kernels


def _windows(ordered: Sequence[Any]) -> SortedWindows:
    cells, tokens, inside, query_order, query_start, token_order, positions, start, tiles, window, grid = ordered
    return SortedWindows(
        cells=cells,
        tokens=tokens,
        inside=inside,
        query_order=query_order,
        query_start=query_start,
        token_order=token_order,
        token_positions=positions,
        bin_start=start,
        tiles=tiles,
        window=window,
        grid=grid,
    )


def _tensors(windows: SortedWindows) -> tuple[Tensor, ...]:
    return (
        windows.cells,
        windows.tokens,
        windows.inside,
        windows.query_order,
        windows.query_start,
        windows.token_order,
        windows.token_positions,
        windows.bin_start,
        windows.tiles,
    )


def _register(kernels: Kernels, device: str) -> None:
    def sort(cells: Tensor, tokens: Tensor, inside: Tensor, window: float, grid: int) -> tuple[Tensor, ...]:
        return _module(kernels).sort(cells, tokens, inside, window, grid)

    def forward(query: Tensor, key: Tensor, value: Tensor, *windows: Any) -> tuple[Tensor, Tensor]:
        return _module(kernels).forward(query, key, value, _windows(windows))

    def backward(
        grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *windows: Any
    ) -> tuple[Tensor, ...]:
        return _module(kernels).backward(grad, query, key, value, out, lse, _windows(windows))

    _LIBRARY.impl("sort_windows", sort, device)
    _LIBRARY.impl("windowed_attention", forward, device)
    _LIBRARY.impl("windowed_attention_backward", backward, device)


_register("cpu", "CPU")
_register("triton", "CUDA")


@torch.library.register_fake("humansplat::sort_windows", lib=_LIBRARY)
def _sort_shapes(cells: Tensor, tokens: Tensor, inside: Tensor, window: float, grid: int) -> tuple[Tensor, ...]:
    images, side = cells.shape[:2], grid * BINS_PER_CELL
    return (
        cells.new_empty(*images, cells.shape[2], dtype=torch.int32),
        cells.new_empty(*images, curve_side(grid) ** 2 + 1, dtype=torch.int32),
        cells.new_empty(*images, tokens.shape[2], dtype=torch.int32),
        cells.new_empty(*images, tokens.shape[2], 2, dtype=torch.float32),
        cells.new_empty(*images, side * side + 1, dtype=torch.int32),
        cells.new_empty(tile_list_size(*cells.shape[:3]), dtype=torch.int32),
    )


@torch.library.register_fake("humansplat::windowed_attention", lib=_LIBRARY)
def _forward_shapes(query: Tensor, key: Tensor, value: Tensor, *windows: Any) -> tuple[Tensor, Tensor]:
    working = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(query.shape), query.new_empty(query.shape[:-1], dtype=working)


@torch.library.register_fake("humansplat::windowed_attention_backward", lib=_LIBRARY)
def _backward_shapes(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, *windows: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)
