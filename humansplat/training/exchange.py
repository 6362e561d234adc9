"""Gradients averaged over processes after a backward pass, where hooks in it see nothing: replayed CUDA graphs.

``DistributedDataParallel`` exchanges gradients from hooks, while others are still being computed. Here they are
exchanged all at once, from one buffer: for small networks, whose gradients take less time than their launching would.
"""

import itertools

import torch
import torch.distributed as dist
from torch import Tensor, nn

ALIGNED = 16
"""Entries: the optimizer's kernel reads several at once of gradients that begin at 16 bytes."""


class GradientExchange:
    """Averages a module's gradients over all processes, which build it and call it together.

    Parameters and buffers become the first process's, in place.

    Args:
        module: Built alike in every process and not sharded; its weights are loaded.
    """

    def __init__(self, module: nn.Module) -> None:
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            _take_the_first_ones(tensor.detach())
        self._parameters = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        self._places: dict[str, Tensor] = {}
        """Parts of the buffers, by parameter."""
        self._buffers: list[Tensor] = []
        """One of each type of number."""

    @torch.no_grad()
    def __call__(self) -> None:
        """Put into every ``grad`` the mean over the processes; once a step, after its last backward pass.

        The first step decides which parameters are exchanged: those with a gradient in any process. One that lacks it
        counts as zero. What is not finite anywhere is not finite in all processes. Nothing waits for the device but
        the first call.

        Raises:
            RuntimeError: If a parameter has a gradient that had none in the first step.
        """
        if not self._places:
            self._lay_out()
        places, gradients = [], []
        for name, parameter in self._parameters:
            place = self._places.get(name)
            if parameter.grad is None:
                if place is not None:
                    place.zero_()
            elif place is None:
                raise RuntimeError(f"{name} has a gradient, which it had in no process in the first step")
            else:
                places.append(place)
                gradients.append(parameter.grad)
        if places:
            torch._foreach_copy_(places, gradients)
        for buffer in self._buffers:
            buffer.div_(dist.get_world_size())  # before the sum, which could overflow
            dist.all_reduce(buffer)
        for name, parameter in self._parameters:
            parameter.grad = self._places.get(name)

    def _lay_out(self) -> None:
        """Agree on what is exchanged, and make room for it."""
        device = self._parameters[0][1].device
        trained = torch.tensor([p.grad is not None for _, p in self._parameters], dtype=torch.int32, device=device)
        dist.all_reduce(trained, dist.ReduceOp.MAX)
        chosen = [pair for pair, found in zip(self._parameters, trained.tolist(), strict=True) if found]
        for dtype in dict.fromkeys(parameter.dtype for _, parameter in chosen):
            group = [(name, parameter) for name, parameter in chosen if parameter.dtype == dtype]
            sizes = [-(-parameter.numel() // ALIGNED) * ALIGNED for _, parameter in group]
            buffer = torch.zeros(sum(sizes), dtype=dtype, device=device)
            for (name, parameter), part in zip(group, buffer.split(sizes), strict=True):
                strides = torch.empty_like(parameter, device="meta").stride()  # the optimizer's kernel wants the same
                self._places[name] = part.as_strided(parameter.shape, strides)
            self._buffers.append(buffer)


def _take_the_first_ones(tensor: Tensor) -> None:
    """The first process's values in all of them."""
    values = tensor.contiguous()
    dist.broadcast(values, src=0)
    if values is not tensor:
        tensor.copy_(values)
