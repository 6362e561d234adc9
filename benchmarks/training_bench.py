"""One row of the training benchmarks: the trainer's own steps of a configuration, timed."""

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import nn
from training_clock import step_parts
from training_flops import matrix_rate
from training_inputs import write_autoencoder

from humansplat.config import Compiled, PerceptualConfig, TrainConfig, load_config
from humansplat.data.dataset import PeoplePool
from humansplat.training.meter import LossMeter
from humansplat.training.reconstruction_task import ReconstructionTask
from humansplat.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
TINY = (
    "data.image_size=64",
    "reconstruction.model.width=64",
    "reconstruction.model.num_heads=2",
    "reconstruction.model.num_intra_layers=1",
    "reconstruction.model.num_inter_layers=1",
    "reconstruction.model.num_body_tokens=32",
    "reconstruction.model.kept_cells=16",
)
CONFIGS = {
    "base_512": "reconstruction_base_512.yaml",
    "base_256": "reconstruction_base_256.yaml",
    "small": "reconstruction_small.yaml",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One row of a table."""

    batch: int
    checkpointing: bool = False
    compile: Compiled = "no"
    """As in the run's configuration; with anything but ``no`` the frozen encoder is compiled, too."""
    losses: str = "all"
    """``all`` of the configuration's; ``plain``: neither the hierarchical loss nor a perceptual distance; ``parts``:
    the hierarchical loss as well; ``parts, features``: in it the distance of the encoder's features."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one row showed."""

    samples_per_second: float
    """Of one process."""
    step_ms: float
    memory_gib: float
    compile_seconds: float
    ms: dict[str, float]
    operations: str = ""
    """What takes longest, if it was asked for."""


class Bench:
    """The device, its inputs, and the results so far."""

    def __init__(
        self,
        device: str,
        *,
        tiny: bool,
        minutes: float,
        scratch: Path,
        cells: list[str],
        compiled: Compiled | None,
        profiled: bool,
        overrides: list[str],
    ) -> None:
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.device = self.accelerator.device
        self.tiny, self.minutes, self.scratch, self.only_cells = tiny, minutes, scratch, cells
        self.compiled, self.profiled, self.overrides = compiled, profiled, overrides
        self.autocast_type = "bf16" if self.device.type == "cuda" else "no"
        self.results: dict[str, Any] = {"device": self._device_name(), "torch": torch.__version__}
        self._rate = 0.0

    def _device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def changed(self, cell: Cell) -> Cell:
        """A row as it was asked for."""
        # FSDP gathers weights in hooks of the blocks, which compiled blocks would take in.
        eager = self.tiny or self.accelerator.distributed_type == DistributedType.FSDP
        compiled: Compiled = self.compiled or ("no" if eager else cell.compile)
        return replace(cell, compile=compiled, batch=2 if self.tiny else cell.batch)

    def say(self, text: str = "") -> None:
        """Print in the first process."""
        if self.accelerator.is_main_process:
            print(text, flush=True)

    @property
    def rate(self) -> float:
        """Of matrix products, FLOPs a second."""
        if not self._rate:
            size = 8192 if self.device.type == "cuda" else 512
            self._rate = matrix_rate(self.device, size)
            self.say(f"product of matrices of {size} x {size}: {self._rate / 1e12:.3g} TFLOP/s\n")
        return self._rate

    def config(self, name: str) -> TrainConfig:
        """The configuration file with an autoencoder of its own, and nothing to read."""
        overrides = list(TINY if self.tiny else ())
        if name == "small" and not self.tiny:
            autoencoder = ROOT / "weights" / "small" / "vae"
        else:
            autoencoder = self.scratch / "vae"
            if not autoencoder.is_dir():
                write_autoencoder(autoencoder, tiny=self.tiny)
        overrides += [f"reconstruction.autoencoder={json.dumps(autoencoder.as_posix())}", "data.source=pool"]
        overrides += self.overrides
        overrides += [f"mixed_precision='{self.autocast_type}'", f"output_dir={json.dumps(self.scratch.as_posix())}"]
        return load_config(TrainConfig, ROOT / "configs" / CONFIGS[name], overrides)

    @contextmanager
    def training(self, config: TrainConfig, cell: Cell, pool: PeoplePool) -> Iterator[tuple[Trainer, nn.Module]]:
        """A trainer and the network as its steps call it; nothing of it stays."""
        config = config_of(config, cell)
        trainer = Trainer(config, ReconstructionTask(config), self.accelerator, pool)
        try:
            yield trainer, trainer.learner.wrap()
        finally:
            del trainer
            self.clear()

    def clear(self) -> None:
        """Give memory back; compiled code holds weights."""
        torch._dynamo.reset()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        """Until the device has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def measure(
        self, config: TrainConfig, cell: Cell, pool: PeoplePool, seconds: float, *, by_parts: bool = True
    ) -> Measured:
        """Train for a while."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with self.training(config, cell, pool) as (trainer, wrapped):
            meter = LossMeter(self.accelerator)

            def step(network: nn.Module = wrapped) -> None:
                trainer.train_step(network, meter)

            def seconds_of(count: int) -> float:
                self.wait()
                start = time.perf_counter()
                for _ in range(count):
                    step()
                self.wait()
                return (time.perf_counter() - start) / count

            first, rough = seconds_of(1), seconds_of(2)
            shared = torch.tensor(rough, device=self.device)
            rough = float(self.accelerator.reduce(shared, "mean"))  # all processes take as many steps
            taken = seconds_of(1 if self.tiny else int(min(max(seconds / rough, 3), 60)))
            memory = torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else 0.0
            ms = step_parts(trainer, wrapped, step, 1 if self.tiny else 3) if by_parts else {}
            operations = profile(step, self.device) if self.profiled else ""
        return Measured(
            samples_per_second=cell.batch / taken,
            step_ms=1000 * taken,
            memory_gib=memory,
            compile_seconds=max(first - rough, 0.0),
            ms=ms,
            operations=operations,
        )


def config_of(config: TrainConfig, cell: Cell) -> TrainConfig:
    """The configuration of one row."""
    options = config.reconstruction
    if cell.losses != "all":
        kind: Any = "encoder" if "features" in cell.losses else "none"
        options = replace(
            options,
            hierarchical=replace(options.hierarchical, weight=1.0 if "parts" in cell.losses else 0.0),
            perceptual=PerceptualConfig(kind=kind),
        )
    return replace(
        config,
        batch_size=cell.batch,
        accumulate=1,
        compile=cell.compile,
        gradient_checkpointing=cell.checkpointing,
        reconstruction=options,
    )


def profile(step: Callable[[], None], device: torch.device) -> str:
    """The operations that take longest in a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=90)
