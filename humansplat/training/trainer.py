"""The training loop that every task shares; ``tools/train.py`` runs it.

One step reads: set the learning rate, draw a batch, losses, backward, clip, step, average. Nothing in it
waits for the device. Every ``log_every`` steps the loop *reads*: losses, the clock and stop signals,
the same in all processes, and decides there whether to write a checkpoint or to stop.
"""

import contextlib
import time
from collections.abc import Sized
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from humansplat.config import TrainConfig, as_plain, save_config
from humansplat.draws import BatchGenerator, mixed_seed
from humansplat.errors import UserError
from humansplat.training.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from humansplat.training.learner import Learner
from humansplat.training.logging import RunLog
from humansplat.training.meter import LossMeter
from humansplat.training.optimizer import set_learning_rate
from humansplat.training.schedule import RunClock, lr_factor
from humansplat.training.sharding import without_exchange
from humansplat.training.signals import stop_signals
from humansplat.training.task import Positioned, Task
from humansplat.training.validation import Validation

Pool = TypeVar("Pool")
Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run, or the part of it that this call did, ended."""

    step: int
    finished: bool
    """False when it was stopped before the schedule's end; it can be resumed."""
    metrics: dict[str, float]
    """Of the last validation."""
    best: float | None
    """Best value of ``config.best_metric`` so far."""


class Trainer(Generic[Pool, Batch]):
    """Trains one task; the run's files are in ``config.output_dir``.

    ``config.yaml`` (resolved), ``log.jsonl``, ``tensorboard/``, ``checkpoints/checkpoint-<step>/``,
    ``best/`` and ``final/`` (``task.save_pretrained`` with the averaged weights, and ``metrics.json``).

    A resumed run gives the same losses as an unbroken one where the device computes deterministically,
    the data stay the same and the checkpoint keeps float32. So does, up to rounding, another number of
    processes with the same global batch: see ``humansplat.draws``.

    Args:
        config: The run.
        task: What is learned.
        accelerator: Made without mixed precision: the trainer casts by itself.
        train_pool: Of this process.
        validation_pool: Of the first process; ``None`` in the others, or when nothing is validated.
    """

    def __init__(
        self,
        config: TrainConfig,
        task: Task[Pool, Batch],
        accelerator: Accelerator,
        train_pool: Pool,
        validation_pool: Pool | None = None,
    ) -> None:
        self.config, self.task, self.accelerator = config, task, accelerator
        self.train_pool = train_pool
        self.learner = Learner(config, task, accelerator)
        self.validation = Validation(config, task, accelerator, validation_pool)
        self.clock = RunClock(num_steps=config.num_steps, max_minutes=config.max_minutes)
        self.generator = BatchGenerator(accelerator.device)
        self.step = 0

    @property
    def module(self) -> nn.Module:
        """What is trained, as it was built; never wrapped."""
        return self.learner.module

    def run(self, *, resume: bool = False, stop_after_minutes: float | None = None) -> TrainResult:
        """Train until the schedule ends, or for ``stop_after_minutes`` at most.

        Stopped early, also by SIGINT or SIGTERM, it leaves a checkpoint to resume from.

        Raises:
            UserError: If there is no checkpoint to resume from, it does not fit, or the folder holds
                another run and ``resume`` is false.
            FloatingPointError: After ``optim.max_bad_steps`` steps in a row without a finite gradient.
        """
        self._start(resume)
        wrapped = self.learner.wrap()
        meter = LossMeter(self.accelerator)
        folder, is_main = self.config.output_dir, self.accelerator.is_main_process
        started, minutes_before = time.monotonic(), self.clock.minutes_used
        last_saved = minutes_before
        stop_at = float("inf") if stop_after_minutes is None else minutes_before + stop_after_minutes
        finished = self.clock.is_over(self.step)
        with RunLog(folder, self.config.num_steps, silent=not is_main) as log, stop_signals() as stop:
            log.start_at(self.step)
            while not finished:
                self.train_step(wrapped, meter)
                ended = self.step >= self.config.num_steps
                if self.step % self.config.log_every == 0 or ended:
                    minutes = minutes_before + (time.monotonic() - started) / 60
                    minutes, stopping = self._agree(minutes, stop.is_set())
                    self.clock.read(minutes)
                    self._report(meter, log)
                    finished = self.clock.is_over(self.step)
                    stopping = stopping or minutes >= stop_at
                else:
                    stopping, minutes = False, last_saved
                if self.step % self.config.validate_every == 0 or finished:
                    self.validation.validate(self.learner, self.step, log)
                if finished or stopping or minutes - last_saved >= self.config.checkpoint.every_minutes:
                    self._save()
                    last_saved = minutes
                if stopping:
                    break
        if finished:
            self.validation.export(self.learner, "final", self.step)
        self.accelerator.wait_for_everyone()
        return TrainResult(
            step=self.step, finished=finished, metrics=self.validation.metrics, best=self.validation.best
        )

    def train_step(self, wrapped: nn.Module, meter: LossMeter) -> None:
        """Take one step.

        Args:
            wrapped: As :meth:`Learner.wrap` gives the module.
            meter: Takes the losses in.
        """
        config = self.config
        optim = config.optim
        progress = self.clock.progress(self.step)
        factor = lr_factor(
            progress, self.step, warmup_steps=optim.warmup_steps, final_fraction=optim.final_lr_fraction
        )
        set_learning_rate(self.learner.optimizer, optim.lr * factor)
        values: dict[str, Tensor] = {}
        for piece in range(config.accumulate):
            last = piece == config.accumulate - 1
            self._begin_batch(piece)
            with contextlib.nullcontext() if last else without_exchange(wrapped):
                # In full precision: eight bits would move cameras, and pictures cut anew by them, by whole pixels.
                batch = self.task.sample(self.train_pool, config.batch_size, self.generator)
                with self.learner.autocast():
                    losses = self.task.training_loss(wrapped, batch, self.generator, self.step)
                total = torch.stack([v.float() for name, v in losses.items() if not name.startswith("_")]).sum()
                self.learner.backward(total / config.accumulate)
            for name, value in ({"total": total} | losses).items():
                share = value.detach() / config.accumulate
                values[name] = values[name] + share if name in values else share
        figures, left_out, bad = self.learner.step(self.step)
        self.step += 1
        meter.add(values | figures, left_out, bad)

    def _begin_batch(self, piece: int) -> None:
        """All randomness of a step comes of its number, so no generator's state needs to be kept."""
        processes, seed = self.accelerator.num_processes, self.config.seed
        part = piece * processes + self.accelerator.process_index
        num_parts = self.config.accumulate * processes
        self.generator.begin(seed, self.step, part=part, num_parts=num_parts, size=self.config.batch_size)
        torch.manual_seed(mixed_seed(seed, self.step, part))  # for dropout

    def _report(self, meter: LossMeter, log: RunLog) -> None:
        values = meter.read()
        lr = self.learner.optimizer.param_groups[0]["lr"]
        values |= {"lr": lr, "minutes": self.clock.minutes_used}
        if self.accelerator.device.type == "cuda":
            values["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        if isinstance(self.train_pool, Sized):
            values["people"] = float(len(self.train_pool))
        log.scalars(self.step, "train", values)
        note = f"loss {values['total']:.4f} lr {lr:.1e}"
        log.progress(self.step, self.clock.expected_steps(self.step), note)
        in_a_row = meter.bad_in_a_row
        if in_a_row >= self.config.optim.max_bad_steps:
            raise FloatingPointError(
                f"step {self.step}: the gradient was not finite {in_a_row} times in a row; the losses were {values}"
            )

    def _agree(self, minutes: float, stopping: bool) -> tuple[float, bool]:
        """The first process's clock, and whether any process was told to stop."""
        if self.accelerator.num_processes == 1:
            return minutes, stopping
        stopping = any(gather_object([stopping]))
        shared: list[float] = broadcast_object_list([minutes])
        return shared[0], stopping

    def _save(self) -> None:
        state = self.learner.state()
        if not self.accelerator.is_main_process:
            return
        checkpoint = Checkpoint(
            **state,
            step=self.step,
            position=self.train_pool.position if isinstance(self.train_pool, Positioned) else None,
            minutes_used=self.clock.minutes_used,
            metrics=self.validation.metrics,
            best=self.validation.best,
            config=as_plain(self.config),
        )
        save_checkpoint(checkpoint, self.config.output_dir / "checkpoints", self.config.checkpoint)

    def _start(self, resume: bool) -> None:
        folder = self.config.output_dir
        if resume:
            self._restore(load_checkpoint(folder / "checkpoints"))
        elif list_checkpoints(folder / "checkpoints"):
            raise UserError(f"{folder} holds a run already: resume it, or give another output_dir")
        elif self.config.init_from is not None:
            self.learner.start_from(self.config.init_from)
        self.accelerator.wait_for_everyone()  # nobody may see the files of this run before having looked
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_config(self.config, folder / "config.yaml")

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.learner.restore(checkpoint)
        self.step = checkpoint.step
        self.clock.read(checkpoint.minutes_used)
        self.validation.best, self.validation.metrics = checkpoint.best, checkpoint.metrics
        if isinstance(self.train_pool, Positioned) and checkpoint.position is not None:
            self.train_pool.seek(checkpoint.position)
