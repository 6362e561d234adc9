"""How long a scan takes to prepare, stage by stage, on one core.

    python benchmarks/prepare.py SCANS [--limit 4] [--size 512]

Seconds of processor time, so that other work on the machine does not count; each stage's median over the scans after
the first, which loads and compiles.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from humansplat.data import prepare as preparation
from humansplat.data.scans import person
from humansplat.data.scans.layouts import find_scans
from humansplat.data.scans.rings import RING_CAMERAS
from humansplat.data.scans.tools import FittingTools

seconds: dict[str, list[float]] = defaultdict(list)


def timed(stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """The same call, whose processor time is noted."""

    def wrapped(*arguments: object, **options: object) -> object:
        began = time.process_time()
        result = call(*arguments, **options)
        seconds[stage].append(time.process_time() - began)
        return result

    return wrapped


def main() -> None:
    """Prepare some scans and print the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for stage, module, name in (
        ("read", person, "read_scan"),
        ("which way is up", person, "seen_up"),
        ("part labels", person, "labelled"),
        ("render", person, "_drawn"),
        ("write", preparation, "write_person"),
    ):
        setattr(module, name, timed(stage, getattr(module, name)))
    task = person.ScanTask(
        body_model="anny", gender="neutral", split="train", size=arguments.size, samples=2,
        ring_cameras=RING_CAMERAS, normals=False, depth=False, unit="auto", up="auto",
    )  # fmt: skip
    tools = FittingTools(task, None)
    tools.fit = timed("fit", tools.fit)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        for file in find_scans(arguments.scans)[: arguments.limit]:
            began = time.process_time()
            record = person.make_record(file, file.name, task, tools, None)
            preparation.write_person(Path(folder) / file.name, record)
            seconds["all"].append(time.process_time() - began)
            written = sum(path.stat().st_size for path in (Path(folder) / file.name).rglob("*.*"))
            told = record.meta["scan"]
            assert isinstance(told, dict)
            print(
                f"{file.name}: {told['faces']:,} faces, {written / 1e6:.1f} MB, {seconds['all'][-1]:.1f} s", flush=True
            )
    for stage, values in seconds.items():
        print(f"{stage:16} {median(values[1:] or values):6.2f} s")


if __name__ == "__main__":
    main()
