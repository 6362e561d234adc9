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
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from ablation_rows import CONFIG, ROWS, evaluation_jobs, training_jobs
from ablation_table import collect, costs, table
from job_queue import Job, Queue


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
