"""Which way is up in a scan, and what its numbers count: metres, centimetres or millimetres."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.capture.landmarks import LANDMARK_NAMES
from humansplat.data.rig import CANONICAL_FILL, CANONICAL_FOV, framed, hull_corners, joined
from humansplat.data.scans.layouts import UPS, Up
from humansplat.errors import UserError
from humansplat.render.lighting import unlit
from humansplat.render.mesh_scene import MeshScene
from humansplat.render.meshes import render_scene
from humansplat.render.shaded_mesh import ShadedMesh

Detect = Callable[[Float[Tensor, "c 4 s s"]], tuple[Tensor, Tensor, Tensor]]
"""Landmarks ``[c, 33, 2]``, their visibility and the score ``[c]`` of the person in each picture."""

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
HEIGHTS = (0.65, 2.6)
"""Metres between which a person is high: a crouching child, and a tall adult who reaches up."""
NORMALISED = 1e-3
"""Scans as large as 1 or 2 to this are taken for normalised: their numbers count nothing."""
_VIEW_SIZE = 256
_ELEVATION = math.radians(5.0)
_CLEAR, _SEEN, _AHEAD = 0.95, 0.4, 1.3
"""``uprightness`` that needs no comparison, that is somebody at all, and how far it must be ahead of the next."""
_AXES: dict[Up, tuple[tuple[int, int, int], ...]] = {
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "y-down": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "z-down": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


def to_y_up(up: Up) -> Float[np.ndarray, "3 3"]:
    """The rotation that takes a scan's axes to axes with +Y up."""
    return np.array(_AXES[up], np.float64)


def unit_of(points: Float[np.ndarray, "n 3"], up: Up, name: str) -> float:
    """Metres that one unit of a scan stands for, told by the person's height.

    Args:
        points: Of the scan, in its own frame.
        up: The axis along which the person stands.
        name: For messages.

    Raises:
        UserError: If the height is nobody's in metres, centimetres or millimetres, or the scan was normalised.
    """
    size = np.ptp(points, axis=0)
    height = float(size["xyz".index(up[0])])
    remedy = "say what they count with --unit m, cm, mm, or a number of metres"
    largest = float(size.max())
    if any(abs(largest - whole) < NORMALISED for whole in (1.0, 2.0)):
        raise UserError(f"{name} spans {largest:.4g} units, as scans do whose size was lost; {remedy}")
    for metres in UNITS.values():
        if HEIGHTS[0] <= height * metres <= HEIGHTS[1]:
            return metres
    raise UserError(f"{name} is {height:.4g} units high, which is no person in m, cm or mm; {remedy}")


def given_unit(unit: str) -> float | None:
    """The metres that an option names; ``None`` for ``auto``.

    Raises:
        UserError: If it is neither a unit nor a positive number.
    """
    if unit == "auto":
        return None
    try:
        metres = UNITS[unit] if unit in UNITS else float(unit)
    except ValueError:
        metres = 0.0
    if not 0.0 < metres < 1e6:
        raise UserError(f"unit is {unit!r}; give m, cm, mm, or how many metres one is")
    return metres


def uprightness(meshes: Sequence[ShadedMesh], points: Float[np.ndarray, "n 3"], up: Up, detect: Detect) -> float:
    """How sure the landmark detector is, in four views around an axis, of a person who stands along it, in [0, 1].

    Args:
        meshes: In the frame of the file.
        points: Points spread over them.
        up: The axis to look with upwards.
        detect: The landmark detector.
    """
    turn = to_y_up(up)
    corners = hull_corners(points @ turn.T)
    views = [
        framed(corners, 0.5 * math.pi * view, _ELEVATION, CANONICAL_FOV, CANONICAL_FILL, _VIEW_SIZE)
        for view in range(4)
    ]
    upright = [replace(mesh, vertices=mesh.vertices @ turn.T, normals=None, casts_shadow=False) for mesh in meshes]
    landmarks, _, scores = detect(render_scene(MeshScene(upright, unlit()), joined(views), samples=2).rgba)
    places = [LANDMARK_NAMES.index(name) for name in ("left_ankle", "right_ankle", "left_shoulder", "right_shoulder")]
    feet, head = landmarks[:, places[:2]].mean(dim=1), landmarks[:, places[2:]].mean(dim=1)
    rises = -torch.nn.functional.normalize(head - feet, dim=-1)[:, 1]
    return float((scores * rises.clamp(min=0.0)).mean())


def seen_up(meshes: Sequence[ShadedMesh], points: Float[np.ndarray, "n 3"], first: Up, detect: Detect) -> Up | None:
    """The axis along which the person of a scan is seen to stand.

    Args:
        meshes: In the frame of the file.
        points: Points spread over them.
        first: The likeliest; the others are looked at if nobody clearly stands along it.
        detect: The landmark detector.

    Returns:
        The axis, or ``None`` if nobody is seen, or in two ways about as well.
    """
    measured = {first: uprightness(meshes, points, first, detect)}
    if measured[first] > _CLEAR:
        return first
    measured |= {up: uprightness(meshes, points, up, detect) for up in UPS if up != first}
    best, second = sorted(measured, key=lambda up: -measured[up])[:2]
    return best if measured[best] > _SEEN and measured[best] > _AHEAD * measured[second] else None


def up_by_extent(points: Float[np.ndarray, "n 3"]) -> Up | None:
    """The longer of Y and Z, if it clearly is; the sign cannot be told so."""
    _, y, z = np.ptp(points, axis=0)
    if max(y, z) < 1.2 * min(y, z):
        return None
    return "y" if y > z else "z"
