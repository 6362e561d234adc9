"""People made by many processes and listed in a manifest, so that a run that was killed is gone on with.

``synthesize`` draws people and ``prepare`` makes them of scans; both are here but for that. A maker writes the folder
of one person, which appears whole or not at all (``humansplat.io.atomic``). The manifest lists those who are complete,
in the order of the people, so that it has the same bytes however the work was cut up.
"""

import itertools
import json
import multiprocessing
import os
import re
import shutil
import sys
from collections import deque
from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from humansplat.data.format import MANIFEST, manifest_line
from humansplat.data.worker import MakerLoader, start_worker, work
from humansplat.errors import UserError
from humansplat.io.atomic import creating, replacing

SETTINGS = "dataset.json"
PARTS = "manifest.*-of-*.jsonl"
"""Of machines that share the work."""
DIED = "its process died, of too little memory or a fault in a library"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MOST_ON_WINDOWS = 61
"""Processes that an executor can wait for there."""
_LEFTOVER = re.compile(r"\.[0-9a-f]{8}\.(.+)")
"""The temporary names of ``humansplat.io.atomic``."""


@dataclass(frozen=True, kw_only=True)
class Production:
    """How people are made: ``load(*arguments)`` gives the maker in each process."""

    load: MakerLoader
    arguments: tuple[Hashable, ...]
    workers: int | None = None
    """Processes; ``None`` takes one a core, 0 works in this process."""


def check_workers(workers: int | None) -> None:
    """Refuse a negative number of processes.

    Raises:
        UserError: If it is one.
    """
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}; it must not be negative")


def claim(out: Path, settings: Mapping[str, object]) -> None:
    """Write the settings of a new data set, or compare them with those of the one that is there.

    Args:
        out: Folder of the data set.
        settings: All that changes the bytes of its people, as JSON has it.

    Raises:
        UserError: If the folder holds something else, or a data set of other settings.
    """
    path = out / SETTINGS
    if out.is_file():
        raise UserError(f"{out} is a file; give --out a folder")
    if not path.is_file():
        # Names with a dot may be another shard's settings on their way.
        if out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir()) and not path.is_file():
            raise UserError(f"{out} is not empty and holds no {SETTINGS}; give --out a new folder")
        # Another run may be faster, and remove what is written here as a left-over.
        with suppress(FileExistsError, FileNotFoundError), creating(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); give --out a new folder") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds no settings; give --out a new folder")
    other = [name for name in settings if found.get(name) != settings[name]]
    if other:
        changes = ", ".join(f"{name} {found.get(name)!r}, now {settings[name]!r}" for name in other)
        raise UserError(f"{out} was made with other settings ({changes}); repeat those or give --out a new folder")


def refuse_beside_shards(out: Path) -> None:
    """Refuse to make a whole data set where shards make it: they may be at work, and would lose lines and files.

    Raises:
        UserError: If a shard's manifest is there.
    """
    parts = sorted(part.name for part in out.glob(PARTS))
    if parts:
        raise UserError(
            f"{out} is made in shards ({', '.join(parts)}); give --shard as before, or delete these files if no shard "
            "is at work"
        )


def remove_leftovers(out: Path, names: Sequence[str] | None = None) -> None:
    """Remove the temporary names of a run that was killed.

    Args:
        out: Folder of the data set.
        names: Only what would have become one of these; another shard may be at work on the rest.
    """
    wanted = None if names is None else set(names)
    for path in out.iterdir():
        found = _LEFTOVER.fullmatch(path.name)
        if found is None or (wanted is not None and found.group(1) not in wanted):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def produce(
    out: Path,
    people: Mapping[str, Hashable],
    production: Production,
    *,
    manifest: str = MANIFEST,
    keep: bool = True,
    description: str = "people",
    progress: bool = True,
) -> Generator[tuple[str, str | None], None, None]:
    """Make the people who are missing, and list all in the manifest.

    Args:
        out: Folder of the data set.
        people: What the maker makes each person of, by the people's names, in their order.
        production: How to make them.
        manifest: Name of the manifest in ``out``.
        keep: Keep the lines of people of an earlier run that are not among these, at the end.
        description: Of the progress bar.
        progress: Show a progress bar.

    Yields:
        Name and trouble (``None`` if there was none) of each person that was not there, in their order.
    """
    names = list(people)
    known = _known_lines(out, manifest)
    missing = [name for name in names if not (out / name).is_dir()]
    order = [*names, *(sorted(known.keys() - set(names)) if keep else ())]
    listed = _cut_manifest(out / manifest, order, known)
    made = _make_all(production, [people[name] for name in missing])
    bar = tqdm(total=len(names), initial=len(names) - len(missing), unit="person", desc=description)
    bar.disable = not progress
    remaining = set(missing)
    with bar, closing(made), (out / manifest).open("a", encoding="utf-8", newline="\n") as file:
        for name in order:
            # Lines are appended in the order of the people, so the manifest does not tell who was made when.
            if name in remaining:
                trouble = next(made)
                bar.update()
                yield name, trouble
                if trouble is not None:
                    continue
            if name not in listed:
                file.write(known.get(name) or manifest_line(out / name))
                file.write("\n")
                file.flush()


def merge_manifests(out: Path) -> dict[str, tuple[str, ...]]:
    """Put the lines of all shards' manifests into the one that readers look at, in the order of the names.

    Shards of one folder do so whenever one of them is through; a data set that was never cut up stays as it is.

    Returns:
        What is wrong with each person, by name, as the lines say.
    """
    while True:
        parts = sorted(out.glob(PARTS))
        before = [(part.name, part.stat().st_mtime_ns, part.stat().st_size) for part in parts]
        lines = _known_lines(out, MANIFEST)
        if not parts:
            break
        for part in parts:
            lines |= _known_lines(out, part.name)
        with replacing(out / MANIFEST) as temporary:
            content = "".join(f"{lines[name]}\n" for name in sorted(lines))
            temporary.write_text(content, encoding="utf-8", newline="\n")
        # Another shard may have come to its end meanwhile and written more than was known here.
        if before == [(part.name, part.stat().st_mtime_ns, part.stat().st_size) for part in sorted(out.glob(PARTS))]:
            break
    return {name: tuple(json.loads(line).get("flags", ())) for name, line in lines.items()}


def _known_lines(out: Path, manifest: str) -> dict[str, str]:
    """The manifest's line of each person who is there; a line cut short does not count."""
    path = out / manifest
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    try:
        named = {json.loads(line)["name"]: line for line in lines}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest ({error!r}); delete it, and the next run writes it anew") from error
    return {name: line for name, line in named.items() if (out / name).is_dir()}


def _cut_manifest(path: Path, order: Sequence[str], known: Mapping[str, str]) -> set[str]:
    """Cut the manifest before the first person whose line is missing; return the people before."""
    before = list(itertools.takewhile(known.__contains__, order))
    content = "".join(f"{known[name]}\n" for name in before)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="\n")
    return set(before)


def _make_all(production: Production, items: Sequence[Hashable]) -> Generator[str | None, None, None]:
    """Make people; for each, in order, what went wrong with it or ``None``."""
    if not items:
        return
    workers = production.workers if production.workers is not None else os.cpu_count() or 1
    if sys.platform == "win32":
        workers = min(workers, _MOST_ON_WINDOWS)
    if workers == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the workers: sums in another order have other last digits
        try:
            make = production.load(*production.arguments)
            for item in items:
                yield make(item)
        finally:
            torch.set_num_threads(threads)
        return
    with _one_thread_a_process():
        left = deque(items)
        while left:
            yield from _until_a_process_dies(production, left, min(workers, len(left)))
            if left:
                yield from _one_by_one(production, left, workers)


def _until_a_process_dies(
    production: Production, left: deque[Hashable], workers: int
) -> Generator[str | None, None, None]:
    """Make people in a pool and take them off ``left``; end early when a process of the pool dies."""
    with _pool(workers) as executor:
        pending: deque[Future[str | None]] = deque()
        queue = iter(left.copy())
        try:
            # A slow person must not idle the others, nor the queue grow with the data set.
            for item in itertools.islice(queue, 8 * workers):
                pending.append(executor.submit(work, production.load, production.arguments, item))
            while pending:
                trouble = pending[0].result()
                pending.popleft()
                left.popleft()
                yield trouble
                for item in itertools.islice(queue, 1):
                    pending.append(executor.submit(work, production.load, production.arguments, item))
        except BrokenProcessPool:
            return


def _one_by_one(production: Production, left: deque[Hashable], workers: int) -> Generator[str | None, None, None]:
    """After a death: those who may have caused it one at a time, so that it costs nobody but them."""
    with _pool(1) as executor:
        for _ in range(min(8 * workers, len(left))):
            try:
                trouble = executor.submit(work, production.load, production.arguments, left[0]).result()
            except BrokenProcessPool:
                trouble = DIED
            left.popleft()
            yield trouble
            if trouble == DIED:
                return


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    executor = ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(stop,))
    try:
        yield executor
    finally:  # also when interrupted: the people at work are finished, the rest is not begun
        stop.set()
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_a_process() -> Iterator[None]:
    """Set what the workers' libraries read at import, for the workers only."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
