"""Synthetic people as a data set: drawn, rendered and written in parallel, resumable, reproducible to the byte."""

import functools
import hashlib
import itertools
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from tqdm import tqdm

from humansplat.data.format import (
    FORMAT_VERSION,
    MANIFEST,
    SPLITS,
    PersonRecord,
    Split,
    manifest_line,
    write_person,
)
from humansplat.data.rig import NUM_RIG_VIEWS, Role, draw_rig
from humansplat.data.scan_file import scan_glb
from humansplat.errors import UserError
from humansplat.io.atomic import replacing
from humansplat.render.lighting import Lighting, random_lighting
from humansplat.render.meshes import MeshImages, render_meshes
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras, PosedBody

logger = logging.getLogger(__name__)

SETTINGS = "dataset.json"
MAX_FAILED_SHARE = 0.02
TRAINING_PEOPLE = 2
"""Counts the changes of what training people are drawn from; 2 since poses are wide. Older folders do not say it."""
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Person(Protocol):
    """What a generator gives; ``humansplat.data.synthetic`` has it."""

    @property
    def meshes(self) -> Sequence[ShadedMesh]: ...
    @property
    def body(self) -> PosedBody: ...
    @property
    def meta(self) -> dict[str, object]: ...


PersonGenerator = Callable[[int, Split], Person]
"""Draws a person from a seed, of the assets of a split."""
GeneratorFactory = Callable[[Path], PersonGenerator]
"""Loads the assets of a folder, once a process; must be importable by name, as ``multiprocessing`` asks."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all people of a data set share; every field changes the bytes that are written."""

    seed: int
    split: Split
    num_novel: int
    num_closeups: int
    size: int
    samples: int
    scans: bool


@dataclass(frozen=True, kw_only=True)
class Synthesized:
    """What :func:`synthesize` did."""

    names: tuple[str, ...]
    """All people of the data set that were asked for, in the order of the manifest."""
    failed: dict[str, str]
    """Names of those that could not be made, and why."""
    num_new: int
    """People made now; the others were there."""
    seconds: float


def synthesize(
    assets: Path,
    out: Path,
    num: int,
    *,
    seed: int = 0,
    split: Split = "train",
    scans: bool = False,
    workers: int | None = None,
    num_novel: int = 12,
    num_closeups: int | None = None,
    size: int = 256,
    samples: int = 2,
    progress: bool = True,
    factory: GeneratorFactory | None = None,
) -> Synthesized:
    """Make people and write them as a data set (``docs/data-format.md``).

    Complete people of an earlier run are kept, what a broken one left is removed. Person ``i`` has the
    same bytes whatever the number of workers, and wherever an earlier run stopped.

    Args:
        assets: Folder of MakeHuman assets.
        out: Folder of the data set.
        num: People in the data set, those that are there already included.
        seed: Seed of the data set.
        split: Which assets to use.
        scans: Also write each person's textured mesh, ``scan.glb``.
        workers: Processes; ``None`` takes one a core, 0 works in this process.
        num_novel: Views beyond the four of the rig.
        num_closeups: How many of those are close to the upper body; by default a quarter for training, none for
            validation.
        size: Side of the square pictures, pixels.
        samples: Rays along each side of a pixel.
        progress: Show a progress bar.
        factory: What draws the people; by default ``humansplat.data.synthetic``.

    Raises:
        UserError: If an argument is out of range, the assets are missing, or ``out`` holds a data set made with
            other settings.
        RuntimeError: If more than one person in fifty could not be made.
    """
    if num_closeups is None:
        num_closeups = num_novel // 4 if split == "train" else 0
    task = Task(
        seed=seed,
        split=split,
        num_novel=num_novel,
        num_closeups=num_closeups,
        size=size,
        samples=samples,
        scans=scans,
    )
    _check(task, assets, num, workers)
    _claim(out, task, assets)
    _remove_leftovers(out)
    began = time.monotonic()
    names = [person_name(split, index) for index in range(num)]
    known = _known_lines(out)
    missing = [index for index, name in enumerate(names) if not (out / name).is_dir()]
    beyond = sorted(known.keys() - set(names))  # of an earlier run that asked for more people
    order = [*names, *beyond]
    listed = _cut_manifest(out, order, known)
    failed: dict[str, str] = {}
    made = _make_all(factory or library_generator, assets, out, task, missing, _num_workers(workers, len(missing)))
    bar = tqdm(total=num, initial=num - len(missing), unit="person", desc=f"people ({split})", disable=not progress)
    with bar, closing(made), (out / MANIFEST).open("a", encoding="utf-8", newline="\n") as manifest:
        remaining = set(names[index] for index in missing)
        for name in order:
            # Lines are appended in the order of the people, so the manifest does not tell who was made when.
            if name in remaining:
                trouble = next(made)
                bar.update()
                if trouble is not None:
                    failed[name] = trouble
                    logger.warning("left out %s: %s", name, trouble)
                    continue
            if name not in listed:
                manifest.write(known.get(name) or manifest_line(out / name))
                manifest.write("\n")
                manifest.flush()
    if len(failed) > MAX_FAILED_SHARE * num:
        raise RuntimeError(f"{len(failed)} of {num} people could not be made, the first of them: {failed}")
    return Synthesized(
        names=tuple(name for name in names if name not in failed),
        failed=failed,
        num_new=len(missing) - len(failed),
        seconds=time.monotonic() - began,
    )


def person_name(split: Split, index: int) -> str:
    """Folder name of a person."""
    return f"{split}-{index:06d}"


def person_seed(seed: int, split: Split, index: int) -> int:
    """Seed of one person, below 2**63: distinct for every seed, split and index in practice."""
    words = np.random.SeedSequence([seed, SPLITS.index(split), index]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def make_person(generate: PersonGenerator, task: Task, index: int, out: Path) -> None:
    """Draw, render and write one person."""
    seed = person_seed(task.seed, task.split, index)
    person = generate(seed, task.split)
    rng = np.random.default_rng([seed, 1])  # apart from the generator's, so that neither shifts the other's draws
    lighting = random_lighting(rng)
    points = np.concatenate([mesh.vertices[np.unique(mesh.faces)] for mesh in person.meshes])
    cameras, roles = draw_rig(points.astype(np.float64), rng, task.size, task.num_novel, task.num_closeups)
    pictures = render_meshes(person.meshes, cameras, lighting, samples=task.samples)
    meta: dict[str, object] = {
        "format": FORMAT_VERSION,
        "source": "synthetic",
        "split": task.split,
        "index": index,
        "seed": seed,
        "lighting": _lighting_meta(lighting),
        "person": person.meta,
    }
    scan = scan_glb(person.meshes) if task.scans else None
    write_pictures(out / person_name(task.split, index), pictures, cameras, roles, person.body, meta, scan)


def write_pictures(
    folder: Path,
    pictures: MeshImages,
    cameras: Cameras,
    roles: tuple[Role, ...],
    body: PosedBody,
    meta: dict[str, object],
    scan: bytes | None = None,
) -> None:
    """Round pictures to 8 bits and write them with all that belongs to them; see ``write_person``."""
    record = PersonRecord(
        images=(pictures.rgba * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy(),
        parts=pictures.parts.numpy(),
        cameras=cameras,
        roles=roles,
        body=body,
        meta=meta,
    )
    write_person(folder, record, scan)


def library_generator(assets: Path) -> PersonGenerator:
    """The people of ``humansplat.data.synthetic``."""
    from humansplat.data.synthetic import AssetLibrary, generate_person

    library = AssetLibrary(assets)
    return lambda seed, split: generate_person(library, seed, split)


def _check(task: Task, assets: Path, num: int, workers: int | None) -> None:
    if not assets.is_dir():
        raise UserError(f"there is no asset folder {assets}; give --assets the folder that holds clothes, hair, skins")
    for name, value, low in (("num", num, 1), ("size", task.size, 16), ("samples", task.samples, 1)):
        if value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    if task.split not in SPLITS:
        raise UserError(f"there is no split {task.split!r}; take one of {', '.join(SPLITS)}")
    if task.seed < 0:
        raise UserError(f"seed is {task.seed}; it must not be negative")
    if workers is not None and workers < 0:
        raise UserError(f"workers is {workers}; it must not be negative")
    if not 0 <= task.num_closeups <= task.num_novel:
        raise UserError(
            f"{task.num_closeups} close-ups among {task.num_novel} novel views; ask for no more than those"
        )


def _claim(out: Path, task: Task, assets: Path) -> None:
    """Write the settings of a new data set, or compare them with those of the one that is there."""
    settings = {name: getattr(task, name) for name in task.__dataclass_fields__}
    settings |= {"format": FORMAT_VERSION, "views": NUM_RIG_VIEWS + task.num_novel, "assets": _fingerprint(assets)}
    if task.split == "train":
        settings["people"] = TRAINING_PEOPLE
    path = out / SETTINGS
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise UserError(f"{out} is not empty and holds no {SETTINGS}; give --out a new folder")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="\n")
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name in settings if found.get(name) != settings[name]]
    if other:
        changes = ", ".join(f"{name} {found.get(name)!r}, now {settings[name]!r}" for name in other)
        raise UserError(f"{out} was made with other settings ({changes}); repeat those or give --out a new folder")


def _fingerprint(assets: Path) -> str:
    """Digest of names and sizes of all asset files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in assets.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(assets).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _remove_leftovers(out: Path) -> None:
    """Remove the temporary names of a run that was killed (``humansplat.io.atomic``)."""
    for path in out.iterdir():
        if not re.match(r"\.[0-9a-f]{8}\.", path.name):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _known_lines(out: Path) -> dict[str, str]:
    """The manifest's line of each person who is there; a line cut short does not count."""
    path = out / MANIFEST
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    lines = text[: text.rfind("\n") + 1].splitlines()
    named = {json.loads(line)["name"]: line for line in lines}
    return {name: line for name, line in named.items() if (out / name).is_dir()}


def _cut_manifest(out: Path, order: Sequence[str], known: dict[str, str]) -> set[str]:
    """Cut the manifest before the first person whose line is missing; return the people before."""
    before = list(itertools.takewhile(known.__contains__, order))
    path = out / MANIFEST
    content = "".join(f"{known[name]}\n" for name in before)
    if path.is_file() and path.read_text(encoding="utf-8") != content:
        with replacing(path) as temporary:
            temporary.write_text(content, encoding="utf-8", newline="\n")
    return set(before)


def _num_workers(workers: int | None, num_people: int) -> int:
    return min(workers if workers is not None else os.cpu_count() or 1, num_people)


def _make_all(
    factory: GeneratorFactory, assets: Path, out: Path, task: Task, indices: Sequence[int], workers: int
) -> Generator[str | None]:
    """Make people; for each, in order, what went wrong with it or ``None``."""
    if not indices:
        return
    if workers == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in the workers: sums in another order have other last digits
        try:
            generate = factory(assets)
            for index in indices:
                yield _attempt(generate, task, index, out)
        finally:
            torch.set_num_threads(threads)
        return
    with _one_thread_a_process():
        context = multiprocessing.get_context("spawn")
        stop = context.Event()
        executor = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(stop,))
        pending: deque[Future[str | None]] = deque()
        try:
            for index in indices:
                pending.append(executor.submit(_work, factory, assets, task, index, out))
                # A slow person must not idle the others, nor the queue grow with the data set.
                if len(pending) >= 8 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
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


_stop: list[Event] = []  # one element, in worker processes only


def _start_worker(stop: Event) -> None:
    _stop[:] = [stop]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a person begun is finished
    torch.set_num_threads(1)


def _work(factory: GeneratorFactory, assets: Path, task: Task, index: int, out: Path) -> str | None:
    if _stop[0].is_set():  # it was handed out already when the parent was interrupted
        return None
    return _attempt(_loaded(factory, assets), task, index, out)


@functools.cache
def _loaded(factory: GeneratorFactory, assets: Path) -> PersonGenerator:
    """The generator of this process; not made in the initializer, whose exceptions never reach the parent."""
    return factory(assets)


def _attempt(generate: PersonGenerator, task: Task, index: int, out: Path) -> str | None:
    """Make one person; a rare degenerate draw costs that person, not the data set."""
    try:
        make_person(generate, task, index, out)
    except UserError:
        raise
    except (ArithmeticError, IndexError, ValueError, np.linalg.LinAlgError) as error:
        return f"{type(error).__name__}: {error} (seed {person_seed(task.seed, task.split, index)})"
    return None


def _lighting_meta(lighting: Lighting) -> dict[str, object]:
    def rounded(array: np.ndarray) -> list:
        return np.round(array.astype(np.float64), 5).tolist()

    return {
        "environment": rounded(lighting.environment),
        "directions": rounded(lighting.directions),
        "colors": rounded(lighting.colors),
        "softness": round(lighting.softness, 5),
    }
