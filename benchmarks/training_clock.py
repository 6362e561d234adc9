"""Where the time of a training step goes, on the device's own time line."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from training_flops import around_encoding

from humansplat.structures import Gaussians
from humansplat.training.trainer import Trainer

PARTS = ("data", "encode", "network", "render + loss", "their backward", "network's backward", "optimizer")
"""``data``: drawing the batch, wrong bodies, conditioning. ``optimizer``: clipping, AdamW, the averaged weights."""


class Marks:
    """Named moments of one step."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._moments: list[tuple[str, Any]] = []

    def __call__(self, name: str) -> None:
        """Mark this moment of the current stream, without waiting."""
        if self._device.type == "cuda":
            moment: Any = torch.cuda.Event(enable_timing=True)
            moment.record()
        else:
            moment = time.perf_counter()
        self._moments.append((name, moment))

    def times(self) -> list[tuple[str, float]]:
        """Milliseconds of all marks since the last call, from some moment on; waits for the device."""
        moments, self._moments = self._moments, []
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            first = moments[0][1]
            return [(name, first.elapsed_time(moment)) for name, moment in moments]
        return [(name, 1000 * moment) for name, moment in moments]

    def parts(self) -> dict[str, float]:
        """Milliseconds of :data:`PARTS` since the last call; waits for the device."""
        times = self.times()
        last = dict(times)  # of marks that come several times the last counts
        encode = sum(t for name, t in times if name == "encoded") - sum(t for name, t in times if name == "encode")
        points = [
            last[name] for name in ("begin", "network", "splats", "losses", "splat gradients", "gradients", "end")
        ]
        spans = [end - begin for begin, end in zip(points[:-1], points[1:], strict=True)]
        return dict(zip(PARTS, (spans[0] - encode, encode, *spans[1:]), strict=True))


class _MarkedNetwork(nn.Module):
    def __init__(self, module: nn.Module, marks: Marks) -> None:
        super().__init__()
        self.module, self.marks = module, marks

    def forward(self, *arguments: Any, **named: Any) -> Gaussians:
        self.marks("network")
        splats = self.module(*arguments, **named)
        self.marks("splats")
        for tensor in (splats.means, splats.quats, splats.scales, splats.opacities, splats.colors):
            tensor.register_hook(lambda _: self.marks("splat gradients"))
        return splats


class _MarkedTask:
    def __init__(self, task: Any, marks: Marks) -> None:
        self.task, self.marks = task, marks

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def training_loss(self, *arguments: Any, **named: Any) -> dict[str, Tensor]:
        losses = self.task.training_loss(*arguments, **named)
        self.marks("losses")
        return losses


@contextmanager
def marked(trainer: Trainer, wrapped: nn.Module) -> Iterator[tuple[nn.Module, Marks]]:
    """Within the block steps with the given stand-in for the network leave marks."""
    marks = Marks(trainer.accelerator.device)
    trained = [parameter for parameter in trainer.module.parameters() if parameter.requires_grad]
    hooks = [parameter.register_post_accumulate_grad_hook(lambda _: marks("gradients")) for parameter in trained]
    task = trainer.task
    trainer.task = _MarkedTask(task, marks)
    try:
        with around_encoding(trainer, lambda _: marks("encode"), lambda: marks("encoded")):
            yield _MarkedNetwork(wrapped, marks), marks
    finally:
        trainer.task = task
        for hook in hooks:
            hook.remove()


def step_parts(
    trainer: Trainer, wrapped: nn.Module, step: Callable[[nn.Module], None], count: int
) -> dict[str, float]:
    """Median milliseconds of each part over a few steps."""
    taken = []
    with marked(trainer, wrapped) as (network, marks):
        for _ in range(count):
            marks("begin")
            step(network)
            marks("end")
            taken.append(marks.parts())
    return {part: statistics.median(parts[part] for parts in taken) for part in PARTS}
