"""Train and score the rows of `docs/ablations.md` with equal budgets, several runs at a time on a machine's GPUs.

python benchmarks/ablations.py DATA VALIDATION --out DIR --gpus 4 --per-gpu 3 --steps 4000 --batch 16

Each run is a process of its own (`tools/train.py` with `configs/reconstruction_small.yaml` and the row's changes, from
scratch), so that a row can be repeated alone; DIR/<row>-<seed>.log has its command and what it said. The people are
decoded once, into DIR/people. What is finished is not run again, and what was interrupted goes on from its checkpoint:
with --minutes, the call stops in time, and the same call later goes on. The table is printed at the end, whatever is
there, and DIR/results.json has all figures; --table prints them without running anything.

The three rows of bodies are `humansplat evaluate` on the first run of `main`.
"""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "reconstruction_small.yaml"
AUTOENCODER = ROOT / "weights" / "small" / "vae"
POLL_SECONDS, TELL_SECONDS, PATIENCE_SECONDS = 0.5, 30.0, 90.0


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
COLUMNS = {"psnr": "PSNR", "psnr_box": "box", "psnr_box_back": "box, back", "psnr_head": "head", "ssim": "SSIM",
           "silhouette_iou": "IoU"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """A process, what it leaves when it is done, and what another must have left before."""

    name: str
    command: tuple[str, ...]
    done: Path
    after: Path | None = None


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


class Queue:
    """Runs jobs on slots until all are done, failed, or time is up."""

    def __init__(self, jobs: Sequence[Job], slots: Sequence[str], out: Path, threads: int, deadline: float) -> None:
        """Take the jobs in their order.

        Args:
            jobs: All of them; those that are done are passed over.
            slots: What each sees as ``CUDA_VISIBLE_DEVICES``.
            out: For the logs.
            threads: Of each process.
            deadline: By ``time.monotonic``.
        """
        self.jobs, self.out, self.threads, self.deadline = list(jobs), out, threads, deadline
        self.waiting = [job for job in jobs if not job.done.is_file()]
        self.free = list(slots)
        self.running: dict[str, tuple[Job, subprocess.Popen[bytes], str]] = {}
        self.failed: dict[str, str] = {}

    def run(self) -> bool:
        """True if nothing was cut short by the clock."""
        told = time.monotonic()
        try:
            while self.running or any(_is_ready(job) for job in self.waiting):
                self._start_some()
                self._collect()
                if time.monotonic() > self.deadline:
                    return False
                if time.monotonic() - told > TELL_SECONDS:
                    told = time.monotonic()
                    print(self._state(), flush=True)
                time.sleep(POLL_SECONDS)
        finally:
            self._stop()
        return True

    def _start_some(self) -> None:
        for job in [job for job in self.waiting if _is_ready(job)][: len(self.free)]:
            # The least loaded GPU: slots come back in any order.
            slot = min(self.free, key=lambda gpu: sum(used == gpu for *_, used in self.running.values()))
            self.free.remove(slot)
            self.waiting.remove(job)
            command = list(job.command)
            if any((self.out / job.name / "checkpoints").glob("checkpoint-*")):
                command.append("--resume")
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": slot, "OMP_NUM_THREADS": str(self.threads)}
            with (self.out / f"{job.name}.log").open("ab") as log:
                log.write(f"CUDA_VISIBLE_DEVICES={slot} {shlex.join(command)}\n".encode())
                log.flush()
                process = subprocess.Popen(
                    command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            self.running[job.name] = (job, process, slot)
            print(f"{job.name}: started{f' on GPU {slot}' if slot else ''}", flush=True)

    def _collect(self) -> None:
        for name, (job, process, slot) in list(self.running.items()):
            if process.poll() is None:
                continue
            del self.running[name]
            self.free.append(slot)
            if job.done.is_file():
                print(f"{name}: done", flush=True)
                continue
            lines = (self.out / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
            self.failed[name] = lines[-1] if lines else ""
            print(f"{name}: ended with {process.returncode}:", *lines[-12:], sep="\n  ", flush=True)

    def _stop(self) -> None:
        """Ask what runs to write a checkpoint and end; kill what does not."""
        for _, process, _ in self.running.values():
            process.terminate()
        patience = time.monotonic() + PATIENCE_SECONDS
        for name, (_, process, _) in self.running.items():
            try:
                process.wait(max(0.0, patience - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            print(f"{name}: stopped", flush=True)
        self.running.clear()

    def _state(self) -> str:
        done = sum(job.done.is_file() for job in self.jobs)
        now = ", ".join(f"{name} {steps_done(self.out / name)}" for name in sorted(self.running))
        return f"{done} of {len(self.jobs)} done, {len(self.waiting)} waiting; running: {now}"


def _is_ready(job: Job) -> bool:
    return job.after is None or job.after.is_file()


def steps_done(run: Path) -> int:
    """The last step in a run's log."""
    log = run / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    try:
        return int(json.loads(lines[-1])["step"]) if lines else 0
    except json.JSONDecodeError:  # half written
        return 0


def collect(out: Path, rows: Sequence[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Figures that are there: ``[row][seed]``, and ``["bodies"][kind]``."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        paths = {str(seed): out / f"{row.name}-{seed}" / "final" / "metrics.json" for seed in row.seeds}
        found[row.name] = {seed: _read(path)["metrics"] for seed, path in paths.items() if path.is_file()}
    paths = {kind: out / f"bodies-{kind}" / "metrics.json" for kind in BODIES}
    found["bodies"] = {kind: _evaluated(_read(path)) for kind, path in paths.items() if path.is_file()}
    return found


def costs(out: Path, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Steps, minutes and GiB of each run so far; minutes are those beside the other runs on its GPU."""
    found = {}
    for name in [f"{row.name}-{seed}" for row in rows for seed in row.seeds]:
        log = out / name / "log.jsonl"
        lines = (
            log.read_text(encoding="utf-8").splitlines()[:-1] if log.is_file() else []
        )  # the last may be half written
        trained = [values for values in map(json.loads, lines) if values["group"] == "train"]
        if trained:
            found[name] = {key: trained[-1][key] for key in ("step", "minutes", "memory_gib") if key in trained[-1]}
    return found


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _evaluated(metrics: dict) -> dict[str, float]:
    """What `evaluate` wrote under the names that validation has."""
    sides = {f"{name}_{side}": value for side in ("front", "side", "back") for name, value in metrics[side].items()}
    return metrics["mean"] | sides


def table(results: dict[str, dict[str, dict[str, float]]], rows: Sequence[Row]) -> str:
    """Markdown, as `docs/ablations.md` has it; rows without figures are left open."""
    header = ["row", "", *COLUMNS.values(), "against main", "the paper", "against its main"]
    lines = [header, ["---"] * len(header)]
    base = _mean(list(results.get("main", {}).values()), "psnr")
    for row in rows:
        runs = list(results.get(row.name, {}).values())
        title = f"{row.title}{f' ({len(runs)} seeds)' if len(runs) > 1 else ''}"
        lines.append([f"`{row.name}`", title, *_cells(runs), *_differences(runs, base, row.paper, row.name == "main")])
    for kind, paper in BODIES.items():
        runs = [results["bodies"][kind]] if kind in results.get("bodies", {}) else []
        cells = [*_cells(runs), *_differences(runs, base, paper, False)]
        lines.append([f"`bodies-{kind}`", f"`main`'s first run, {kind} bodies", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(runs: list[dict[str, float]]) -> list[str]:
    cells = []
    for name in COLUMNS:
        digits = 2 if name.startswith("psnr") else 4
        values = [run[name] for run in runs if name in run]
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        cells.append(f"{statistics.fmean(values):.{digits}f}{spread}" if values else "")
    return cells


def _differences(runs: list[dict[str, float]], base: float | None, paper: float | None, is_main: bool) -> list[str]:
    mean, of_paper = _mean(runs, "psnr"), ROWS[0].paper
    own = f"{mean - base:+.2f}" if mean is not None and base is not None and not is_main else ""
    theirs = f"{paper - of_paper:+.2f}" if paper is not None and of_paper is not None and not is_main else ""
    return [own, f"{paper:.2f}" if paper is not None else "", theirs]


def _mean(runs: list[dict[str, float]], name: str) -> float | None:
    return statistics.fmean([run[name] for run in runs]) if runs else None


def decode_people(data: Path, cache: Path, threads: int) -> int:
    """Fill the cache, so that no run has to; the number of people."""
    from humansplat.body.models import load_body_model
    from humansplat.config import TrainConfig, load_config
    from humansplat.data.format import read_manifest
    from humansplat.data.people import BodyTemplate
    from humansplat.data.pool_cache import open_cache

    config = load_config(TrainConfig, CONFIG).data
    names = [str(line["name"]) for line in read_manifest(data) if config.flagged or not line.get("flags")]
    started = time.monotonic()
    open_cache(
        cache,
        data,
        names,
        BodyTemplate.of(load_body_model()).body(),
        image_size=config.image_size,
        max_views=config.max_views,
        num_workers=threads,
    )
    print(f"{len(names)} people are decoded, after {time.monotonic() - started:.0f} s", flush=True)
    return len(names)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="people to train on")
    parser.add_argument("validation", type=Path, help="people to score on")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs, logs and results.json")
    parser.add_argument("--gpus", type=int, default=1, help="0 runs on the CPU")
    parser.add_argument("--per-gpu", type=int, default=1, help="runs at a time on each")
    parser.add_argument("--steps", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rows", default=None, help=f"some of {','.join(row.name for row in ROWS)},bodies")
    parser.add_argument("--seeds", type=int, default=None, help="at most so many of each row's seeds")
    parser.add_argument("--minutes", type=float, default=None, help="stop what runs after so long, to go on later")
    parser.add_argument("--validation-people", type=int, default=64)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override for all rows")
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    parsed = parser.parse_args(arguments)
    known = [*(row.name for row in ROWS), "bodies"]
    parsed.rows = known if parsed.rows is None else parsed.rows.split(",")
    unknown = sorted(set(parsed.rows) - set(known))
    if unknown:
        parser.error(f"there are no rows {', '.join(unknown)}; there are {', '.join(known)}")
    for name in ("data", "validation", "out"):
        setattr(parsed, name, getattr(parsed, name).resolve())
    parsed.slots = [str(gpu) for _ in range(parsed.per_gpu) for gpu in range(parsed.gpus)] or [""] * parsed.per_gpu
    parsed.threads = max(1, (os.cpu_count() or 1) // len(parsed.slots))
    return parsed


def main() -> int:
    """Run, print the table; 1 if a run failed, 3 if time was up."""
    arguments = parse()
    started = time.monotonic()
    limit = float("inf") if arguments.minutes is None else 60 * arguments.minutes
    rows = [row for row in ROWS if row.name in arguments.rows]
    finished, failed = True, {}
    if not arguments.table:
        signal.signal(signal.SIGTERM, _interrupt)
        arguments.out.mkdir(parents=True, exist_ok=True)
        num_people = decode_people(arguments.data, arguments.out / "people", os.cpu_count() or 1)
        jobs = [job for job in training_jobs(rows, arguments, num_people) if _wanted(job, arguments.seeds)]
        jobs += evaluation_jobs(arguments) if "bodies" in arguments.rows else []
        queue = Queue(jobs, arguments.slots, arguments.out, arguments.threads, started + limit)
        try:
            finished = queue.run()
        except KeyboardInterrupt:
            finished = False
        failed = queue.failed
    results = collect(arguments.out, ROWS)
    if not arguments.table:
        settings = {"steps": arguments.steps, "batch": arguments.batch, "set": arguments.set, "failed": failed}
        text = json.dumps({"settings": settings, "rows": results, "costs": costs(arguments.out, ROWS)}, indent=1)
        (arguments.out / "results.json").write_text(text + "\n", encoding="utf-8")
    print(f"{(time.monotonic() - started) / 60:.1f} minutes\n\n{table(results, ROWS)}")
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    return 1 if failed else 0 if finished else 3


def _wanted(job: Job, seeds: int | None) -> bool:
    return seeds is None or int(job.name.rpartition("-")[2]) < seeds


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
