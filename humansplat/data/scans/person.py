"""One scan made into a person of a data set: oriented, measured, fitted, normalised, labelled, rendered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.body.recorded import moved
from humansplat.body.scan_check import body_facing, check_body
from humansplat.body.smpl_files import Gender
from humansplat.data.format import FORMAT_VERSION, PersonRecord, Split
from humansplat.data.scans.layouts import ScanFile, Up
from humansplat.data.scans.normalisation import carried, metric_matrix, normalised
from humansplat.data.scans.orientation import given_unit, seen_up, unit_of, up_by_extent
from humansplat.data.scans.part_labels import labelled
from humansplat.data.scans.published import published_scale, read_published
from humansplat.data.scans.reading import read_scan
from humansplat.data.scans.rings import scan_cameras
from humansplat.data.scans.scan import Scan
from humansplat.errors import UserError
from humansplat.render.lighting import unlit
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import render_scene
from humansplat.render.shaded_mesh import ShadedMesh, merged
from humansplat.structures import Cameras, PosedBody, ScanFit

_VIEWS_AT_ONCE = 4
"""A view of 512 px takes 10 MB as floats while it is drawn."""


@dataclass(frozen=True, kw_only=True)
class ScanTask:
    """What all people of a data set share; every field changes the bytes that are written."""

    body_model: str
    gender: Gender
    split: Split
    size: int
    samples: int
    ring_cameras: int
    normals: bool
    depth: bool
    unit: str
    up: str


@runtime_checkable
class ScanTools(Protocol):
    """What a process loads once; ``humansplat.data.scans.tools`` has it."""

    def fit(self, meshes: Sequence[ShadedMesh], start: PosedBody | None) -> ScanFit:
        """Fit the body model; see ``humansplat.pipelines.scan_fitting.ScanFitter``."""
        ...

    def detect(self, rgba: Float[Tensor, "c 4 s s"]) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks of pictures; see ``humansplat.pipelines.scan_views.detect``."""
        ...


def make_record(
    scan_file: ScanFile, source: str, task: ScanTask, tools: ScanTools, models: Path | None
) -> PersonRecord:
    """Make everything that the folder of a person holds.

    Args:
        scan_file: The scan.
        source: What ``meta.json`` calls the scan, the same on every machine.
        task: What the data set asks for.
        tools: Of this process.
        models: Folder of the model files of SMPL's family.

    Raises:
        UserError: If the scan cannot be used; the sentence says why.
    """
    scan = read_scan(scan_file.path)
    up = _up(scan, scan_file, task, tools)
    unit = _unit(scan, scan_file, up, task)
    # Far from the origin float32 is short of digits, so the fit sees the scan in its own middle.
    points = scan.points @ metric_matrix(unit, up)[:3, :3].T
    middle = 0.5 * (points.min(axis=0) + points.max(axis=0))
    metric = metric_matrix(unit, up)
    metric[:3, 3] = -middle
    meshes = carried(scan.meshes, metric)
    body, facing, told = _body(meshes, scan_file, task, tools, models, unit, middle)
    normalization, body = normalised(body, facing, unit, up, middle)
    meshes = labelled(carried(scan.meshes, normalization.matrix), body)
    cameras, roles = _cameras(meshes, body, task)
    flags = told.pop("flags")
    assert isinstance(flags, tuple)
    meta: dict[str, object] = {
        "format": FORMAT_VERSION,
        "source": "scan",
        "split": task.split,
        "scan": {
            "file": source,
            "bytes": scan_file.path.stat().st_size,
            "layout": scan_file.layout,
            "faces": scan.num_faces,
            "notes": list(scan.notes),
        },
        "normalization": normalization.meta(),
        "fit": told,
        "flags": list(flags),
    }
    return _drawn(meshes, cameras, roles, body, meta, task)


def _up(scan: Scan, scan_file: ScanFile, task: ScanTask, tools: ScanTools) -> Up:
    """The axis that points up: as the user or the layout says, or as the person is seen to stand."""
    if task.up != "auto":
        return task.up  # type: ignore[return-value]
    points = _some(scan.points)
    stated: Up | None = "y" if scan_file.path.suffix.lower() in (".glb", ".gltf") else scan_file.up
    seen = seen_up(scan.meshes, points, stated or up_by_extent(points) or "y", tools.detect)
    if seen is None and stated is None and up_by_extent(points) is None:
        raise UserError(f"{scan_file.path}: nobody was seen in it standing along Y or Z; say which with --up")
    chosen = seen or stated or up_by_extent(points)
    assert chosen is not None
    return chosen


def _unit(scan: Scan, scan_file: ScanFile, up: Up, task: ScanTask) -> float:
    """Metres of one unit: as the user or a published fit says, or as the person's height tells."""
    return given_unit(task.unit) or published_scale(scan_file) or unit_of(scan.points, up, str(scan_file.path))


def _some(points: Float[np.ndarray, "n 3"], count: int = 20_000) -> Float[np.ndarray, "m 3"]:
    """Some of many points, with all that reach furthest along an axis."""
    extreme = np.concatenate([points.argmin(axis=0), points.argmax(axis=0)])
    spread = np.linspace(0, len(points) - 1, min(count, len(points))).astype(np.int64)
    return points[np.unique(np.concatenate([extreme, spread]))]


def _body(
    meshes: tuple[ShadedMesh, ...],
    scan_file: ScanFile,
    task: ScanTask,
    tools: ScanTools,
    models: Path | None,
    unit: float,
    middle: Float[np.ndarray, "3"],
) -> tuple[PosedBody, float, dict[str, object]]:
    """The body in a metric scan, the azimuth to which it faces, and what ``meta.json`` says of it.

    A published body is used if ``check_body`` finds nothing wrong with it; else it is fitted anew.
    """
    told: dict[str, object] = {"model": task.body_model, "source": "fitted"}
    if task.body_model == "smplx" and scan_file.fit is not None:
        published = read_published(scan_file, task.gender, models)
        assert published is not None
        body = moved(published.body, torch.eye(3), torch.from_numpy(-middle).float())
        wrong = check_body(body, *merged(meshes))
        if not wrong:
            told |= {"source": "published", "notes": list(published.notes), "flags": ()}
            return body, body_facing(body), told
        told |= {"published": [*published.notes, *wrong]}
    fit = tools.fit(meshes, None)
    told |= {
        "landmark_error": _rounded(fit.landmark_error),
        "coverage": _rounded(fit.coverage),
        "outside": _rounded(fit.outside),
        "flags": fit.flags,
    }
    return fit.body, fit.facing, told


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


def _cameras(meshes: tuple[ShadedMesh, ...], body: PosedBody, task: ScanTask) -> tuple[Cameras, tuple]:
    used = [np.unique(mesh.faces) for mesh in meshes]
    points = [mesh.vertices[which] for mesh, which in zip(meshes, used, strict=True)]
    labels = [mesh.parts[which] for mesh, which in zip(meshes, used, strict=True) if mesh.parts is not None]
    skin = body.vertices.numpy().astype(np.float32)
    return scan_cameras(
        np.concatenate([*points, skin]).astype(np.float64),
        np.concatenate([*labels, body.parts.numpy().astype(np.uint8)]),
        task.size,
        task.ring_cameras,
    )


def _drawn(
    meshes: tuple[ShadedMesh, ...],
    cameras: Cameras,
    roles: tuple,
    body: PosedBody,
    meta: dict[str, object],
    task: ScanTask,
) -> PersonRecord:
    """Draw all views, few at a time, and round them to whole numbers."""
    count, size = len(roles), task.size
    images, parts = np.empty((count, size, size, 4), np.uint8), np.empty((count, size, size), np.uint8)
    normals = np.empty((count, size, size, 4), np.uint8) if task.normals else None
    depth = np.empty((count, size, size), np.uint16) if task.depth else None
    scene = MeshScene(meshes, unlit())
    for start in range(0, count, _VIEWS_AT_ONCE):
        some = slice(start, start + _VIEWS_AT_ONCE)
        drawn = render_scene(scene, cameras[some], samples=task.samples)
        images[some] = (drawn.rgba * 255).round().byte().permute(0, 2, 3, 1).numpy()
        parts[some] = drawn.parts.numpy()
        if normals is not None:
            coded = ((drawn.normals + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
            normals[some, ..., 3] = images[some, ..., 3]
            normals[some, ..., :3] = np.where(images[some, ..., 3:] > 0, coded, 0)
        if depth is not None:
            depth[some] = (drawn.depth * 1000).round().clamp(0, 65535).numpy().astype(np.uint16)
    return PersonRecord(
        images=images, parts=parts, cameras=cameras, roles=roles, body=body, meta=meta, normals=normals, depth=depth
    )
