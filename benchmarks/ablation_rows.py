"""The rows of `docs/ablations.md`, and the processes that make them."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from job_queue import Job

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "reconstruction_small.yaml"
AUTOENCODER = ROOT / "weights" / "small" / "vae"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table: what it changes, and what the paper found."""

    name: str
    title: str
    changes: tuple[str, ...] = ()
    """`--set` overrides of the configuration."""
    seeds: tuple[int, ...] = (0,)
    paper: float | None = None
    """PSNR of its counterpart in HumanSplat's Tables 2 and 3 (2K2K), dB."""


MODEL = "reconstruction.model"
ROWS = (
    Row(
        name="main", title="all: body maps and tokens, K = 2, latents, the photo alone", seeds=(0, 1, 2), paper=24.293
    ),
    Row(name="nobody", title="no body", changes=(f"{MODEL}.body=none",), seeds=(0, 1, 2), paper=22.635),
    Row(name="maps", title="body maps only, no cross-attention", changes=(f"{MODEL}.body=maps",)),
    Row(name="tokens", title="body tokens only, as in the paper", changes=(f"{MODEL}.body=tokens",)),
    Row(name="k1", title="K = 1", changes=(f"{MODEL}.window=1.0",), paper=23.333),
    Row(name="k3", title="K = 3", changes=(f"{MODEL}.window=3.0",), paper=24.383),
    Row(name="k4", title="K = 4", changes=(f"{MODEL}.window=4.0",), paper=24.013),
    Row(name="unlimited", title="K unlimited", changes=(f"{MODEL}.window=.inf",)),
    Row(name="pixels", title="pixel space", changes=("reconstruction.space=pixel",), paper=23.125),
    Row(name="parts", title="with the hierarchical loss", changes=("reconstruction.hierarchical.weight=1.0",)),
    Row(name="parts_light", title="... at a fifth of its weight", changes=("reconstruction.hierarchical.weight=0.2",)),
    Row(name="four", title="four true views", changes=("reconstruction.num_inputs=4",)),
)
BODIES = {"true": 24.633, "fitted": 24.293, "perturbed": None}
"""Kinds of bodies that `main` is evaluated with, and the paper's PSNR (SMPL of the scans; PIXIE's)."""


def training_jobs(rows: Sequence[Row], arguments: argparse.Namespace, num_people: int) -> list[Job]:
    """A job a row and seed; first seeds first, so that an early end leaves a whole table."""
    runs = sorted((seed, place, row) for place, row in enumerate(rows) for seed in row.seeds)
    return [training_job(row, seed, arguments, num_people) for seed, _, row in runs]


def training_job(row: Row, seed: int, arguments: argparse.Namespace, num_people: int) -> Job:
    """One run of `tools/train.py`."""
    out = arguments.out / f"{row.name}-{seed}"
    settings = [
        f"output_dir={_text(out)}",
        f"data.train={_text(arguments.data)}",
        f"data.validation={_text(arguments.validation)}",
        f"data.validation_people={arguments.validation_people}",
        f"data.capacity={num_people}",
        f"data.cache={_text(arguments.out / 'people')}",
        f"data.num_workers={arguments.threads}",
        f"reconstruction.autoencoder={_text(AUTOENCODER)}",
        f"num_steps={arguments.steps}",
        f"batch_size={arguments.batch}",
        f"validate_every={arguments.steps}",
        "checkpoint.every_minutes=1000.0",
        f"seed={seed}",
        *row.changes,
        *arguments.set,
    ]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "--config", str(CONFIG)]
    for setting in settings:
        command += ["--set", setting]
    return Job(name=out.name, command=tuple(command), done=out / "final" / "metrics.json")


def evaluation_jobs(arguments: argparse.Namespace) -> list[Job]:
    """The first run of `main` as weights, and those evaluated with each kind of bodies."""
    run = arguments.out / "main-0"
    weights = run / "weights"
    export = (
        sys.executable,
        str(ROOT / "tools" / "export_weights.py"),
        *("--vae", str(AUTOENCODER), "--reconstructor", str(run / "final"), "--out", str(weights)),
    )
    jobs = [
        Job(name="main-0-weights", command=export, done=weights / "SHA256SUMS", after=run / "final" / "metrics.json")
    ]
    for kind in BODIES:
        out = arguments.out / f"bodies-{kind}"
        command = (
            *(sys.executable, "-m", "humansplat.cli", "evaluate", "--model", str(weights), "--data"),
            *(str(arguments.validation), "--out", str(out), "--bodies", kind),
            *("--limit", str(arguments.validation_people)),
        )
        jobs.append(Job(name=out.name, command=command, done=out / "metrics.json", after=weights / "SHA256SUMS"))
    return jobs


def _text(path: Path) -> str:
    return json.dumps(path.as_posix())
