"""What the trainer needs to know of a task; the trainer knows nothing else of models, losses or data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

Pool = TypeVar("Pool", contravariant=True)
Batch = TypeVar("Batch")


@runtime_checkable
class Positioned(Protocol):
    """A source of people whose batches depend on how many samples were drawn: a resumed run goes on from there."""

    @property
    def position(self) -> int:
        """Samples that all processes together have drawn."""
        ...

    def seek(self, position: int) -> None:
        """Go on after so many samples."""
        ...


@runtime_checkable
class Announcing(Protocol):
    """A task that knows before training what it will validate, so that a mistaken ``best_metric`` is refused then."""

    @property
    def figures(self) -> Sequence[str]:
        """Names that :meth:`Task.validate` may give."""
        ...


@runtime_checkable
class Task(Protocol[Pool, Batch]):
    """One thing to learn: how its modules are made, what a batch is, what a step minimises.

    The trainer calls :meth:`build_module` once, moves the module and :meth:`frozen_modules` to the
    device, and then repeats :meth:`sample` and :meth:`training_loss`. All but :meth:`sample` is called under
    bf16 or fp16 autocast when the run asks for it; what needs float32 (rendering, camera algebra, losses
    outside ``humansplat.losses``) goes under ``torch.autocast(device_type, enabled=False)``.
    """

    def build_module(self) -> nn.Module:
        """Make the module whose parameters are trained; global seeds and torch's default device are set before."""
        ...

    def frozen_modules(self) -> Sequence[nn.Module]:
        """Modules that are only used: moved to the device, set to ``eval`` and to no gradients."""
        ...

    def sample(self, pool: Pool, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw a batch. No synchronisation with the device.

        Args:
            pool: The training or the validation pool.
            batch_size: People.
            generator: Lives on the pool's device. What is drawn of each person comes from ``humansplat.draws``,
                so that the global batch is the same in any number of processes.
        """
        ...

    def training_loss(
        self, module: nn.Module, batch: Batch, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Named scalar losses, already weighted: their sum is minimised.

        Names that start with ``_`` are logged without the underscore and not added to the sum.

        Args:
            module: What :meth:`build_module` made, perhaps wrapped for several processes: use it by
                calling it only (``module(...)``), never its attributes or submodules.
            batch: From :meth:`sample`.
            generator: On the module's device, for noise and random crops; see :meth:`sample`.
            step: Steps taken so far.
        """
        ...

    def validate(self, module: nn.Module, pool: Pool) -> dict[str, float]:
        """Figures on held-out people, in ``eval`` mode, without gradients, with the averaged weights; not wrapped."""
        ...

    def pictures(self, module: nn.Module, batch: Batch) -> Tensor:
        """A sample sheet ``[3, h, w]`` in ``[0, 1]`` of one batch; called as :meth:`validate` is."""
        ...

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write what the library loads again, with the averaged weights; called as :meth:`validate` is."""
        ...
