"""The operations of ``sv3d_kernels`` with gradients, for training on a GPU; same arguments, same results.

Kept for the backward pass is what came in, or the sum that goes on; the rest is computed anew. Gradients are sums in
an order that does not depend on timing, in float32, then of the type of what they belong to. Nothing here waits for
the GPU or depends on values, so steps can be recorded as CUDA graphs.
"""

from typing import Any

import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from humansplat.models import sv3d_backward, sv3d_kernels
from humansplat.models.windowed_attention.triton_direct import on_device_of

_PROGRAMS = 528
"""About as many of sums over rows keep a large GPU busy, four on each of its processors."""
_ELEMENTS = 2048
"""That a program of those takes at once."""
_ROWS = 256
"""That a program of a group norm's sums takes."""


def group_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, added: Tensor | None = None, silu: bool = True
) -> Tensor:
    """Group norm of ``x + added``, and SiLU; see ``sv3d_kernels.group_norm``."""
    return _GroupNorm.apply(x, weight, bias, added, groups, eps, silu)


def gate(x: Tensor) -> Tensor:
    """The first half of the channels [..., 2 c] times GELU of the second."""
    return _Gate.apply(x)


def sum_norm(
    tokens: Tensor, change: Tensor | None, extra: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Sum of tokens with what is added to them, and its layer norm; see ``sv3d_kernels.sum_norm``."""
    return _SumNorm.apply(tokens, change, extra, weight, bias, eps)


def attend_views(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """Attention of every pixel over its views; all [b, v, p, heads * d]."""
    return _AttendViews.apply(query.contiguous(), key.contiguous(), value.contiguous(), heads)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None, groups: int, eps: float, silu: bool
    ) -> Tensor:
        out, scales = sv3d_kernels.group_norm_and_scales(x, groups, weight, bias, eps, added, silu)
        ctx.save_for_backward(x, weight, bias, added, scales)
        ctx.groups, ctx.silu = groups, silu
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, added, scales = ctx.saved_tensors
        segments, channels, height, width = x.shape
        rows, group_width = height * width, channels // ctx.groups
        given = given.contiguous(memory_format=torch.channels_last)
        laid, per_added = sv3d_kernels.lay_added(x, added)
        parts, block = triton.cdiv(rows, _ROWS), sv3d_kernels.channels_together(channels)
        sums = torch.empty(segments, parts, 2, channels, dtype=torch.float32, device=x.device)
        totals, means = sums.new_empty(segments, 2, channels), sums.new_empty(segments, 2, channels)
        out = torch.empty_like(x)
        tiles = triton.cdiv(channels, block)
        options = {"has_added": added is not None, "silu": ctx.silu, "tile": 4096 // block // 2, "width": block}
        with on_device_of(x):
            sv3d_backward.group_norm_sums[segments, parts, tiles](
                x, laid, scales, given, sums, rows, per_added, channels, parts, span=_ROWS, **options
            )
            sv3d_backward.group_norm_means[segments, ctx.groups](
                sums, weight, totals, means, channels, parts, group_width, float(group_width * rows),
                tile=16, width=triton.next_power_of_2(group_width),
            )  # fmt: skip
            sv3d_backward.group_norm_inputs[segments, triton.cdiv(rows, options["tile"]), tiles](
                x, laid, scales, given, means, out, rows, per_added, channels, **options
            )
        of_weight, of_bias = totals.sum(0)
        of_added = None
        if added is not None and ctx.needs_input_grad[3]:
            of_added = out.sum((2, 3) if added.ndim == 2 else 3, dtype=torch.float32).to(added.dtype)
        return out, of_weight.to(weight.dtype), of_bias.to(bias.dtype), of_added, None, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x)
        return sv3d_kernels.gate(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        given, out, half = given.contiguous(), torch.empty_like(x), x.shape[-1] // 2
        rows, width = given.numel() // half, min(256, triton.next_power_of_2(half))
        with on_device_of(x):
            sv3d_backward.gate_inputs[triton.cdiv(rows, 8), triton.cdiv(half, width)](
                x, given, out, rows, half, tile=8, width=width
            )
        return out


class _SumNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        change: Tensor | None,
        extra: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        total, normed = sv3d_kernels.sum_norm(tokens, change, extra, weight, bias, eps)
        if change is None and extra is None:
            total = tokens.view_as(tokens)  # given on, so that one kernel adds both gradients
        ctx.save_for_backward(total, weight)
        ctx.set_materialize_grads(False)
        ctx.eps, ctx.bias_type = eps, bias.dtype
        ctx.change_type = None if change is None else change.dtype
        ctx.extra = None if extra is None else (extra.shape, extra.dtype)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given_total: Tensor | None, given_normed: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight = ctx.saved_tensors
        total = total.contiguous()
        given = torch.zeros_like(total) if given_normed is None else given_normed.contiguous()
        whole = given if given_total is None else given_total.contiguous()
        channels, shape = total.shape[-1], ctx.extra[0] if ctx.extra else None
        count = total.numel() // channels
        segments = 1  # of rows that share what is extra
        if shape is not None:
            by_batch = len(shape) == total.ndim
            segments = shape.numel() // channels if by_batch else count // total.shape[-2]
        rows, block = count // segments, triton.next_power_of_2(channels)
        tile = max(1, _ELEMENTS // block)
        span = triton.cdiv(triton.cdiv(rows, max(1, _PROGRAMS // segments)), tile) * tile
        parts = triton.cdiv(rows, span)
        out = torch.empty_like(total)
        sums = torch.empty(segments, parts, 3, channels, dtype=torch.float32, device=total.device)
        with on_device_of(total):
            sv3d_backward.sum_norm_inputs[segments, parts](
                total, whole, given, weight, out, sums, rows, span, parts, channels, ctx.eps,
                has_total=given_total is not None, tile=tile, width=block,
            )  # fmt: skip
        of_weight, of_bias, _ = sums.sum((0, 1))
        of_change = None if ctx.change_type is None else out.to(ctx.change_type)
        of_extra = None
        if shape is not None:
            # Places of views come again for every element of the batch.
            shared = sums[:, :, 2].view(-1, shape.numel() // channels, parts, channels)
            of_extra = shared.sum((0, 2)).view(shape).to(ctx.extra[1])
        return out, of_change, of_extra, of_weight.to(weight.dtype), of_bias.to(ctx.bias_type), None


class _AttendViews(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        ctx.save_for_backward(query, key, value)
        ctx.heads = heads
        return sv3d_kernels.attend_views(query, key, value, heads)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        batch, views, pixels, channels = query.shape
        dim, given = channels // ctx.heads, given.contiguous()
        padded, width = triton.next_power_of_2(views), triton.next_power_of_2(dim)
        tile = max(2, _ELEMENTS // (padded * width))
        out = [torch.empty_like(tensor) for tensor in (query, key, value)]
        with on_device_of(query):
            sv3d_backward.attend_views_inputs[triton.cdiv(pixels, tile) * ctx.heads, batch](
                query, key, value, given, *out, pixels, ctx.heads, dim**-0.5,
                views=views, padded=padded, dim=dim, width=width, tile=tile,
            )  # fmt: skip
        return *out, None
