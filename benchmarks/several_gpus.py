"""Two GPUs against one: the same losses at the same global batch, and how much faster.

    python benchmarks/several_gpus.py --config configs/reconstruction_small.yaml --set data.train=DATA \
        --set reconstruction.autoencoder=weights/small/vae --batch-size 16 --steps 100

Trains the configuration anew several times for a few steps, by ``tools/train.py``: on one GPU with the global batch,
the same again (kernels add in any order: what differs between these two is what two runs differ by anyway), on one
with a single GPU's batch, and on two with DDP and with FSDP. Everything goes to ``--out``. With ``--set
compile=graphs`` (of ``configs/sv3d_small.yaml``) there is no FSDP, and ``ddp`` averages after the backward pass.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """One training."""

    name: str
    processes: int
    batch_size: int
    """Per process."""
    accelerate: str | None = None
    """File in ``configs/accelerate``."""


def main() -> None:
    """Train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="as for tools/train.py")
    parser.add_argument("--batch-size", type=int, default=16, help="of one GPU when two share the work")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--log-every", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/several_gpus"))
    parser.add_argument("--cpu", action="store_true", help="processes without GPUs, to try the script")
    parser.add_argument("--only", nargs="*", help="names of runs; the others are taken as they lie in --out")
    arguments = parser.parse_args()
    count, size = arguments.processes, arguments.batch_size
    runs: tuple[Run, ...] = (
        Run("one", 1, count * size),
        Run("again", 1, count * size),
        Run("single", 1, size),
        Run("ddp", count, size, "two_gpus.yaml"),
        Run("fsdp", count, size, "fsdp.yaml"),
    )
    if "compile=graphs" in arguments.set:  # which FSDP refuses
        runs = runs[:-1]
    for run in runs:
        if arguments.only is None or run.name in arguments.only:
            train(run, arguments)
    report([run for run in runs if (arguments.out / run.name / "log.jsonl").is_file()], arguments.out)


def train(run: Run, arguments: argparse.Namespace) -> None:
    """Run ``tools/train.py`` in as many processes as it takes."""
    settings = {
        "output_dir": arguments.out / run.name,
        "batch_size": run.batch_size,
        "num_steps": arguments.steps,
        "log_every": arguments.log_every,
        "validate_every": 10**9,
        "data.validation": "null",
        "optim.warmup_steps": min(20, arguments.steps - 1),
    }
    settings_given = [f"--set={name}={value}" for name, value in settings.items()]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    launch, environment = [sys.executable], os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    if run.accelerate is not None:
        if arguments.cpu:
            launch += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(run.processes)]
            sharded = str(run.name == "fsdp").lower()
            environment |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": sharded, "FSDP_VERSION": "2"}
        else:
            file = ROOT / "configs" / "accelerate" / run.accelerate
            launch += ["-m", "accelerate.commands.launch", "--config_file", str(file)]
            launch += ["--num_processes", str(run.processes)]
    given = [f"--set={value}" for value in arguments.set]
    command = [*launch, str(ROOT / "tools" / "train.py"), "--config", str(arguments.config), *given, *settings_given]
    print(f"== {run.name}: {run.processes} x {run.batch_size}", flush=True)
    subprocess.run(command, env=environment, check=True)


def report(runs: list[Run], out: Path) -> None:
    """Losses of each reading and how far they are from the first run's; people a second, also against one GPU's."""
    curves = {run.name: readings(out / run.name) for run in runs}
    print(f"\n{'step':>6}" + "".join(f"{name:>12}" for name in curves))
    steps = [line["step"] for line in curves[runs[0].name]]
    for place, step in enumerate(steps):
        print(f"{step:>6}" + "".join(f"{curve[place]['total']:12.5f}" for curve in curves.values()))
    first = curves[runs[0].name]
    print(f"\n{'run':<8}{'people/s':>10}{'/single':>8}{'/one':>8}{'GiB':>8}{'mean |dloss|/loss':>20}{'largest':>10}")
    speeds: dict[str, float] = {}
    for run in runs:
        curve = curves[run.name]
        # The first reading has the warming up in it.
        minutes, done = curve[-1]["minutes"] - curve[0]["minutes"], curve[-1]["step"] - curve[0]["step"]
        speed = done * run.batch_size * run.processes / (60 * minutes)
        speeds[run.name] = speed
        bases = [speeds.get(name) if run.processes > 1 else None for name in ("single", "one")]
        ratio = "".join(f"{speed / base:8.2f}" if base else " " * 8 for base in bases)
        apart = [abs(a["total"] - b["total"]) / b["total"] for a, b in zip(curve, first, strict=True)]
        same_batch = run.batch_size * run.processes == runs[0].batch_size * runs[0].processes
        difference = f"{sum(apart) / len(apart):20.2e}{max(apart):10.2e}" if same_batch else ""
        print(f"{run.name:<8}{speed:10.1f}{ratio}{curve[-1].get('memory_gib', 0):8.2f}{difference}")


def readings(folder: Path) -> list[dict[str, float]]:
    """The training lines of a run's log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["group"] == "train"]


if __name__ == "__main__":
    main()
