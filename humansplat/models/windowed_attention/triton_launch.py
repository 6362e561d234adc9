"""Launches the Triton kernels: the same three functions as ``cpu_kernels`` has."""

import contextlib
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from humansplat.models.windowed_attention import triton_kernels, triton_sort
from humansplat.models.windowed_attention.sorted_windows import BINS_PER_CELL, SortedWindows


class Shape(NamedTuple):
    """How the work is cut for the GPU; changes time, never a result beyond rounding."""

    tile: int = 16
    """Queries of a program; a power of 4 is a square of cells."""
    block: int = 32
    """Tokens taken at once."""
    group: int = 4
    """Heads of a program, one after the other."""
    pair: bool = False
    """Forward: take two heads at a time where the group is even."""
    warps: int = 2
    stages: int = 2


def _shape(query: Tensor, backward: bool) -> Shape:
    """What is fast on an H200; float32 is multiplied outside the matrix units and takes more registers."""
    wide = query.shape[-1] > 64
    if query.dtype == torch.float32:
        return Shape(block=16, warps=8 if wide else 4, stages=1)
    if backward:
        return Shape(warps=4)
    return Shape(warps=4) if wide else Shape(group=2, pair=True, warps=1)


def sort(cells: Tensor, tokens: Tensor, inside: Tensor, grid: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :func:`humansplat.models.windowed_attention.kernel_ops.sort_windows`."""
    with _on(cells):
        return triton_sort.sort(cells.contiguous(), tokens.contiguous(), inside.contiguous(), grid)


def forward(
    query: Tensor, key: Tensor, value: Tensor, windows: SortedWindows, shape: Shape | None = None
) -> tuple[Tensor, Tensor]:
    """Attend; returns the output and the base-2 logarithm of each query's softmax sum, ``inf`` where it has none."""
    query, key, value = query.contiguous(), _rows(key), _rows(value)
    out = torch.empty_like(query)
    lse = torch.empty(query.shape[:-1], dtype=torch.float32, device=query.device)
    shape = shape or _shape(query, backward=False)
    pair = shape.pair and math.gcd(shape.group, query.shape[3]) % 2 == 0
    _launch(triton_kernels.attend, (query, key, value), windows, (query, key, value), (out, lse), shape, pair=pair)
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
    v_query = torch.empty_like(query)
    v_key, v_value = torch.zeros(2, *key.shape, dtype=torch.float32, device=key.device)
    inputs = (grad.contiguous(), query, key, value, out, lse)
    shape = shape or _shape(query, backward=True)
    _launch(triton_kernels.attend_backward, (query, key, value), windows, inputs, (v_query, v_key, v_value), shape)
    return v_query, v_key.to(key.dtype), v_value.to(value.dtype)


def _launch(
    kernel: Any,  # compiled or, by TRITON_INTERPRET=1, interpreted
    triple: tuple[Tensor, Tensor, Tensor],
    windows: SortedWindows,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    shape: Shape,
    **options: bool,
) -> None:
    query, key, value = triple
    batch, views, num_queries, heads, dim = query.shape
    if not query.numel():
        return
    group = math.gcd(shape.group, heads)
    # Rows of bins taken at once. A tile of 16 queries is 4 x 4 cells where all are there, and its window adds K.
    rows = 8 if (math.sqrt(shape.tile) + windows.window + 1) * BINS_PER_CELL <= 8 else 16
    with _on(query):
        kernel[(-(-num_queries // shape.tile), heads // group, batch * views)](
            *inputs, windows.cells, windows.query_order, windows.token_order, windows.token_positions,
            windows.bin_start, *outputs,
            num_queries, key.shape[1], views, windows.side, windows.window / 2, dim**-0.5,
            key.stride(0), key.stride(1), value.stride(0), value.stride(1),
            heads=heads, dim=dim, dim_block=max(1 << (dim - 1).bit_length(), 16), bins_per_cell=BINS_PER_CELL,
            tile=shape.tile, block=shape.block, rows=rows, group=group,
            precision="ieee" if query.dtype == torch.float32 else "tf32",
            num_warps=shape.warps, num_stages=shape.stages, **options,
        )  # fmt: skip


def _rows(x: Tensor) -> Tensor:
    """Each token's heads in one contiguous row; the rows may stand apart."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def _on(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensors'."""
    if not x.is_cuda or x.get_device() == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(x.device)
