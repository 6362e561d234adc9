"""Synthetic people as a data set: drawn, rendered and written in parallel, resumable, reproducible to the byte."""

import hashlib
import json
import logging
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from humansplat.data.format import FORMAT_VERSION, SPLITS, PersonRecord, Split, write_person
from humansplat.data.holding import holding
from humansplat.data.people_source import GeneratorFactory, PersonGenerator, people_source
from humansplat.data.production import Production, check_workers, claim, produce, remove_leftovers
from humansplat.data.rig import NUM_RIG_VIEWS, Role, draw_rig
from humansplat.data.scan_file import scan_glb
from humansplat.data.synthetic.environments import random_environment
from humansplat.data.worker import Maker
from humansplat.errors import UserError
from humansplat.render.lighting import Lighting, random_lighting
from humansplat.render.meshes import MeshImages, render_meshes
from humansplat.structures import Cameras, PosedBody

logger = logging.getLogger(__name__)

MAX_FAILED_SHARE = 0.02
TRAINING_PEOPLE = 3
"""Counts the changes of what training people are drawn from: 2 since poses are wide, 3 since cloth falls and children
are among them. Older folders do not say it."""


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
        assets: Folder or zip file of MakeHuman assets, or a folder of rigged characters.
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
        factory: What draws the people; by default what ``people_source`` finds for the assets.

    Raises:
        UserError: If an argument is out of range, the assets are missing, ``out`` holds a data set made with
            other settings, or another run is at work there.
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
    if factory is None:
        source = people_source(assets)
        assets, factory = source.folder, source.factory
    _check(task, assets, num, workers)
    claim(out, _settings(task, assets))
    began = time.monotonic()
    people = {person_name(split, index): index for index in range(num)}
    production = Production(load=_load_maker, arguments=(factory, assets, task, out), workers=workers)
    failed: dict[str, str] = {}
    told: set[str] = set()
    num_tried = 0
    description = f"people ({split})"
    with holding(out):
        remove_leftovers(out)
        with closing(produce(out, people, production, description=description, progress=progress)) as made:
            for name, trouble in made:
                num_tried += 1
                if trouble is not None:
                    failed[name] = trouble
                    logger.warning("left out %s: %s", name, trouble)
                else:
                    _tell_notes(out / name, told)
    if len(failed) > MAX_FAILED_SHARE * num:
        raise RuntimeError(f"{len(failed)} of {num} people could not be made, the first of them: {failed}")
    return Synthesized(
        names=tuple(name for name in people if name not in failed),
        failed=failed,
        num_new=num_tried - len(failed),
        seconds=time.monotonic() - began,
    )


def _tell_notes(folder: Path, told: set[str]) -> None:
    """Tell once what was corrected in a character: the processes that make people have no log of their own."""
    person = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["person"]
    if person.get("notes") and person["character"] not in told:
        told.add(person["character"])
        logger.info("%s: %s", person["character"], "; ".join(person["notes"]))


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
    # Validation people keep the light they always had.
    lighting = random_environment(rng) if task.split == "train" else random_lighting(rng)
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
    check_workers(workers)
    if not 0 <= task.num_closeups <= task.num_novel:
        raise UserError(
            f"{task.num_closeups} close-ups among {task.num_novel} novel views; ask for no more than those"
        )


def _settings(task: Task, assets: Path) -> dict[str, object]:
    """All that changes the bytes of the people."""
    settings = {name: getattr(task, name) for name in task.__dataclass_fields__}
    settings |= {"format": FORMAT_VERSION, "views": NUM_RIG_VIEWS + task.num_novel, "assets": _fingerprint(assets)}
    if task.split == "train":
        settings["people"] = TRAINING_PEOPLE
    return settings


def _fingerprint(assets: Path) -> str:
    """Digest of names and sizes of all asset files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in assets.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(assets).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def _load_maker(factory: GeneratorFactory, assets: Path, task: Task, out: Path) -> Maker:
    """Makes the person of an index; a process loads the assets once."""
    generate = factory(assets)
    return lambda index: _attempt(generate, task, int(index), out)  # type: ignore[call-overload]


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
