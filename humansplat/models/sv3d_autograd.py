"""Steps of SV3D's training that autograd would take in more passes, or not at all, in PyTorch's own operations."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Idle(torch.autograd.Function):
    """A tensor as it is; parameters that it does not depend on have gradients of zero."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *parameters: Tensor) -> Tensor:
        ctx.parameters = [(parameter.shape, parameter.dtype, parameter.device) for parameter in parameters]
        return value.view_as(value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        wanted = zip(ctx.parameters, ctx.needs_input_grad[1:], strict=True)
        return given, *(
            torch.zeros(shape, dtype=dtype, device=device) if asked else None
            for (shape, dtype, device), asked in wanted
        )


class Laid(torch.autograd.Function):
    """A convolution's weight [c, c2, k, k2] or [c, c2, k, k2, 1] in a type, channels last, as its product takes it.

    One pass each way instead of one for the type and others for the order in memory.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, dtype: torch.dtype) -> Tensor:
        ctx.like = (weight.shape, weight.stride(), weight.dtype)
        flat = weight if weight.ndim == 4 else weight[..., 0]
        return flat.to(dtype, memory_format=torch.channels_last, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        shape, stride, dtype = ctx.like
        out = torch.empty_strided(shape, stride, dtype=dtype, device=given.device)
        (out if out.ndim == 4 else out[..., 0]).copy_(given)
        return out, None
