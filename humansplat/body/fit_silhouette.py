"""The silhouette in a fit: the mask's distance field and boundary, correspondences, and overlap at the end.

Clothing stands off the body, so the two directions are not alike: a point of the body outside the mask is
wrong, while a point of the mask's boundary far from the body may be a coat and is given up softly.
Image coordinates are fractions of the crop's side.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor

from humansplat.structures import TensorStruct


class Silhouette(TensorStruct):
    """What the fit asks a mask."""

    outside: Float[Tensor, "g g"]
    """Distance to the mask, zero inside; fractions of the side."""
    slope: Float[Tensor, "g g 2"]
    """Its gradient by x and y."""
    boundary: Float[Tensor, "m 2"]
    """Points of the contour."""
    normals: Float[Tensor, "m 2"]
    """Outward unit normals there."""


def silhouette_from_mask(mask: Float[Tensor, "s s"], num_points: int = 300) -> Silhouette:
    """Distances, contour points and normals of a soft mask.

    Args:
        mask: Coverage in ``[0, 1]``; the contour is where it crosses one half.
        num_points: How many contour points to keep at most.
    """
    soft = mask.detach().cpu().double().numpy()
    side = soft.shape[0]
    distance = ndimage.distance_transform_edt(soft <= 0.5) / side
    slope = np.stack(np.gradient(distance, 1 / side)[::-1], axis=-1)
    points = _crossings(soft)
    points = points[np.linspace(0, len(points) - 1, min(num_points, len(points))).round().astype(int)]
    smooth = ndimage.gaussian_filter(soft, side / 128, mode="nearest")
    normals = -np.stack(np.gradient(smooth)[::-1], axis=-1)[tuple(points.astype(int).clip(0, side - 1).T[::-1])]
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-9)
    return Silhouette(
        outside=torch.from_numpy(distance).float(),
        slope=torch.from_numpy(slope).float(),
        boundary=torch.from_numpy(points / side).float(),
        normals=torch.from_numpy(normals).float(),
    )


def _crossings(soft: np.ndarray) -> np.ndarray:
    """Sub-pixel points ``(x, y)``, in pixels, where neighbours lie on the two sides of one half; in raster order."""
    found = []
    for axis in (0, 1):
        a, b = (soft[:-1], soft[1:]) if axis == 0 else (soft[:, :-1], soft[:, 1:])
        ys, xs = np.nonzero((a > 0.5) != (b > 0.5))
        first, second = a[ys, xs], b[ys, xs]
        step = (0.5 - first) / (second - first)
        found.append(np.stack([xs + 0.5 + (step if axis else 0), ys + 0.5 + (0 if axis else step)], axis=-1))
    points = np.concatenate(found)
    return points[np.lexsort((points[:, 0], points[:, 1]))]


def sample_outside(
    silhouette: Silhouette, points: Float[Tensor, "*batch 2"]
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 2"]]:
    """Distance to the mask and its gradient at image points; beyond the picture the way back to it is added."""
    side = silhouette.outside.shape[0]
    inside = points.clamp(0.0, 1.0)
    cell = (inside * side).long().clamp(0, side - 1)
    x, y = cell.unbind(-1)
    beyond = points - inside
    center = (cell + 0.5) / side
    slope = silhouette.slope[y, x]
    distance = silhouette.outside[y, x] + (slope * (inside - center)).sum(-1)
    return (distance + beyond.abs().sum(-1)).clamp(min=0.0), slope + beyond.sign()


def nearest_points(
    boundary: Float[Tensor, "m 2"], normals: Float[Tensor, "m 2"], points: Float[Tensor, "h n 2"], along: float = 0.5
) -> Int[Tensor, "h m"]:
    """For every contour point the body point to be pulled there.

    The nearest one, distances along the contour's normal counting ``along`` times: that favours the rim of the
    body behind the contour over a point that slid along it.
    """
    offset = points[:, None] - boundary[:, None]  # [h, m, n, 2]
    squared = offset.square().sum(-1)
    normal_part = (offset * normals[:, None]).sum(-1).square()
    return (squared - (1 - along**2) * normal_part).argmin(dim=-1)


def draw_silhouette(pixels: Float[Tensor, "v 2"], faces: Int[Tensor, "f 3"], side: int) -> Bool[Tensor, "s s"]:
    """Rasterise projected triangles, two samples a pixel and direction; a pixel is covered when half of it is."""
    scale = 2
    canvas = Image.new("L", (side * scale, side * scale))
    draw = ImageDraw.Draw(canvas)
    corners = (pixels.detach().cpu().double() * scale - 0.5)[faces]
    a, b, c = corners.unbind(1)
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    for triangle in corners[turn < 0].flatten(1).tolist():  # outward faces run clockwise in an image with y down
        draw.polygon(triangle, fill=255)
    covered = np.asarray(canvas, dtype=np.float32).reshape(side, scale, side, scale).mean(axis=(1, 3)) >= 127.5
    return torch.from_numpy(covered)


def overlap(a: Bool[Tensor, "s s"], b: Bool[Tensor, "s s"]) -> float:
    """Intersection over union of two silhouettes; 1 when both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0
