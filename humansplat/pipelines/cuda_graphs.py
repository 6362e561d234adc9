"""Replaying functions of tensors from CUDA graphs: a network of thousands of small operations, launched at once.

A graph is what a GPU did during one run, with the addresses of that run: arguments are copied to where it read them,
and its result from where it wrote it. So a function is recorded for each set of shapes that it meets.
"""

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from humansplat.errors import UserError

Function = Callable[..., Tensor]


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    arguments: tuple[Tensor, ...]
    result: Tensor


class CudaGraphs:
    """Functions of tensors, each recorded the first time that it meets arguments of some shapes.

    What the functions read beside their arguments (a network's parameters) must stay where it is in memory; its
    values may change. Not for gradients.

    Args:
        device: A CUDA device.
        most: Graphs that are kept, two or more; before another is recorded the oldest is given up.

    Raises:
        UserError: If the device is not a CUDA device, or fewer than two graphs are to be kept.
    """

    def __init__(self, device: torch.device, most: int = 8) -> None:
        if device.type != "cuda":
            raise UserError(f"CUDA graphs need a CUDA device, the networks are on {device}: move them, or do without")
        if most < 2:  # one makes room for the next, and the memory they share is the remaining ones'
            raise UserError(f"{most} CUDA graphs are to be kept; keep two or more")
        self.device = device
        self.most = most
        self._recorded: dict[Hashable, _Recorded] = {}
        # One graph runs at a time and its result is copied away, so all of them may work in the same memory.
        self._pool: Any = None

    def __len__(self) -> int:
        """Graphs that are recorded now."""
        return len(self._recorded)

    def run(self, name: Hashable, function: Function, *arguments: Tensor) -> Tensor:
        """Run a function as its graph; the first time that costs about three runs of the function.

        Args:
            name: Stands for the function: equal names, equal functions.
            function: Of the arguments, without effects and without waiting for the device.
            *arguments: Tensors on the device.
        """
        key = (name, *((tuple(argument.shape), argument.dtype) for argument in arguments))
        if key not in self._recorded:
            while len(self._recorded) >= self.most:
                self._recorded.pop(next(iter(self._recorded)))
            self._recorded[key] = self._record(function, arguments)
        recorded = self._recorded[key]
        for place, argument in zip(recorded.arguments, arguments, strict=True):
            place.copy_(argument)
        recorded.graph.replay()
        return recorded.result.clone()

    def release(self) -> None:
        """Give up all graphs and their memory."""
        self._recorded.clear()
        self._pool = None

    def _record(self, function: Function, arguments: tuple[Tensor, ...]) -> _Recorded:
        places = tuple(argument.clone(memory_format=torch.contiguous_format) for argument in arguments)
        with torch.cuda.device(self.device), torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                function(*places)  # libraries choose their kernels and take their workspaces outside of the graph
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # thread_local: what other threads do on the GPU meanwhile is none of the recording's business.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                result = function(*places)
            self._pool = graph.pool()
        return _Recorded(graph, places, result)
