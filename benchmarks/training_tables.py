"""The tables of the training benchmarks: rows of one configuration, and one step size in several processes."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training_bench import Bench, Cell
from training_clock import PARTS
from training_flops import ModelFlops, count
from training_inputs import made_up_pool

from humansplat.config import TrainConfig
from humansplat.data.dataset import PeoplePool

NUM_PEOPLE = 8
CELLS = {
    "base_512": (
        Cell(batch=8, compile="blocks"),
        Cell(batch=8, compile="blocks", losses="plain"),
        Cell(batch=16, compile="blocks", losses="plain"),
        Cell(batch=32, compile="blocks", losses="plain"),
        Cell(batch=8, compile="blocks", checkpointing=True, losses="plain"),
        Cell(batch=32, compile="blocks", checkpointing=True, losses="plain"),
        Cell(batch=8, losses="plain"),
        Cell(batch=8, compile="whole", losses="plain"),
        Cell(batch=32, losses="plain"),
        Cell(batch=64, compile="blocks", checkpointing=True, losses="plain"),
        Cell(batch=32, compile="stages", losses="plain"),
    ),
    "base_256": (
        Cell(batch=8, compile="blocks"),
        Cell(batch=8, compile="blocks", losses="plain"),
        Cell(batch=32, compile="blocks", losses="plain"),
        Cell(batch=64, compile="blocks", losses="plain"),
        Cell(batch=64, compile="blocks", checkpointing=True, losses="plain"),
        Cell(batch=32, losses="plain"),
        Cell(batch=8, losses="plain"),
        Cell(batch=64, compile="stages", losses="plain"),
    ),
    "small": (
        Cell(batch=16, losses="plain"),
        Cell(batch=16, losses="parts"),
        Cell(batch=16, compile="blocks", losses="plain"),
        Cell(batch=16, compile="blocks", losses="parts"),
        Cell(batch=16, compile="blocks", losses="parts, features"),
        Cell(batch=16, compile="stages", losses="plain"),
        Cell(batch=16, compile="stages", losses="parts"),
        Cell(batch=16, compile="whole", losses="plain"),
    ),
}
SEVERAL = {"small": Cell(batch=16, compile="blocks"), "base_512": Cell(batch=8, compile="blocks")}


def table(bench: Bench, name: str) -> None:
    """Rows of one configuration."""
    start = time.monotonic()
    config = bench.config(name)
    pool = made_up_pool(2 if bench.tiny else NUM_PEOPLE, config.data.image_size or 256, bench.device)
    people = time.monotonic() - start
    flops = model_flops(bench, config, pool)
    bench.say(f"setting up: {people:.1f} s the people, {time.monotonic() - start - people:.1f} s the first step\n")
    rows: list[dict[str, Any]] = []
    bench.results[name] = {"flops": flops._asdict(), "rows": rows}
    bench.say(
        "| batch | checkpointing | compile | losses | samples/s | GiB | share | with the encoder | "
        + " | ".join(PARTS)
        + " | step, ms | compiling, s |"
    )
    bench.say("|" + "---|" * (10 + len(PARTS)))
    for number in map(int, bench.only_cells or range(len(CELLS[name]))):
        cell = bench.changed(CELLS[name][number])
        head = f"| {cell.batch} | {'yes' if cell.checkpointing else 'no'} | {cell.compile} | "
        head += f"{cell.losses} | "
        if time.monotonic() - start > 60 * bench.minutes:
            bench.say(head + "left out: no time |")
            continue
        failure = ""
        try:
            measured = bench.measure(config, cell, pool, seconds=3.0)
        except RuntimeError as error:  # of memory, or of the compiler
            failure = " ".join(str(error).split())[:200]
        if failure:
            bench.clear()  # only now: while the error was handled it held the step's tensors
            bench.say(head + ("out of memory |" if "memory" in failure.lower() else f"failed: {failure} |"))
            rows.append(asdict(cell) | {"failure": failure})
            continue
        share, with_encoder = (
            flop * measured.samples_per_second / bench.rate for flop in (flops.network, flops.network + flops.encoder)
        )
        rows.append(asdict(cell) | asdict(measured) | {"share": share, "share_with_encoder": with_encoder})
        bench.say(
            head
            + f"{measured.samples_per_second:.2f} | {measured.memory_gib:.1f} | {share:.1%} | {with_encoder:.1%} | "
            + " | ".join(f"{measured.ms[part]:.1f}" for part in PARTS)
            + f" | {measured.step_ms:.1f} | {measured.compile_seconds:.0f} |"
        )
        if measured.operations:
            bench.say(measured.operations)
    bench.say()


def model_flops(bench: Bench, config: TrainConfig, pool: PeoplePool) -> ModelFlops:
    """Count them, and say how many there are."""
    with bench.training(config, Cell(batch=2), pool) as (trainer, _):
        flops = count(trainer, trainer.learner.autocast)
        num_parameters = sum(p.numel() for p in trainer.module.parameters())
    bench.say(
        f"{num_parameters / 1e6:.1f} M parameters; model GFLOPs of a sample: {flops.network / 1e9:,.1f} "
        f"(of them dense attention {flops.attention / 1e9:,.1f}, windowed {flops.windows / 1e9:.4f}), "
        f"the frozen encoder {flops.encoder / 1e9:,.1f}\n"
    )
    return flops


def several(bench: Bench, one: Path | None, names: list[str]) -> None:
    """Samples a second of all processes together."""
    processes = bench.accelerator.num_processes
    before = json.loads(one.read_text(encoding="utf-8")).get("several", {}) if one else {}
    rows: dict[str, Any] = {}
    bench.results["several"] = rows
    kind = str(bench.accelerator.distributed_type).removeprefix("DistributedType.")
    bench.say(f"{processes} processes, {kind}\n")
    bench.say("| configuration | batch a GPU | compile | step, ms | GiB | samples/s together | of one process |")
    bench.say("|---|---|---|---|---|---|---|")
    for name in names:
        config = bench.config(name)
        cell = bench.changed(SEVERAL[name])
        pool = made_up_pool(2 if bench.tiny else NUM_PEOPLE, config.data.image_size or 256, bench.device)
        measured = bench.measure(config, cell, pool, seconds=6.0, by_parts=False)
        together = measured.samples_per_second * processes
        rows[name] = asdict(cell) | asdict(measured) | {"processes": processes, "kind": kind, "together": together}
        gain = "-"
        if name in before:
            rows[name]["gain"] = together / before[name]["together"]
            gain = f"{rows[name]['gain']:.3f} x"
        bench.say(
            f"| {name} | {cell.batch} | {cell.compile} | {measured.step_ms:.1f} | {measured.memory_gib:.1f} | "
            f"{together:.2f} | {gain} |"
        )
    bench.say()
