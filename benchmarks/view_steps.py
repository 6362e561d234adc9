"""Ways to run the steps of a small view model's training: as written, from CUDA graphs, compiled.

    python benchmarks/view_steps.py FOLDER [--batch 128] [--steps 60] [--ways no graphs whole] [--plain]

FOLDER holds synthetic people. Each way trains ``configs/sv3d_small.yaml`` anew from the same seed: a first step, four
more to settle, then ``--steps`` timed together, with marks whose medians show where the time goes on the device's own
time line (``data``: people drawn, views jittered; ``network``: forward pass and loss; ``optimizer``: clipping, AdamW,
averaged weights). ``host`` is the time until the host has asked for all of a step: near the step's, the host is what
the GPU waits for. All ways draw the same people and noise, so the losses are to agree until rounding has grown: the
largest difference in the first ten steps, relative, and of the mean over the timed ones. ``whole`` compiles for
minutes.
"""

import argparse
import gc
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from training_clock import Marks

from humansplat.config import TrainConfig, load_config
from humansplat.errors import UserError
from humansplat.models import sv3d_blocks
from humansplat.training.meter import LossMeter
from humansplat.training.people import open_pools
from humansplat.training.tasks import make_task
from humansplat.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
PARTS = ("data", "encode", "network", "backward", "optimizer")
POINTS = ("begin", "encode", "encoded", "losses", "gradients", "end")
SETTLING = 4


def main() -> None:
    """Train every way, print a row each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--people", type=int, default=256, help="that are loaded")
    parser.add_argument("--ways", nargs="+", choices=("no", "graphs", "whole"), default=("no", "graphs"))
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--plain", action="store_true", help="without the network's own kernels")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of tools/train.py")
    given = parser.parse_args()
    torch.set_float32_matmul_precision("highest")  # as tools/train.py
    torch.backends.cudnn.benchmark = True
    sv3d_blocks.TRAINS_WITH_KERNELS = not given.plain
    accelerator = Accelerator(cpu=given.device == "cpu")
    overrides = [
        f"batch_size={given.batch}", f"data.capacity={given.people}", "data.validation=null",
        f"data.train={str(given.folder)!r}", f"sv3d.autoencoder={str(ROOT / 'weights' / 'small' / 'vae')!r}",
    ]  # fmt: skip
    config = load_config(TrainConfig, ROOT / "configs" / "sv3d_small.yaml", overrides + given.set)
    began = time.perf_counter()
    with open_pools(config.data, accelerator) as (pool, _), tempfile.TemporaryDirectory() as scratch:
        print(f"people in {time.perf_counter() - began:.1f} s, batch {config.batch_size}\n")
        print(
            f"| compile | first step, s | step, ms | samples/s | host, ms | {' | '.join(PARTS)} | GiB | "
            "losses differ |"
        )
        print("|---" * (7 + len(PARTS)) + "|")
        written: list[float] = []
        for way in given.ways:
            chosen = replace(config, compile=way, output_dir=Path(scratch) / way)
            try:
                row, losses = measure(chosen, accelerator, pool, given.steps)
            except UserError as error:
                print(f"| {way} | {error} |")
                continue
            written = written or losses
            print(f"| {way} | {row} | {difference(losses, written)} |", flush=True)


def measure(config: TrainConfig, accelerator: Accelerator, pool: Any, steps: int) -> tuple[str, list[float]]:
    """Train one way; the row's middle, and the loss of every step."""
    device = accelerator.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    trainer: Trainer[Any, Any] = Trainer(config, make_task(config), accelerator, pool)
    wrapped, meter = trainer.learner.wrap(), LossMeter(accelerator)
    losses: list[Tensor] = []
    marks = Marks(device)
    mark(trainer, marks, losses)

    def run(count: int) -> tuple[float, float]:
        """Seconds until the host, and the device, is done with steps."""
        wait(device)
        start = time.perf_counter()
        for _ in range(count):
            marks("begin")
            trainer.train_step(wrapped, meter)
            marks("end")
        asked = time.perf_counter() - start
        wait(device)
        return asked / count, (time.perf_counter() - start) / count

    first = run(1)[1]
    run(SETTLING)
    marks.times()
    asked, taken = run(steps)
    every = marks.times()
    host = 1000 * taken if device.type == "cpu" else 1000 * asked
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    spans = parts(every)
    row = f"{first:.1f} | {1000 * taken:.1f} | {config.batch_size / taken:.0f} | {host:.1f} | "
    row += " | ".join(f"{spans[part]:.1f}" for part in PARTS) + f" | {memory:.1f}"
    values = torch.stack(losses).tolist()
    del trainer, wrapped
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return row, values


def mark(trainer: Trainer[Any, Any], marks: Marks, losses: list[Tensor]) -> None:
    """Have the trainer's parts leave marks, and the losses be kept."""
    task, learner = trainer.task, trainer.learner
    loss, encoded, step = task.training_loss, task._encoded, learner.step  # type: ignore[attr-defined]

    def marked_loss(*arguments: Any) -> dict[str, Tensor]:
        values = loss(*arguments)
        losses.append(values["denoising"].detach())
        marks("losses")
        return values

    def marked_encoded(*arguments: Any) -> Any:
        marks("encode")
        made = encoded(*arguments)
        marks("encoded")
        return made

    def marked_step(*arguments: Any) -> Any:
        marks("gradients")
        return step(*arguments)

    task.training_loss, task._encoded = marked_loss, marked_encoded  # type: ignore[method-assign, attr-defined]
    learner.step = marked_step  # type: ignore[method-assign]


def parts(times: list[tuple[str, float]]) -> dict[str, float]:
    """Median milliseconds between the points of a step."""
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    for place in range(0, len(times), len(POINTS)):
        step = times[place : place + len(POINTS)]
        assert tuple(name for name, _ in step) == POINTS
        for part, (_, begin), (_, end) in zip(PARTS, step[:-1], step[1:], strict=True):
            taken[part].append(end - begin)
    return {part: statistics.median(values) for part, values in taken.items()}


def difference(losses: list[float], written: list[float]) -> str:
    """How far two runs' losses are apart."""
    if losses is written:
        return "-"
    early = max(abs(a - b) / b for a, b in zip(losses[:10], written[:10], strict=True))
    late = statistics.mean(losses[1 + SETTLING :]) / statistics.mean(written[1 + SETTLING :]) - 1
    return f"{early:.1e}, mean {late:+.2%}"


def wait(device: torch.device) -> None:
    """Until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
