"""Samples a second out of folders and shards, against reading and decoding the same files and nothing else.

    python benchmarks/data_throughput.py DATA --workers 0 2 8

DATA is a folder that ``humansplat prepare`` or ``synthesize`` wrote; its shards are made in a temporary folder. Every
file is read once before anything is timed, so all reading is out of the page cache. The clock starts when each worker
has given its first batch. CPU time counts this process and its workers; decoding alone is measured again just before
each row, by one process, so that the share holds on a machine that does other work, too. Prints a Markdown table.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from humansplat.body.models import load_body_model
from humansplat.config import StreamConfig
from humansplat.data.people import BodyTemplate
from humansplat.data.samples import PeopleDataset, SampleOptions, known_views, person_rng, plan_sample
from humansplat.data.shard_writing import make_shards
from humansplat.data.stream import PeopleStream
from humansplat.errors import UserError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2, 8])
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--targets", type=int, default=4)
    parser.add_argument("--body-model", default="anny")
    parser.add_argument("--body-models", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    template = BodyTemplate.of(load_body_model(options.body_model, folder=options.body_models))
    wanted = SampleOptions(num_targets=options.targets, shares=StreamConfig().views, ring_inputs=0.5)
    people = PeopleDataset([options.data], template, wanted)
    files = [planned_files(people, index) for index in range(options.samples)]
    size, count = picture_size(files[0][-1]), sum(len(paths) - 2 for paths in files) / len(files)
    read_all(files)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {len(people)} people, {size} px,")
    print(f"{count:.1f} pictures a sample, {options.samples} samples in batches of {options.batch_size}\n")
    print("| what | workers | samples/s | CPU ms a sample | of decoding alone |\n|---|---|---|---|---|")
    row("reading the bytes alone", 0, *timed(lambda: read_all(files)), options.samples, None)
    contents = [[path.read_bytes() for path in paths if path.suffix == ".png"] for paths in files]
    seconds, cpu = timed(lambda: decode_all(contents))
    row("decoding the pictures alone", 0, seconds, cpu, options.samples, cpu / options.samples)
    with tempfile.TemporaryDirectory() as folder:
        make_shards(options.data, Path(folder), shard_mib=16)
        for kind, root in (("stream", options.data), ("shards", Path(folder))):
            for workers in options.workers:
                decoding = timed(lambda: decode_all(contents))[1] / options.samples  # as busy as the machine is now
                measured = drawn(kind, root, template, wanted, workers, options.samples, options.batch_size)
                row("folders" if kind == "stream" else "shards", workers, *measured, decoding)


def planned_files(people: PeopleDataset, index: int) -> list[Path]:
    """What one sample reads."""
    epoch, place = divmod(index, len(people))
    person = people.people[people.order(epoch)[place]]
    folder = person.root / person.name
    cameras, views = known_views((folder / "cameras.json").read_bytes(), str(folder))
    plan = plan_sample(cameras, views, people.options, person_rng(people.seed, epoch, person.name, 0), str(folder))
    return [folder / file for file in ("cameras.json", *plan.files)]


def picture_size(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def read_all(files: list[list[Path]]) -> None:
    for paths in files:
        for path in paths:
            path.read_bytes()


def decode_all(contents: list[list[bytes]]) -> None:
    for pictures in contents:
        for picture in pictures:
            np.asarray(Image.open(BytesIO(picture)))


def timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def drawn(
    kind: str, root: Path, template: BodyTemplate, wanted: SampleOptions, workers: int, samples: int, batch_size: int
) -> tuple[float, float, int]:
    """Seconds by the clock and of all processes, and for how many samples."""
    assert kind in ("stream", "shards")
    stream = PeopleStream(kind, [str(root)], template, StreamConfig(), num_workers=workers)  # type: ignore[arg-type]
    batches = checked(iter(stream.loader(batch_size, wanted)))
    prepared = max(1, workers) * (3 if workers else 1)  # what the workers did before the clock starts
    list(islice(batches, prepared))
    helpers = psutil.Process().children(recursive=True)
    before, start, own = busy(helpers), time.perf_counter(), time.process_time()
    for _ in range(samples // batch_size):
        next(batches)
    seconds = time.perf_counter() - start
    return seconds, time.process_time() - own + busy(helpers) - before, samples // batch_size * batch_size


def checked(batches: Iterator[object]) -> Iterator[object]:
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def busy(processes: list[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def row(what: str, workers: int, seconds: float, cpu: float, samples: int, decoding: float | None) -> None:
    each = cpu / samples
    share = "" if decoding is None else f"{decoding / each:.0%}"
    print(f"| {what} | {workers} | {samples / seconds:,.0f} | {1e3 * each:.1f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
