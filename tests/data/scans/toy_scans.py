"""Scans of the default body in the layouts of the known sets, and a fitter that knows how they were made.

A module of its own so that worker processes can import it.
"""

import functools
import json
import math
import os
import signal
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from humansplat.body.anny import AnnyBody
from humansplat.body.fit import one_thread
from humansplat.body.models import load_body_model
from humansplat.body.recorded import moved
from humansplat.body.scan_check import body_left
from humansplat.data.scan_file import scan_glb
from humansplat.data.scans.person import ScanTask
from humansplat.errors import UserError
from humansplat.render.shaded_mesh import ShadedMesh
from humansplat.structures import PosedBody, ScanFit

# One thread, as where people are made: sums in another order have other last digits, and runs are compared bytewise.


@functools.cache
@one_thread()
def model() -> AnnyBody:
    return AnnyBody.load()


@functools.cache
@one_thread()
def person() -> PosedBody:
    """Someone with one arm raised, so that left, right, front and back differ."""
    body = model()
    rotations = torch.zeros(len(body.joint_names), 3)
    for name, turn in {"upperarm01.L": (0.0, 0.0, 0.9), "lowerarm01.R": (-0.9, 0.0, 0.0)}.items():
        rotations[body.joint_names.index(name)] = torch.tensor(turn)
    posed = body.pose({"rotations": rotations})
    return moved(posed, torch.eye(3), torch.tensor([0.0, -float(posed.vertices[:, 1].min()), 0.0]))


def turned(yaw: float) -> np.ndarray:
    """A rotation about +Y."""
    return np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])


def surface(matrix: np.ndarray | None = None, shift: Sequence[float] = (0.0, 0.0, 0.0)) -> tuple:
    """Vertices, faces, texture coordinates and their faces of a scan: the body, carried."""
    body = model()
    assert body.uvs is not None
    assert body.uv_faces is not None
    vertices = person().vertices.double().numpy() @ (np.eye(3) if matrix is None else matrix).T + np.asarray(shift)
    return vertices, body.faces.numpy(), body.uvs.numpy(), body.uv_faces.numpy()


def colors() -> np.ndarray:
    """A colour for each vertex, by its place on the body."""
    points = person().canonical.numpy()
    span = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    return (60 + 150 * span).astype(np.uint8)


def texture(side: int = 64) -> Image.Image:
    rows, columns = np.indices((side, side))
    pixels = np.stack([80 + columns, 60 + 2 * rows, 120 + (rows + columns) // 4], axis=-1)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def write_obj(
    path: Path, vertices: np.ndarray, faces: np.ndarray, uvs: np.ndarray | None = None,
    uv_faces: np.ndarray | None = None, picture: str | None = None, library: str = "material0.mtl",
) -> None:  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"mtllib {library}", "usemtl material0"] if picture else []
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    if uvs is None or uv_faces is None:
        lines += ["f {} {} {}".format(*row) for row in (faces + 1).tolist()]
    else:
        lines += [f"vt {u:.5f} {v:.5f}" for u, v in uvs.tolist()]
        both = np.stack([faces + 1, uv_faces + 1], axis=-1).reshape(-1, 6)
        lines += ["f {}/{} {}/{} {}/{}".format(*row) for row in both.tolist()]
    path.write_text("\n".join(lines) + "\n")
    if picture:
        (path.parent / library).write_text(f"newmtl material0\nKd 1 1 1\nmap_Kd {picture}\n")


def write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray, vertex_colors: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(vertices, faces, vertex_colors=vertex_colors, process=False).export(path)


def write_glb(path: Path, matrix: np.ndarray | None = None) -> None:
    vertices, faces, uvs, uv_faces = surface(matrix)
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = ShadedMesh(vertices=vertices, faces=faces, uvs=uvs, uv_faces=uv_faces, texture=np.asarray(texture()))
    path.write_bytes(scan_glb([mesh]))


def write_layout(root: Path, layout: str) -> Path:
    """Two people in one layout, each with its own unit, place or turn; returns the folder to prepare."""
    if layout == "thuman2":
        for index, yaw in enumerate((0.0, 2.0)):
            folder = root / "THuman2.0_Release" / f"{index:04d}"
            write_obj(folder / f"{index:04d}.obj", *surface(turned(yaw), (0.3, -0.8, 0.1)), picture="material0.jpeg")
            texture().save(folder / "material0.jpeg")
        return root / "THuman2.0_Release"
    if layout == "2k2k":
        for index, unit in enumerate((1.0, 100.0)):
            vertices, faces, _, _ = surface(turned(-1.0) * unit)
            write_ply(root / f"{index:05d}" / f"{index:05d}.ply", vertices, faces, colors())
        return root
    if layout == "customhumans":
        for folder in ("0003_01", "0007_02"):
            path = root / "mesh" / folder / "mesh-f00101.obj"
            write_obj(path, *surface(turned(0.4)), picture="mesh-f00101.png", library="mesh-f00101.mtl")
            texture().save(path.with_suffix(".png"))
        return root
    write_glb(root / "anna" / "scan.glb", turned(3.0))
    write_ply(root / "berta.ply", *surface(1000 * turned(0.6))[:2], vertex_colors=colors())
    write_obj(root / "clara.obj", *surface(turned(0.5))[:2])
    return root


def write_ply_header(path: Path, faces: int) -> None:
    """The beginning of a PLY file that promises more than it holds."""
    properties = "".join(f"property float {axis}\n" for axis in "xyz")
    path.write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement vertex 9\n" + properties.encode()
        + f"element face {faces}\nproperty list uchar int vertex_indices\nend_header\n".encode()
    )  # fmt: skip


def write_png_header(path: Path, width: int, height: int) -> None:
    """A picture that says how large it is and holds nothing."""
    chunk = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    checked = b"IHDR" + chunk
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + checked
        + struct.pack(">I", zlib.crc32(checked))
        + b"\0\0\1\0IDAT"
    )


class ToyTools:
    """Finds where a body went, from vertices that it knows by their numbers; sees people upright."""

    def __init__(self, base: PosedBody | None = None) -> None:
        self.base = base or person()

    def fit(self, meshes: Sequence[ShadedMesh], start: PosedBody | None) -> ScanFit:
        points = self.base.vertices.double().numpy()
        there = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float64)
        if len(there) != len(points):
            # Textures cut meshes at their seams: the nearest vertices of the mean are good enough.
            there = there[corners_of_seams()]
        center, middle = points.mean(axis=0), there.mean(axis=0)
        left, _, right = np.linalg.svd((points - center).T @ (there - middle))
        turn = torch.from_numpy((left @ np.diag([1, 1, np.linalg.det(left @ right)]) @ right).T)
        shift = torch.from_numpy(middle) - turn @ torch.from_numpy(center)
        body = moved(self.base, turn.float(), shift.float())
        error = float(np.abs(body.vertices.numpy() - there).max())
        across = body_left(body)
        flags = (f"the scan is not the body's size, {error:.3f} m off",) if error > 1e-3 else ()
        return ScanFit(
            body=body, facing=math.atan2(-float(across[2]), float(across[0])), landmark_error=error, coverage=1.0,
            outside=0.0, flags=flags,
        )  # fmt: skip

    def detect(self, rgba: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        landmarks = torch.zeros(len(rgba), 33, 2)
        landmarks[:, 25:, 1] = 200.0  # ankles are below
        return landmarks, torch.ones(len(rgba), 33), torch.ones(len(rgba))


@functools.cache
def corners_of_seams() -> np.ndarray:
    """For each vertex of the body one of those that ``scan_glb`` makes of it."""
    body = model()
    assert body.uv_faces is not None
    pairs = np.unique(np.stack([body.faces.numpy().reshape(-1), body.uv_faces.numpy().reshape(-1)], axis=1), axis=0)
    return np.unique(pairs[:, 0], return_index=True)[1]


def factory(task: ScanTask, models: Path | None) -> ToyTools:
    return ToyTools()


class DeadlyTools(ToyTools):
    """Kills its process at the second scan."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def fit(self, meshes: Sequence[ShadedMesh], start: PosedBody | None) -> ScanFit:
        self.count += 1
        if self.count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(meshes, start)


def deadly_factory(task: ScanTask, models: Path | None) -> ToyTools:
    return DeadlyTools()


class FlaggingTools(ToyTools):
    """Says of everybody who faces backwards that the fit is bad."""

    def fit(self, meshes: Sequence[ShadedMesh], start: PosedBody | None) -> ScanFit:
        found = super().fit(meshes, start)
        return replace(found, flags=("the arm is not where the scan's is",)) if abs(found.facing) > 1.5 else found


def flagging_factory(task: ScanTask, models: Path | None) -> ToyTools:
    return FlaggingTools()


def smplx_factory(task: ScanTask, models: Path | None) -> ToyTools:
    return ToyTools(load_body_model("smplx", folder=models, gender=task.gender).pose({}))


def missing_factory(task: ScanTask, models: Path | None) -> ToyTools:
    raise UserError("the weights of the lifter are missing")


def manifest(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
