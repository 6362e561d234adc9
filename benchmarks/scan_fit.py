"""Judge fits to scans on people that `humansplat synthesize --scans` wrote, whose bodies are known.

python benchmarks/scan_fit.py DATA [--limit 50] [--workers 1] [--sheet FILE.png]

Each scan is turned about the vertical and moved by amounts drawn from the person's name, fitted, and the fit is
carried back. Errors are distances in the frame of the scan: nothing is aligned. Seconds are the fit's own, without
reading the file. Prints Markdown.
"""

import argparse
import math
import multiprocessing
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from humansplat.body.anny import AnnyBody
from humansplat.body.parts import PART_NAMES
from humansplat.body.scan_check import body_left
from humansplat.data.format import read_manifest, read_person
from humansplat.data.scans.reading import read_scan
from humansplat.geometry.projection import intrinsics, look_at
from humansplat.pipelines.scan_fitting import ScanFitter
from humansplat.render.meshes import render_meshes
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import Cameras

REGIONS = {
    "head and neck": ("head", "neck"),
    "trunk": ("hips", "spine", "spine1", "spine2", "leftShoulder", "rightShoulder"),
    "upper arms": ("leftArm", "rightArm"),
    "forearms": ("leftForeArm", "rightForeArm"),
    "hands": ("leftHand", "rightHand"),
    "fingers": ("leftHandIndex1", "rightHandIndex1"),
    "thighs": ("leftUpLeg", "rightUpLeg"),
    "lower legs": ("leftLeg", "rightLeg"),
    "feet": ("leftFoot", "rightFoot", "leftToeBase", "rightToeBase"),
}
ROW_SIZE = 320


@dataclass(frozen=True)
class Row:
    """One person's result."""

    name: str
    vertices: float
    """Mean vertex error, mm."""
    joints: float
    regions: tuple[float, ...]
    seconds: float
    facing_off: float
    """Degrees between the azimuth that the fit reports and the true trunk's."""
    flags: tuple[str, ...]
    fitted: np.ndarray
    """Vertices, carried back."""


@cache
def fitter() -> ScanFitter:
    """One a process."""
    return ScanFitter()


def placement(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The turn about +Y and the shift, metres, of one person's scan."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    angle = random.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]]), random.uniform(-2, 2, 3)


def placed(meshes: Sequence[ShadedMesh], turn: np.ndarray, shift: np.ndarray) -> list[ShadedMesh]:
    """The meshes, turned and moved."""
    return [
        replace(
            mesh,
            vertices=(mesh.vertices @ turn.T + shift).astype(np.float32),
            normals=None if mesh.normals is None else (mesh.normals @ turn.T).astype(np.float32),
        )
        for mesh in meshes
    ]


def fit_person(folder: Path) -> Row:
    """Fit one scan and compare."""
    torch.set_num_threads(1)
    fit_scan = fitter()
    assert isinstance(fit_scan.model, AnnyBody)
    turn, shift = placement(folder.name)
    meshes = placed(read_scan(folder / "scan.glb").meshes, turn, shift)
    start = time.perf_counter()
    fit = fit_scan(meshes)
    seconds = time.perf_counter() - start
    true = read_person(folder, fit_scan.model.pose({}), views=[0]).body
    found, joints = ((points.numpy() - shift) @ turn for points in (fit.body.vertices, fit.body.joints))
    errors = 1000 * np.linalg.norm(found - true.vertices.numpy(), axis=1)
    labels = true.parts.numpy()
    regions = [
        errors[np.isin(labels, [PART_NAMES.index(part) for part in parts])].mean() for parts in REGIONS.values()
    ]
    left = turn @ body_left(true)
    off = math.degrees(fit.facing - math.atan2(-left[2], left[0]))
    return Row(
        name=folder.name,
        vertices=float(errors.mean()),
        joints=1000 * float(np.linalg.norm(joints - true.joints.numpy(), axis=1).mean()),
        regions=tuple(float(value) for value in regions),
        seconds=seconds,
        facing_off=abs((off + 180) % 360 - 180),
        flags=fit.flags,
        fitted=found,
    )


def report(rows: Sequence[Row]) -> str:
    """All people in Markdown."""
    vertices, joints, seconds = (np.array([getattr(row, name) for row in rows]) for name in _COLUMNS)
    flagged = np.array([bool(row.flags) for row in rows])
    lines = [f"{len(rows)} people", "", "| | mean | median | 90 % below | most |", "|---|---|---|---|---|"]
    for label, values in (("vertices, mm", vertices), ("joints, mm", joints), ("seconds", seconds)):
        figures = (values.mean(), np.median(values), np.quantile(values, 0.9), values.max())
        lines.append(f"| {label} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    regions = np.array([row.regions for row in rows]).mean(axis=0)
    lines += ["", f"| {' | '.join(REGIONS)} |", "|---" * len(REGIONS) + "|"]
    lines += [f"| {' | '.join(f'{value:.1f}' for value in regions)} |", ""]
    worst = f"{vertices[~flagged].max():.1f} mm" if not flagged.all() else "none"
    bad = vertices > 60
    lines.append(
        f"flagged {int(flagged.sum())} ({flagged.mean():.0%}); worst that is not flagged {worst}; above 60 mm"
        f" {int(bad.sum())}, of them flagged {int((bad & flagged).sum())}; front taken for back"
        f" {sum(row.facing_off > 90 for row in rows)}"
    )
    return "\n".join(lines)


_COLUMNS = ("vertices", "joints", "seconds")


def draw_sheet(data: Path, rows: Sequence[Row], path: Path) -> None:
    """The worst fits and some others: the scan, and the fitted body in it, from two sides."""
    order = sorted(rows, key=lambda row: -row.vertices)
    chosen = order[:6] + order[6 :: max(1, (len(order) - 6) // 6)][:6]
    faces = fitter().base.faces.numpy()
    pictures = []
    for row in chosen:
        meshes = read_scan(data / row.name / "scan.glb").meshes
        body = ShadedMesh(vertices=row.fitted.astype(np.float32), faces=faces, color=(0.25, 0.55, 0.9))
        middle = torch.from_numpy((row.fitted.min(axis=0) + row.fitted.max(axis=0)) / 2).float()
        views = []
        for azimuth in (0.4, 2.0):
            eye = middle + 3.9 * torch.tensor([math.sin(azimuth), 0.1, math.cos(azimuth)])
            camera = Cameras(
                viewmats=look_at(eye, middle, torch.tensor([0.0, 1.0, 0.0]))[None],
                Ks=intrinsics(math.radians(32), ROW_SIZE, ROW_SIZE)[None],
                width=ROW_SIZE,
                height=ROW_SIZE,
            )
            scan, fitted = (render_meshes(m, camera).rgba[0].movedim(0, -1).numpy() for m in (meshes, [body]))
            plain = scan[..., :3] * scan[..., 3:] + 1 - scan[..., 3:]
            over = 0.65 * fitted[..., 3:]
            views += [plain, plain * (1 - over) + fitted[..., :3] * over]
        pictures.append(np.concatenate(views, axis=1))
        print(f"sheet: {row.name} {row.vertices:.1f} mm")
    half = (len(pictures) + 1) // 2
    pictures += [np.ones_like(pictures[0])] * (2 * half - len(pictures))
    sheet = np.concatenate([np.concatenate(pictures[:half]), np.concatenate(pictures[half:])], axis=1)
    Image.fromarray((255 * sheet.clip(0, 1)).round().astype(np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--sheet", type=Path, help="write a picture of the worst fits and some others")
    arguments = parser.parse_args()
    names = [str(line["name"]) for line in read_manifest(arguments.data)][: arguments.limit]
    folders = [arguments.data / name for name in names]
    rows = []
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for row in pool.imap(fit_person, folders):
            rows.append(row)
            regions = " ".join(f"{value:.0f}" for value in row.regions)
            print(
                f"{row.name}: vertices {row.vertices:5.1f} mm  joints {row.joints:5.1f}  parts {regions}"
                f"  facing off {row.facing_off:3.0f} deg  {row.seconds:.1f} s  {'; '.join(row.flags)}",
                flush=True,
            )
    print("\n" + report(rows))
    if arguments.sheet:
        draw_sheet(arguments.data, rows, arguments.sheet)


if __name__ == "__main__":
    main()
