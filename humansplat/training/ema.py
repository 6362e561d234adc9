"""An exponential moving average of a module's parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from humansplat.training.sharding import assign, local


class AveragedWeights:
    """Averages in float32, on the parameters' device and sharded as they are, updated by a few fused kernels.

    The decay of step ``t`` is ``min(decay, (1 + t) / (10 + t))``, so that the average forgets the random
    start quickly. Buffers are not averaged: the average is used with the module's present ones.

    Args:
        module: The module; its parameters at this moment are the first average.
        decay: Long-run decay.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        # What is not trained is its own average: a copy of a frozen billion would take gigabytes and a pass over them.
        self._averages = {
            name: p.detach().float().clone() if p.requires_grad else p.detach()
            for name, p in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after step ``step`` (counted from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [local(self._averages[name]) for name in self._parameters]
        torch._foreach_lerp_(averages, [local(p).float() for p in self._parameters.values()], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by parameter name; not copies."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take whole averages by the names of :meth:`state_dict`."""
        assert state.keys() == self._averages.keys()
        for name, average in self._averages.items():
            assign(average, state[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module's parameters are the averages; afterwards its own again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._assign(self._averages)
        try:
            yield
        finally:
            self._assign(own)

    @torch.no_grad()
    def _assign(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])
