"""Scans as a data set: found, fitted, rendered and written in parallel, resumable, over as many machines as wanted."""

import errno
import json
import logging
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from humansplat.body.models import MODEL_NAMES
from humansplat.body.smpl_files import Gender
from humansplat.data.format import FORMAT_VERSION, MANIFEST, SPLITS, Split, write_person
from humansplat.data.holding import holding
from humansplat.data.production import (
    Production,
    check_workers,
    claim,
    merge_manifests,
    produce,
    refuse_beside_shards,
    remove_leftovers,
)
from humansplat.data.rig import NUM_RIG_VIEWS
from humansplat.data.scans.layouts import LAYOUTS, UPS, Layout, ScanFile, find_scans
from humansplat.data.scans.orientation import given_unit
from humansplat.data.scans.person import ScanTask, make_record
from humansplat.data.scans.published import PUBLISHED_GENDER
from humansplat.data.scans.rings import RING_CAMERAS, RINGS
from humansplat.data.scans.tools import FittingTools, ToolsFactory
from humansplat.data.worker import Maker
from humansplat.errors import UserError
from humansplat.io.atomic import replacing

logger = logging.getLogger(__name__)

PREPARATION = 1
"""Counts the changes of what is made of the same scan."""
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What :func:`prepare` did."""

    names: tuple[str, ...]
    """People who are there now, of those whom this run was to prepare."""
    failed: dict[str, str]
    """Names of those who could not be prepared, and why."""
    flagged: dict[str, tuple[str, ...]]
    """Names of those whose body is not to be trusted, and why; part of ``names``, and left out of training."""
    num_new: int
    """People made now; the others were there."""
    seconds: float


def prepare(
    scans: Path,
    out: Path,
    *,
    layout: Layout | Literal["auto"] = "auto",
    fits: Path | None = None,
    shard: str | None = None,
    body_model: str = "anny",
    gender: Gender | None = None,
    models: Path | None = None,
    split: Split = "train",
    size: int = 512,
    samples: int = 2,
    ring_cameras: int = RING_CAMERAS,
    normals: bool = False,
    depth: bool = False,
    unit: str = "auto",
    up: str = "auto",
    workers: int | None = None,
    progress: bool = True,
    factory: ToolsFactory | None = None,
) -> Prepared:
    """Prepare scans and write them as a data set (``docs/data-format.md``).

    People of an earlier run are kept, what a killed one left is removed, and who failed is tried again. A broken scan
    costs itself only. The manifest has the same bytes in the end, however the work was cut up.

    Args:
        scans: Folder of scans, or one scan.
        out: Folder of the data set.
        layout: Whose scans they are; ``auto`` looks at the names.
        fits: Folder of the bodies that are published with the scans; by default looked for in and beside ``scans``.
        shard: ``i/n``: only every n-th scan, beginning with the i-th, from 1; for n machines.
        body_model: Fitted to the scans; ``smplx`` takes the published bodies where there are any.
        gender: Which file of SMPL's family; by default that of the published bodies, or else the neutral one.
        models: Folder of the model files of SMPL's family; by default what ``HUMANSPLAT_BODY_MODELS`` names.
        split: What the people are for.
        size: Side of the square pictures, pixels.
        samples: Rays along each side of a pixel.
        ring_cameras: On each of the three rings.
        normals: Also write normal maps.
        depth: Also write depth maps.
        unit: What the scans' numbers count: ``m``, ``cm``, ``mm``, metres as a number, or ``auto``.
        up: The axis that points up in the scans: ``y``, ``y-down``, ``z``, ``z-down``, or ``auto``.
        workers: Processes; ``None`` takes one a core, 0 works in this process.
        progress: Show a progress bar.
        factory: What loads the fitter; by default ``humansplat.data.scans.tools``.

    Raises:
        UserError: If an argument is out of range, there are no scans, ``out`` holds another data set or one that
            shards make, another run is at work there, or what the fitter needs is missing.
    """
    files = find_scans(scans, layout, fits)
    published = body_model == "smplx" and any(file.fit is not None for file in files)
    if body_model == "smplx" and not published:
        logger.warning("no published bodies in or beside %s: all are fitted; --fits names their folder", scans)
    task = ScanTask(
        body_model=body_model,
        gender=gender or (PUBLISHED_GENDER if published else "neutral"),
        split=split,
        size=size,
        samples=samples,
        ring_cameras=ring_cameras,
        normals=normals,
        depth=depth,
        unit=unit,
        up=up,
    )
    _check(task, layout, workers)
    chosen, manifest = _shard_of(files, shard)
    claim(out, _settings(task))
    people = {file.name: file for file in chosen}
    _check_sources(out, people, scans)
    failures = out / manifest.replace("manifest", "failures").replace(".jsonl", ".json")
    began = time.monotonic()
    production = Production(
        load=_load_maker, arguments=(factory or FittingTools, task, scans, out, models), workers=workers
    )
    failed: dict[str, str] = {}
    num_tried = 0
    with holding(out, manifest):
        if shard is None:
            refuse_beside_shards(out)
        remove_leftovers(out, None if shard is None else [*people, manifest, failures.name])
        making = produce(out, people, production, manifest=manifest, description="scans", progress=progress)
        with closing(making) as made:
            for name, trouble in made:
                num_tried += 1
                if trouble is not None:
                    failed[name] = trouble
        _remember(failed, failures)
        flags = merge_manifests(out)
    return Prepared(
        names=tuple(name for name in people if name not in failed),
        failed=failed,
        flagged={name: flags[name] for name in people if flags.get(name)},
        num_new=num_tried - len(failed),
        seconds=time.monotonic() - began,
    )


def _check(task: ScanTask, layout: str, workers: int | None) -> None:
    if layout not in ("auto", *LAYOUTS):
        raise UserError(f"there is no layout {layout!r}; take auto, {', '.join(LAYOUTS)}")
    if task.body_model not in MODEL_NAMES:
        raise UserError(f"there is no body model {task.body_model!r}; take one of {', '.join(MODEL_NAMES)}")
    if task.split not in SPLITS:
        raise UserError(f"there is no split {task.split!r}; take one of {', '.join(SPLITS)}")
    if task.up not in ("auto", *UPS):
        raise UserError(f"up is {task.up!r}; give auto, {', '.join(UPS)}")
    given_unit(task.unit)
    if task.body_model == "anny" and task.gender != "neutral":
        raise UserError(f"gender is {task.gender!r}, but the body model anny has no files of a gender; leave it out")
    for name, value, low in (("size", task.size, 16), ("samples", task.samples, 1), ("ring", task.ring_cameras, 1)):
        if value < low:
            raise UserError(f"{name} is {value}; it must be at least {low}")
    check_workers(workers)


def _shard_of(files: list[ScanFile], shard: str | None) -> tuple[list[ScanFile], str]:
    """Every n-th scan, and the name of the shard's own manifest."""
    if shard is None:
        return files, MANIFEST
    part, _, parts = shard.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UserError(f"shard is {shard!r}; give i/n with i from 1 to n, for example 1/4")
    return files[int(part) - 1 :: int(parts)], f"manifest.{int(part)}-of-{int(parts)}.jsonl"


def _settings(task: ScanTask) -> dict[str, object]:
    """All that changes the bytes of the people, but for the scans themselves."""
    settings: dict[str, object] = {name: getattr(task, name) for name in task.__dataclass_fields__}
    views = NUM_RIG_VIEWS + len(RINGS) * task.ring_cameras
    return settings | {"format": FORMAT_VERSION, "source": "scan", "views": views, "preparation": PREPARATION}


def _check_sources(out: Path, people: dict[str, ScanFile], scans: Path) -> None:
    """Refuse to take somebody else's folder for a scan that has been prepared."""
    for name, file in people.items():
        path = out / name / "meta.json"
        if not path.is_file():
            continue
        found = json.loads(path.read_text(encoding="utf-8")).get("scan", {}).get("file")
        if found != relative_name(file.path, scans):
            raise UserError(
                f"{out / name} was made of {found}, not of {relative_name(file.path, scans)}; "
                "prepare these scans into another folder"
            )


def relative_name(path: Path, scans: Path) -> str:
    """A scan's path from the folder that was given, the same on every machine."""
    return path.relative_to(scans if scans.is_dir() else scans.parent).as_posix()


def _remember(failed: dict[str, str], path: Path) -> None:
    """Keep the reasons beside the manifest until a run has none."""
    if not failed:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(failed, indent=1) + "\n", encoding="utf-8", newline="\n")


def _load_maker(factory: ToolsFactory, task: ScanTask, scans: Path, out: Path, models: Path | None) -> Maker:
    """Makes the person of a scan; a process loads the fitter once."""
    tools = factory(task, models)

    def make(file: object) -> str | None:
        assert isinstance(file, ScanFile)
        try:
            write_person(out / file.name, make_record(file, relative_name(file.path, scans), task, tools, models))
        except OSError as error:
            if error.errno in _FULL_DISK:
                raise
            return f"{type(error).__name__}: {error}"
        except UserError as error:
            return str(error)
        except (ArithmeticError, IndexError, KeyError, ValueError, RuntimeError, MemoryError) as error:
            return f"{type(error).__name__}: {error}"
        return None

    return make
