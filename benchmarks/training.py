"""Time training steps of the reconstructor: samples a second, memory, parts of a step, share of the matrix rate.

python benchmarks/training.py [--only rate|encoder|base_512|base_256|small|several] [--minutes 1] [--out FILE.json]
accelerate launch --config_file configs/accelerate/two_gpus.yaml benchmarks/training.py --only several --one FILE.json
python benchmarks/training.py --paper FILE.json...

The steps are the trainer's own, with the task's own losses, on made-up people in the device's memory and an untrained
autoencoder of Stable Diffusion's size (``small``: the one that ships). A row is a training of its own: some steps to
compile and settle, then as many as the time allows, timed together; after them a few with marks, whose medians show
where the time goes. Before the first row a step of two people counts operations and has the kernels of Triton and
gsplat compiled or loaded. The share is the model FLOPs of a second (what is counted: ``training_flops.py``), over the
rate of a large bfloat16 product measured in the same run. ``compile`` is the configuration's. What does not fit into
memory says so. No row begins later than ``--minutes`` after its table, set-up included.

``several`` times one step size on as many processes as there are; with the result of one process by ``--one`` it shows
what a second GPU brings. ``--out`` adds to a file of results; ``--paper`` makes the paper run's hours of such files.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from accelerate import Accelerator, DistributedType
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn
from training_clock import PARTS, step_parts
from training_flops import ModelFlops, count, matrix_rate
from training_inputs import made_up_pool, write_autoencoder

from humansplat.config import Compiled, PerceptualConfig, TrainConfig, load_config
from humansplat.data.dataset import PeoplePool
from humansplat.models.autoencoder import encode_images
from humansplat.training.meter import LossMeter
from humansplat.training.reconstruction_task import ReconstructionTask
from humansplat.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
NUM_PEOPLE = 8
TINY = (
    "data.image_size=64",
    "reconstruction.model.width=64",
    "reconstruction.model.num_heads=2",
    "reconstruction.model.num_intra_layers=1",
    "reconstruction.model.num_inter_layers=1",
    "reconstruction.model.num_body_tokens=32",
    "reconstruction.model.kept_cells=16",
)


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
CONFIGS = {
    "base_512": "reconstruction_base_512.yaml",
    "base_256": "reconstruction_base_256.yaml",
    "small": "reconstruction_small.yaml",
}
SEVERAL = {"small": Cell(batch=16, compile="blocks"), "base_512": Cell(batch=8, compile="blocks")}


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
            yield trainer, trainer._wrap()
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
                trainer._train_step(network, meter)

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


def profile(step: Callable[[], None], device: torch.device) -> str:
    """The operations that take longest in a step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
    order = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    return profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=90)


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


def model_flops(bench: Bench, config: TrainConfig, pool: PeoplePool) -> ModelFlops:
    """Count them, and say how many there are."""
    with bench.training(config, Cell(batch=2), pool) as (trainer, _):
        flops = count(trainer, trainer._autocast)
        num_parameters = sum(p.numel() for p in trainer.module.parameters())
    bench.say(
        f"{num_parameters / 1e6:.1f} M parameters; model GFLOPs of a sample: {flops.network / 1e9:,.1f} "
        f"(of them dense attention {flops.attention / 1e9:,.1f}, windowed {flops.windows / 1e9:.4f}), "
        f"the frozen encoder {flops.encoder / 1e9:,.1f}\n"
    )
    return flops


def encoder(bench: Bench) -> None:
    """Ways to run the frozen encoder, by the time a picture."""
    bench.config("base_512")  # makes the autoencoder
    size, count = (64, 1) if bench.tiny else (512, 8)
    pictures = torch.rand(count, 3, size, size, device=bench.device)
    exact = None
    rows = bench.results["encoder"] = {}
    bench.say("| encoder | ms a picture | error against float32, relative |\n|---|---|---|")
    for label, dtype, change in (
        ("float32", torch.float32, unchanged),
        ("autocast of float32 weights", None, unchanged),
        ("autocast, channels last", None, channels_last),
        ("autocast, channels last, compiled", None, compiled_encoder),
        ("bfloat16, channels last", torch.bfloat16, channels_last),
        ("bfloat16, channels last, compiled", torch.bfloat16, compiled_encoder),
    ):
        if bench.tiny and change is compiled_encoder:  # minutes on a CPU
            continue
        kept = dtype or torch.float32
        autoencoder = AutoencoderKL.from_pretrained(bench.scratch / "vae", torch_dtype=kept).to(bench.device).eval()
        change(autoencoder.requires_grad_(False))
        taken, latents = encode(bench, autoencoder, pictures.to(kept), autocast=dtype is None)
        exact = latents.float() if exact is None else exact
        error = ((latents.float() - exact).square().mean() / exact.square().mean()).sqrt().item()
        rows[label] = 1000 * taken / count
        bench.say(f"| {label} | {1000 * taken / count:.2f} | {error:.1e} |")
    bench.say()


def encode(bench: Bench, autoencoder: Any, pictures: Tensor, *, autocast: bool) -> tuple[float, Tensor]:
    """Seconds of encoding, and the latents."""
    warm, repeats = (1, 1) if bench.tiny else (3, 10)
    with torch.no_grad(), torch.autocast(bench.device.type, torch.bfloat16, enabled=autocast):
        for _ in range(warm):
            encode_images(autoencoder, pictures)
        bench.wait()
        start = time.perf_counter()
        for _ in range(repeats):
            latents = encode_images(autoencoder, pictures)
        bench.wait()
    return (time.perf_counter() - start) / repeats, latents


def unchanged(autoencoder: Any) -> None:
    """As it was loaded."""


def channels_last(autoencoder: Any) -> None:
    """The layout that convolutions on tensor cores want."""
    autoencoder.to(memory_format=torch.channels_last)


def compiled_encoder(autoencoder: Any) -> None:
    """That layout, the norms and activations fused."""
    channels_last(autoencoder)
    autoencoder.encoder.compile(dynamic=False)


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


STAGES = (("base_256", 80_000), ("base_512", 20_000))
"""Stages of the paper (section 4.3) by configuration, and their steps."""
PER_GPU, GPUS = 8, 8
"""The paper names 8 samples a GPU on 8 GPUs, and elsewhere batches of 32."""


def merged(known: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Results of several calls; rows of the same table stand together."""
    both = known | new
    for name in CELLS:
        if name in known and name in new:
            both[name] = new[name] | {"rows": known[name]["rows"] + new[name]["rows"]}
    return both


def paper(files: list[Path]) -> None:
    """The hours of the paper's schedule by what was measured."""
    results: dict[str, Any] = {}
    for file in files:
        results = merged(results, json.loads(file.read_text(encoding="utf-8")))
    print(
        f"{results['device']}, torch {results['torch']}; batches of {PER_GPU * GPUS} samples\n\n"
        "| stage | steps | samples | samples/s a GPU | GPU hours | hours on 8 GPUs |\n|---|---|---|---|---|---|"
    )
    many = results.get("several", {}).get("base_512", {})
    scaling = many["gain"] / many["processes"] if "gain" in many else 1.0  # assumed of 8 GPUs as well
    total = 0.0
    for name, steps in STAGES:
        rows = [row for row in results.get(name, {}).get("rows", []) if "failure" not in row]
        rows = [row for row in rows if row["batch"] == PER_GPU and row["losses"] == "all"]
        if not rows:
            print(f"| {name} | {steps:,} | not measured |")
            continue
        best = max(rows, key=lambda row: row["samples_per_second"])
        samples = steps * PER_GPU * GPUS
        hours = samples / best["samples_per_second"] / 3600
        total += hours
        print(
            f"| {name} | {steps:,} | {samples:,} | {best['samples_per_second']:.1f} | {hours:.0f} | "
            f"{hours / GPUS / scaling:.1f} |"
        )
    print(f"| both | | | | {total:.0f} | {total / GPUS / scaling:.1f} |")


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", choices=["rate", "encoder", *CELLS, "several"])
    parser.add_argument("--cells", default="", help="rows of the table by number, in this order, e.g. 3,0")
    parser.add_argument("--profile", action="store_true", help="list what takes longest in a step of each row")
    parser.add_argument("--minutes", type=float, default=1.0, help="after its table's beginning no row begins")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to try this script")
    parser.add_argument("--names", default=",".join(SEVERAL), help="configurations of --only several")
    parser.add_argument("--compile", choices=get_args(Compiled), help="for all rows")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as of tools/train.py")
    parser.add_argument("--one", type=Path, help="results of --only several with one process")
    parser.add_argument("--out", type=Path, help="JSON file that the results are added to")
    parser.add_argument("--paper", type=Path, nargs="+", help="files of results: print the hours of the paper's run")
    given = parser.parse_args()
    if given.paper:
        paper(given.paper)
        return
    torch.set_float32_matmul_precision("highest")  # as tools/train.py
    torch.backends.cudnn.benchmark = True
    with tempfile.TemporaryDirectory() as scratch:
        cells = [cell for cell in given.cells.split(",") if cell]
        bench = Bench(
            given.device,
            tiny=given.tiny,
            minutes=given.minutes,
            scratch=Path(scratch),
            cells=cells,
            compiled=given.compile,
            profiled=given.profile,
            overrides=given.set,
        )
        bench.say(f"{bench.results['device']}, torch {torch.__version__}")
        bench.results["rate"] = bench.rate
        if given.only in (None, "encoder"):
            encoder(bench)
        for name in CELLS:
            if given.only in (None, name):
                bench.say(f"### {name}\n")
                table(bench, name)
        if given.only == "several":
            several(bench, given.one, given.names.split(","))
        if given.out and bench.accelerator.is_main_process:
            known = json.loads(given.out.read_text(encoding="utf-8")) if given.out.is_file() else {}
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(merged(known, bench.results), indent=1), encoding="utf-8")
        bench.accelerator.end_training()


if __name__ == "__main__":
    main()
