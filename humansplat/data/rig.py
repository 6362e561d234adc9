"""Cameras around a synthetic person: a photographer's view, the three orthogonal to it, and novel ones."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import ConvexHull

from humansplat.geometry.projection import look_at, orbit, to_camera
from humansplat.structures import Cameras

Role = Literal["input", "orthogonal", "novel", "closeup", "whole", "half", "face"]
"""What a view is for; the last three are the rings of prepared scans (``humansplat.data.scans.rings``)."""
COMPARED: tuple[Role, ...] = ("novel", "whole")
"""Views by which a model is judged: of the whole person, and not shown to it."""

CANONICAL_FOV = math.radians(30.0)
CANONICAL_FILL = 0.85
"""Larger side of the person's box over the side of the crop."""
NUM_RIG_VIEWS = 4


def draw_rig(
    points: Float[np.ndarray, "n 3"], rng: np.random.Generator, size: int, num_novel: int, num_closeups: int
) -> tuple[Cameras, tuple[Role, ...]]:
    """Draw the cameras of one person.

    Views 0 to 3 are the input and the same camera carried by 90, 180 and 270 degrees around the world's
    vertical axis; then come ``num_novel`` views, the last ``num_closeups`` of them close to the upper body.

    Args:
        points: Points of the person, world frame, metres.
        rng: Source of randomness.
        size: Side of the square pictures, pixels.
        num_novel: Views beyond the four of the rig.
        num_closeups: How many of those are close-ups.

    Returns:
        ``4 + num_novel`` cameras and what each is for.
    """
    hull = hull_corners(points)
    azimuth = rng.normal(0.0, 25.0) if rng.random() < 0.8 else rng.uniform(-180.0, 180.0)
    elevation = float(np.clip(rng.normal(0.0, 5.0), -12.0, 12.0))
    fov = CANONICAL_FOV + math.radians(float(np.clip(rng.normal(0.0, 2.0), -4.0, 4.0)))
    fill = CANONICAL_FILL + rng.uniform(-0.04, 0.04)
    first = framed(hull, math.radians(azimuth), math.radians(elevation), fov, fill, size)
    first = _shifted(first, size * rng.normal(0.0, 0.008, 2))
    turns = torch.arange(NUM_RIG_VIEWS, dtype=torch.float64) * (0.5 * math.pi)
    rig = orbit(first, torch.zeros(3, dtype=torch.float64), turns)

    views = [rig]
    roles: list[Role] = ["input", *["orthogonal"] * (NUM_RIG_VIEWS - 1)]  # type: ignore[list-item]
    start = rng.uniform(0.0, 2.0 * math.pi)
    order = rng.permutation(num_novel)  # else the close-ups, drawn last, would share one side
    for index in range(num_novel):
        around = start + 2.0 * math.pi * (order[index] + rng.uniform()) / num_novel
        tilt = math.radians(rng.uniform(-10.0, 30.0))
        lens = math.radians(rng.uniform(25.0, 40.0))
        if index < num_novel - num_closeups:
            camera = framed(hull, around, tilt, lens, rng.uniform(0.7, 0.95), size)
            camera = _shifted(camera, size * rng.normal(0.0, 0.02, 2))
            roles.append("novel")
        else:
            upper = points[points[:, 1] > points[:, 1].max() - rng.uniform(0.35, 0.9)]
            camera = framed(hull_corners(upper), around, tilt, lens, rng.uniform(0.7, 0.95), size)
            roles.append("closeup")
        views.append(camera)
    return joined(views), tuple(roles)


def joined(views: Sequence[Cameras]) -> Cameras:
    """Cameras of one size, single ones or rows of them, as one row in float32."""
    return Cameras(
        viewmats=torch.cat([view.viewmats.reshape(-1, 4, 4) for view in views]).float(),
        Ks=torch.cat([view.Ks.reshape(-1, 3, 3) for view in views]).float(),
        width=views[0].width,
        height=views[0].height,
    )


def hull_corners(points: Float[np.ndarray, "n 3"]) -> Float[torch.Tensor, "m 3"]:
    """The corners of the convex hull: they alone reach the edges of the box in a picture."""
    corners = np.sort(ConvexHull(points).vertices)
    return torch.from_numpy(points[corners].astype(np.float64))


def framed(
    points: Float[torch.Tensor, "n 3"], azimuth: float, elevation: float, fov: float, fill: float, size: int
) -> Cameras:
    """Place an upright camera so that the points' box in the picture is centred and as large as asked.

    Args:
        points: World frame, metres.
        azimuth: Radians; 0 looks at the subject's face from +Z, positive towards +X.
        elevation: Radians; positive looks down.
        fov: Angle of view, radians.
        fill: Larger side of the box over the side of the picture.
        size: Side of the square picture, pixels.

    Returns:
        One camera without batch axes.
    """
    focal = 0.5 * size / math.tan(0.5 * fov)
    K = points.new_tensor([[focal, 0.0, 0.5 * size], [0.0, focal, 0.5 * size], [0.0, 0.0, 1.0]])
    outward = points.new_tensor(
        [math.sin(azimuth) * math.cos(elevation), math.sin(elevation), math.cos(azimuth) * math.cos(elevation)]
    )
    up = points.new_tensor([0.0, 1.0, 0.0])
    low, high = points.amin(dim=0), points.amax(dim=0)
    target = 0.5 * (low + high)
    distance = float((high - low).norm()) * focal / (fill * size)
    for _ in range(12):  # each round takes the error down tenfold: perspective is nearly affine at this distance
        viewmat = look_at(target + distance * outward, target, up)
        cam = to_camera(points, viewmat)
        flat = cam[:, :2] / cam[:, 2:]
        left, right = flat.amin(dim=0), flat.amax(dim=0)
        shift = torch.cat([0.5 * (left + right) * distance, points.new_zeros(1)])
        target = target + shift @ viewmat[:3, :3]
        radius = float((points - target).norm(dim=-1).amax())
        before, error = distance, float((left + right).abs().amax())
        distance = max(distance * float((right - left).amax()) * focal / (fill * size), 1.2 * radius)
        if error < 1e-6 and abs(distance - before) < 1e-6 * distance:
            break
    viewmat = look_at(target + distance * outward, target, up)
    return Cameras(viewmats=viewmat, Ks=K, width=size, height=size)


def _shifted(camera: Cameras, pixels: np.ndarray) -> Cameras:
    """Move the person within the picture: the camera slides in its own image plane."""
    depth = camera.viewmats[:3, 3].norm()
    shift = torch.zeros_like(camera.viewmats)
    shift[:2, 3] = torch.from_numpy(pixels) * depth / camera.Ks[0, 0]
    return Cameras(viewmats=camera.viewmats + shift, Ks=camera.Ks, width=camera.width, height=camera.height)
