"""What becomes of averaged weights in a run: figures on held-out people, pictures, and folders to load them from."""

import json
import shutil
from collections.abc import Collection
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from humansplat.config import TrainConfig
from humansplat.errors import UserError
from humansplat.training.learner import Learner
from humansplat.training.logging import RunLog
from humansplat.training.task import Announcing, Task

Pool = TypeVar("Pool")
Batch = TypeVar("Batch")


class Validation(Generic[Pool, Batch]):
    """Scores averaged weights and keeps the best of them.

    Args:
        config: The run.
        task: Gives the figures.
        accelerator: Its first process validates; the others wait.
        pool: Held-out people of the first process; ``None`` in the others, or when nothing is validated.

    Raises:
        UserError: If the task knows its figures beforehand, and ``config.best_metric`` is none of them.
    """

    def __init__(
        self, config: TrainConfig, task: Task[Pool, Batch], accelerator: Accelerator, pool: Pool | None
    ) -> None:
        self.config, self.task, self.accelerator, self.pool = config, task, accelerator, pool
        self.metrics: dict[str, float] = {}
        """Of the last time."""
        self.best: float | None = None
        """Best value of ``config.best_metric`` so far."""
        if isinstance(task, Announcing) and (pool is not None or config.data.validation is not None):
            refusal = self._refusal(task.figures)
            if refusal is not None:
                raise UserError(refusal)

    def validate(self, learner: Learner, step: int, log: RunLog) -> None:
        """Score the averaged weights, log figures and pictures, and keep the weights if they are the best so far.

        All processes must call it.

        Raises:
            UserError: In every process, if ``config.best_metric`` is none of the figures.
        """
        refusal = None
        with learner.averaged() as module:
            if module is not None and self.pool is not None:
                refusal = self._score(module, self.pool, step, log)
        if self.accelerator.num_processes > 1:
            [refusal] = broadcast_object_list([refusal])  # which also waits for the first process
        if refusal is not None:
            raise UserError(refusal)

    def export(self, learner: Learner, name: str, step: int) -> None:
        """Write the averaged weights into a folder of the run, to be loaded from; all processes must call it."""
        with learner.averaged() as module:
            if module is not None:
                self._write(module, name, step)

    def _score(self, module: nn.Module, pool: Pool, step: int, log: RunLog) -> str | None:
        """Also tells what is wrong with ``best_metric``."""
        generator = torch.Generator(self.accelerator.device).manual_seed(0)  # the same people every time
        with torch.autocast(self.accelerator.device.type, enabled=False):
            batch = self.task.sample(pool, self.config.num_pictures, generator)
        self.metrics = self.task.validate(module, pool)
        log.picture(step, "validation", self.task.pictures(module, batch))
        log.scalars(step, "validation", self.metrics)
        log.say(f"step {step}: " + " ".join(f"{name} {value:.4f}" for name, value in self.metrics.items()))
        refusal = self._refusal(self.metrics)
        if refusal is not None:
            return refusal
        value = self.metrics[self.config.best_metric]
        if self.best is None or value > self.best:
            self.best = value
            self._write(module, "best", step)
        return None

    def _refusal(self, figures: Collection[str]) -> str | None:
        if self.config.best_metric in figures:
            return None
        return f"best_metric ({self.config.best_metric}) is not validated here; there are {', '.join(figures)}"

    def _write(self, module: nn.Module, name: str, step: int) -> None:
        """The folder is whole at every moment."""
        folder = self.config.output_dir / name
        temporary, old = folder.with_name(f"{name}.tmp"), folder.with_name(f"{name}.old")
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        self.task.save_pretrained(module, temporary)
        text = json.dumps({"step": step, "metrics": self.metrics}, indent=1)
        (temporary / "metrics.json").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
