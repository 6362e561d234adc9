"""The training loop that every task shares; ``tools/train.py`` runs it.

One step reads: set the learning rate, draw a batch, losses, backward, clip, step, average. Nothing in it
waits for the device. Every ``log_every`` steps the loop *reads*: losses, the clock and stop signals,
the same in all processes, and decides there whether to write a checkpoint or to stop.
"""

import contextlib
import json
import logging
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from safetensors.torch import load_file
from torch import Tensor, nn

from humansplat.config import TrainConfig, as_plain, save_config
from humansplat.draws import BatchGenerator, mixed_seed
from humansplat.errors import UserError
from humansplat.training.checkpoint import (
    Checkpoint,
    check_fit,
    check_part_size,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from humansplat.training.compilation import compile_network, without_compiled_code
from humansplat.training.ema import AveragedWeights
from humansplat.training.logging import RunLog
from humansplat.training.meter import LossMeter
from humansplat.training.optimizer import (
    LossScale,
    clipped_step,
    make_optimizer,
    moments,
    restore_moments,
    set_learning_rate,
)
from humansplat.training.precision import autocast
from humansplat.training.schedule import RunClock, lr_factor
from humansplat.training.sharding import assign, shard, sharding_plan, whole, without_exchange, wrap
from humansplat.training.task import Positioned, Task

Pool = TypeVar("Pool")
Batch = TypeVar("Batch")
logger = logging.getLogger(__name__)


PRETRAINED = "diffusion_pytorch_model.safetensors"
"""What diffusers' ``save_pretrained`` writes."""


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
        self.train_pool, self.validation_pool = train_pool, validation_pool
        device = accelerator.device
        torch.manual_seed(config.seed)
        with device:  # a billion first weights take seconds on one CPU core
            module = task.build_module()
        self.module = module.to(device).train()
        if config.gradient_checkpointing:
            enable_checkpointing(self.module)
        self._plan = sharding_plan(accelerator)
        if self._plan is not None:
            shard(self.module, self._plan, accelerator)
        self.scale = LossScale(device) if config.mixed_precision == "fp16" else None
        for frozen in task.frozen_modules():
            frozen.to(device).eval().requires_grad_(False)
        self.optimizer = make_optimizer(self.module, config.optim)
        self.averages = AveragedWeights(self.module, config.optim.ema_decay)
        self.clock = RunClock(num_steps=config.num_steps, max_minutes=config.max_minutes)
        self.generator = BatchGenerator(device)
        self.step = 0
        self.best: float | None = None
        self.metrics: dict[str, float] = {}
        check_part_size(self.module, config.checkpoint)

    def run(self, *, resume: bool = False, stop_after_minutes: float | None = None) -> TrainResult:
        """Train until the schedule ends, or for ``stop_after_minutes`` at most.

        Stopped early, also by SIGINT or SIGTERM, it leaves a checkpoint to resume from.

        Raises:
            UserError: If there is no checkpoint to resume from, it does not fit, or the folder holds
                another run and ``resume`` is false.
            FloatingPointError: After ``optim.max_bad_steps`` steps in a row without a finite gradient.
        """
        self._start(resume)
        wrapped = self._wrap()
        meter = LossMeter(self.accelerator)
        folder, is_main = self.config.output_dir, self.accelerator.is_main_process
        started, minutes_before = time.monotonic(), self.clock.minutes_used
        last_saved = minutes_before
        stop_at = float("inf") if stop_after_minutes is None else minutes_before + stop_after_minutes
        finished = self.clock.is_over(self.step)
        with RunLog(folder, self.config.num_steps, silent=not is_main) as log, stop_signals() as stop:
            log.start_at(self.step)
            while not finished:
                self._train_step(wrapped, meter)
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
                    self._validate(log)
                if finished or stopping or minutes - last_saved >= self.config.checkpoint.every_minutes:
                    self._save()
                    last_saved = minutes
                if stopping:
                    break
        if finished:
            with self._averaged() as module:
                if module is not None:
                    self._export(module, "final")
        self.accelerator.wait_for_everyone()
        return TrainResult(step=self.step, finished=finished, metrics=self.metrics, best=self.best)

    def _train_step(self, wrapped: nn.Module, meter: LossMeter) -> None:
        config = self.config
        optim = config.optim
        progress = self.clock.progress(self.step)
        factor = lr_factor(
            progress, self.step, warmup_steps=optim.warmup_steps, final_fraction=optim.final_lr_fraction
        )
        set_learning_rate(self.optimizer, optim.lr * factor)
        values: dict[str, Tensor] = {}
        for piece in range(config.accumulate):
            last = piece == config.accumulate - 1
            self._begin_batch(piece)
            with contextlib.nullcontext() if last else without_exchange(wrapped):
                # In full precision: eight bits would move cameras, and pictures cut anew by them, by whole pixels.
                batch = self.task.sample(self.train_pool, config.batch_size, self.generator)
                with self._autocast():
                    losses = self.task.training_loss(wrapped, batch, self.generator, self.step)
                total = torch.stack([v.float() for name, v in losses.items() if not name.startswith("_")]).sum()
                (total * (1.0 if self.scale is None else self.scale.value) / config.accumulate).backward()
            for name, value in ({"total": total} | losses).items():
                share = value.detach() / config.accumulate
                values[name] = values[name] + share if name in values else share
        values["grad_norm"], left_out = clipped_step(
            self.optimizer, optim.max_grad_norm, None if self.scale is None else self.scale.value
        )
        bad = left_out
        if self.scale is not None:
            values["loss_scale"] = self.scale.value
            bad = self.scale.update(left_out)
        self.averages.update(self.step)
        self.step += 1
        meter.add(values, left_out, bad)

    def _begin_batch(self, piece: int) -> None:
        """All randomness of a step comes of its number, so no generator's state needs to be kept."""
        processes, seed = self.accelerator.num_processes, self.config.seed
        part = piece * processes + self.accelerator.process_index
        num_parts = self.config.accumulate * processes
        self.generator.begin(seed, self.step, part=part, num_parts=num_parts, size=self.config.batch_size)
        torch.manual_seed(mixed_seed(seed, self.step, part))  # for dropout

    def _report(self, meter: LossMeter, log: RunLog) -> None:
        values = meter.read()
        lr = self.optimizer.param_groups[0]["lr"]
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

    def _autocast(self) -> torch.autocast:
        return autocast(self.accelerator.device, self.config.mixed_precision)

    def _wrap(self) -> nn.Module:
        compile_network(self.module, self.config.compile)
        return wrap(self.module, self.accelerator)

    @contextlib.contextmanager
    def _averaged(self) -> Iterator[nn.Module | None]:
        """The module with averaged weights, in ``eval`` mode and without gradients, in the first process.

        All processes must enter: of a sharded module the first one gets a whole copy, with the others' help.
        """
        is_main = self.accelerator.is_main_process
        if self._plan is not None:
            state = whole(self.module.state_dict() | self.averages.state_dict(), keep=is_main)
            if is_main:
                module = self.task.build_module().eval()
                module.load_state_dict(state)
                with torch.no_grad(), self._autocast():
                    yield module.to(self.accelerator.device)
            else:
                yield None
            return
        self.module.eval()
        plain = without_compiled_code(self.config.compile)
        with self.averages.applied(), torch.no_grad(), self._autocast(), plain:
            yield self.module if is_main else None
        self.module.train()

    def _validate(self, log: RunLog) -> None:
        with self._averaged() as module:
            if module is not None and self.validation_pool is not None:
                self._validate_with(module, self.validation_pool, log)
        self.accelerator.wait_for_everyone()

    def _validate_with(self, module: nn.Module, pool: Pool, log: RunLog) -> None:
        generator = torch.Generator(self.accelerator.device).manual_seed(0)  # the same people every time
        with torch.autocast(self.accelerator.device.type, enabled=False):
            batch = self.task.sample(pool, self.config.num_pictures, generator)
        self.metrics = self.task.validate(module, pool)
        log.picture(self.step, "validation", self.task.pictures(module, batch))
        log.scalars(self.step, "validation", self.metrics)
        log.say(f"step {self.step}: " + " ".join(f"{name} {value:.4f}" for name, value in self.metrics.items()))
        value = self._deciding()
        if self.best is None or value > self.best:
            self.best = value
            self._export(module, "best")

    def _deciding(self) -> float:
        name = self.config.best_metric
        if name not in self.metrics:
            raise UserError(f"best_metric ({name}) is not validated here; there are {', '.join(self.metrics)}")
        return self.metrics[name]

    def _export(self, module: nn.Module, name: str) -> None:
        """Write the module as the library loads it; the folder is whole at every moment."""
        folder = self.config.output_dir / name
        temporary, old = folder.with_name(f"{name}.tmp"), folder.with_name(f"{name}.old")
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir(parents=True)
        self.task.save_pretrained(module, temporary)
        text = json.dumps({"step": self.step, "metrics": self.metrics}, indent=1)
        (temporary / "metrics.json").write_text(text, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def _save(self) -> None:
        is_main = self.accelerator.is_main_process
        weights = whole(self.module.state_dict(), keep=is_main)
        averages = whole(self.averages.state_dict(), keep=is_main)
        kept_moments = whole(moments(self.module, self.optimizer), keep=is_main)
        if not is_main:
            return
        checkpoint = Checkpoint(
            step=self.step,
            weights=weights,
            averages=averages,
            moments=kept_moments,
            loss_scale=self.scale.state_dict() if self.scale is not None else {},
            position=self.train_pool.position if isinstance(self.train_pool, Positioned) else None,
            minutes_used=self.clock.minutes_used,
            metrics=self.metrics,
            best=self.best,
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
            self._load_initial(self.config.init_from)
            self.averages = AveragedWeights(self.module, self.config.optim.ema_decay)
        self.accelerator.wait_for_everyone()  # nobody may see the files of this run before having looked
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            save_config(self.config, folder / "config.yaml")

    def _load_initial(self, folder: Path) -> None:
        """Weights to start from: another run's averages, or a model as diffusers saves it."""
        pretrained = folder / PRETRAINED
        if not pretrained.is_file():
            self._load_weights(load_checkpoint(folder), averaged=True)
            return
        state = load_file(pretrained)
        check_fit(state, self.module, self.module.state_dict(), str(pretrained))
        self._assign(state)

    def _load_weights(self, checkpoint: Checkpoint, *, averaged: bool) -> None:
        what = f"the checkpoint of step {checkpoint.step}"
        parameters = [name for name, _ in self.module.named_parameters()]
        check_fit(checkpoint.weights, self.module, self.module.state_dict(), what)
        check_fit(checkpoint.averages, self.module, parameters, what)
        weights = checkpoint.weights | checkpoint.averages if averaged else checkpoint.weights
        self._assign(weights)

    def _assign(self, weights: dict[str, Tensor]) -> None:
        for name, tensor in self.module.state_dict().items():
            assign(tensor, weights[name])

    def _restore(self, checkpoint: Checkpoint) -> None:
        self._load_weights(checkpoint, averaged=False)
        self.averages.load_state_dict(checkpoint.averages)
        restore_moments(self.module, self.optimizer, checkpoint.moments)
        if self.scale is not None and checkpoint.loss_scale:
            self.scale.load_state_dict(checkpoint.loss_scale)
        self.step = checkpoint.step
        self.clock.read(checkpoint.minutes_used)
        self.best, self.metrics = checkpoint.best, checkpoint.metrics
        if isinstance(self.train_pool, Positioned) and checkpoint.position is not None:
            self.train_pool.seek(checkpoint.position)


def enable_checkpointing(module: nn.Module) -> None:
    """Have a module compute its activations anew in the backward pass instead of keeping them.

    Raises:
        UserError: If it cannot.
    """
    enable = getattr(module, "enable_gradient_checkpointing", None)
    # Every model of diffusers has the method, and tells so whether it does anything.
    if enable is None or not getattr(module, "_supports_gradient_checkpointing", True):
        raise UserError(
            f"{type(module).__name__} cannot compute activations anew: set gradient_checkpointing to false"
        )
    enable()


@contextlib.contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Within the block the first SIGINT or SIGTERM sets the event; a second one acts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, on_signal)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
