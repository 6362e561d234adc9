"""What becomes of averaged weights in a run: figures on held-out people, a sample sheet, and folders to load them from."""

import json
import shutil
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from torch import nn

from humansplat.config import TrainConfig
from humansplat.errors import UserError
from humansplat.training.learner import Learner
from humansplat.training.logging import RunLog
from humansplat.training.task import Task

Pool = TypeVar("Pool")
Batch = TypeVar("Batch")


class Validation(Generic[Pool, Batch]):
    """Scores averaged weights and keeps the best of them.

    Args:
        config: The run.
        task: Gives the figures.
        accelerator: Its first process validates; the others wait.
        pool: Held-out people of the first process; ``None`` in the others, or when nothing is validated.
    """

    def __init__(
        self, config: TrainConfig, task: Task[Pool, Batch], accelerator: Accelerator, pool: Pool | None
    ) -> None:
        self.config, self.task, self.accelerator, self.pool = config, task, accelerator, pool
        self.metrics: dict[str, float] = {}
        """Of the last time."""
        self.best: float | None = None
        """Best value of ``config.best_metric`` so far."""

    def validate(self, learner: Learner, step: int, log: RunLog) -> None:
        """Score the averaged weights, log figures and pictures, and keep the weights if they are the best so far.

        All processes must call it.

        Raises:
            UserError: If ``config.best_metric`` is none of the figures.
        """
        with learner.averaged() as module:
            if module is not None and self.pool is not None:
                self._score(module, self.pool, step, log)
        self.accelerator.wait_for_everyone()

    def export(self, learner: Learner, name: str, step: int) -> None:
        """Write the averaged weights into a folder of the run as the library loads them; all processes must call it."""
        with learner.averaged() as module:
            if module is not None:
                self._write(module, name, step)

    def _score(self, module: nn.Module, pool: Pool, step: int, log: RunLog) -> None:
        generator = torch.Generator(self.accelerator.device).manual_seed(0)  # the same people every time
        with torch.autocast(self.accelerator.device.type, enabled=False):
            batch = self.task.sample(pool, self.config.num_pictures, generator)
        self.metrics = self.task.validate(module, pool)
        log.picture(step, "validation", self.task.pictures(module, batch))
        log.scalars(step, "validation", self.metrics)
        log.say(f"step {step}: " + " ".join(f"{name} {value:.4f}" for name, value in self.metrics.items()))
        value = self._deciding()
        if self.best is None or value > self.best:
            self.best = value
            self._write(module, "best", step)

    def _deciding(self) -> float:
        name = self.config.best_metric
        if name not in self.metrics:
            raise UserError(f"best_metric ({name}) is not validated here; there are {', '.join(self.metrics)}")
        return self.metrics[name]

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
