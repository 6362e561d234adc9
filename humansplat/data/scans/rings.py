"""The rig of HumanSplat's training data: rings of cameras around the whole body, its upper half and its face.

The paper (NeurIPS 2024, section 4.1) says 36 cameras evenly on each of three circles at 512 px and no more. Here a
ring is level, its cameras stand at one distance and look at one point, and the angle of view is that of the paper's
renderer. Before the rings come the four views of the rig (``humansplat.data.rig``), with the front view framed as
photos are and without jitter.
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from humansplat.body.parts import PART_NAMES
from humansplat.data.rig import CANONICAL_FILL, CANONICAL_FOV, NUM_RIG_VIEWS, Role, framed, hull_corners, joined
from humansplat.geometry.projection import look_at, orbit
from humansplat.structures import Cameras

RINGS: tuple[Role, ...] = ("whole", "half", "face")
RING_CAMERAS = 36
RING_FOV = math.radians(39.6)
"""Of the paper's renderer."""
RING_FILL = {"whole": 0.92, "half": 0.92, "face": 0.8}
"""The larger side of the box of what a ring looks at over the side of the picture, at most; the head needs room for
what the label leaves to the neck."""
CLEARANCE = 0.3
"""Metres between any of the person and the cameras."""
_HEAD = ("head",)
_HALF = ("spine", "spine1", "spine2", "neck", "head", "leftShoulder", "rightShoulder", "leftArm", "rightArm")
"""From the waist up; forearms and hands may leave the picture, or stretched arms would show the whole body again."""
_MIN_POINTS = 20


def scan_cameras(
    points: Float[np.ndarray, "n 3"], labels: UInt8[np.ndarray, " n"], size: int, ring_cameras: int = RING_CAMERAS
) -> tuple[Cameras, tuple[Role, ...]]:
    """Place all cameras of a scan.

    Args:
        points: Points of the scan and of its body, world frame, metres.
        labels: Their parts (``humansplat.body.parts``).
        size: Side of the square pictures, pixels.
        ring_cameras: On each ring.

    Returns:
        ``4 + 3 * ring_cameras`` cameras and what each is for.
    """
    corners = hull_corners(points)
    first = framed(corners, 0.0, 0.0, CANONICAL_FOV, CANONICAL_FILL, size)
    quarter = torch.arange(NUM_RIG_VIEWS, dtype=torch.float64) * (0.5 * math.pi)
    views = [orbit(first, torch.zeros(3, dtype=torch.float64), quarter)]
    roles: list[Role] = ["input", *["orthogonal"] * (NUM_RIG_VIEWS - 1)]  # type: ignore[list-item]
    for name in RINGS:
        shown = corners
        if name != "whole":
            wanted = [PART_NAMES.index(part) for part in (_HALF if name == "half" else _HEAD)]
            chosen = points[np.isin(labels, wanted)]
            if len(chosen) >= _MIN_POINTS:
                shown = hull_corners(chosen)
        views.append(ring(shown, ring_cameras, RING_FOV, RING_FILL[name], size, clear=corners))
        roles += [name] * ring_cameras
    return joined(views), tuple(roles)


def ring(
    points: Float[Tensor, "n 3"],
    count: int,
    fov: float,
    fill: float,
    size: int,
    clear: Float[Tensor, "m 3"] | None = None,
) -> Cameras:
    """Cameras evenly around some points, level, at one distance, all looking at one point.

    Where a stretched arm reaches as far as the ring would be, the ring is wider and the angle of view smaller.

    Args:
        points: World frame, metres.
        count: Of cameras; the first stands before the subject, the next ones towards +X.
        fov: Largest angle of view, radians.
        fill: What the points' reach from the centre of the picture is, at most, of half its side.
        size: Side of the square pictures, pixels.
        clear: Points that no camera comes nearer to than ``CLEARANCE``.
    """
    middle = 0.5 * (points.amin(dim=0) + points.amax(dim=0))
    azimuths = torch.arange(count, dtype=points.dtype) * (2.0 * math.pi / count)
    outward = torch.stack([azimuths.sin(), torch.zeros_like(azimuths), azimuths.cos()], dim=-1)
    left = torch.stack([azimuths.cos(), torch.zeros_like(azimuths), -azimuths.sin()], dim=-1)
    local = points - middle
    reach = torch.maximum((local @ left.T).abs(), local[:, 1:2].abs())  # [n, count], from the axis of sight
    # A point at a height h over the axis and a depth d before the target shows within the fill from h / (D - d) down.
    distance = float((reach / (fill * math.tan(0.5 * fov)) + local @ outward.T).amax())
    if clear is not None:
        least = float((clear - middle)[:, [0, 2]].norm(dim=-1).amax()) + CLEARANCE
        if least > distance:
            distance = least
            fov = 2.0 * math.atan(float((reach / (distance - local @ outward.T)).amax()) / fill)
    eyes = middle + distance * outward
    viewmats = look_at(eyes, middle.expand_as(eyes), points.new_tensor([0.0, 1.0, 0.0]))
    focal = 0.5 * size / math.tan(0.5 * fov)
    K = points.new_tensor([[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]])
    return Cameras(viewmats=viewmats, Ks=K.expand(count, 3, 3).clone(), width=size, height=size)
