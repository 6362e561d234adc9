"""Points in space from where several views see them, robust against views that are wrong.

Each view says where a point is in the picture, and maybe how much farther away it is than a reference point, with
deviations. Wrong views do not pull: residuals are weighed by Geman and McClure's function, and a view that takes
left for right is read the other way round.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.geometry.projection import to_camera
from humansplat.structures import Cameras, TensorStruct

ROBUST_SCALE = 3.0
"""Standard deviations at which a residual begins to lose its pull."""
ITERATIONS = 12
SWAP_GAIN = 0.6
"""A view is read with left and right exchanged if that leaves less than this share of its cost."""
SWAP_ROUNDS = 3


class Sightings(TensorStruct):
    """What views say of points."""

    pixels: Float[Tensor, "c k 2"]
    stds: Float[Tensor, "c k"]
    """Of the pixels; infinite where a view says nothing."""
    depths: Float[Tensor, "c k"] | None = None
    """Distances along the line of sight from the reference point, as shares of that point's distance."""
    depth_stds: Float[Tensor, "c k"] | None = None


class Triangulated(TensorStruct):
    """Points in space."""

    points: Float[Tensor, "k 3"]
    """World frame, metres."""
    stds: Float[Tensor, " k"]
    """What the deviations of the views that agree leave, metres; larger where views disagree."""
    agreement: Float[Tensor, " k"]
    """Share of the views' weight that was kept."""
    swapped: Bool[Tensor, " c"]
    """Views that were read with left and right exchanged."""


def triangulate(
    sightings: Sightings, cameras: Cameras, *, mirrored: Sequence[int] | None = None, reference: int | None = None
) -> Triangulated:
    """Triangulate points that are seen in several views.

    Args:
        sightings: One row a view.
        cameras: One camera a view.
        mirrored: Where the counterpart of the other side of each of the first points stands; points beyond these
            have none. ``None``: views are never read with left and right exchanged.
        reference: The point whose distance depths are shares of.

    Raises:
        ValueError: If there are fewer than two views.
    """
    if len(sightings.pixels) < 2:
        raise ValueError(f"points are triangulated from two views at least, got {len(sightings.pixels)}")
    swapped = torch.zeros(len(sightings.pixels), dtype=torch.bool)
    if mirrored is None:
        return _solve(sightings, cameras, reference, swapped)
    other = exchanged(sightings, mirrored)
    current, done = sightings, _solve(sightings, cameras, reference, swapped)
    for _ in range(SWAP_ROUNDS):
        direct, turned = (_view_costs(s, cameras, done.points, reference, len(mirrored)) for s in (sightings, other))
        now = turned < SWAP_GAIN * direct
        if 2 * int(now.sum()) > len(now):  # then it is the others that are wrong
            now = ~now
        if bool((now == swapped).all()):
            break
        swapped, current = now, _chosen(sightings, other, now)
        done = _solve(current, cameras, reference, swapped)
    return done


def exchanged(sightings: Sightings, mirrored: Sequence[int]) -> Sightings:
    """The same views with left and right exchanged; points without a counterpart are not seen."""
    count = len(mirrored)
    order = torch.tensor(list(mirrored))

    def swap(values: Tensor | None, missing: float) -> Tensor | None:
        if values is None:
            return None
        result = torch.full_like(values, missing)
        result[:, :count] = values[:, order]
        return result

    pixels, stds = swap(sightings.pixels, 0.0), swap(sightings.stds, torch.inf)
    assert pixels is not None
    assert stds is not None
    return Sightings(
        pixels=pixels,
        stds=stds,
        depths=swap(sightings.depths, 0.0),
        depth_stds=swap(sightings.depth_stds, torch.inf),
    )


def _chosen(direct: Sightings, other: Sightings, which: Bool[Tensor, " c"]) -> Sightings:
    def pick(name: str) -> Tensor | None:
        a, b = getattr(direct, name), getattr(other, name)
        return None if a is None else torch.where(which.reshape(-1, *[1] * (a.ndim - 1)), b, a)

    pixels, stds = pick("pixels"), pick("stds")
    assert pixels is not None
    assert stds is not None
    return Sightings(pixels=pixels, stds=stds, depths=pick("depths"), depth_stds=pick("depth_stds"))


def linear_points(sightings: Sightings, cameras: Cameras) -> Float[Tensor, "k 3"]:
    """The points nearest to all lines of sight, by their weights: a start without wrong views in mind."""
    ones = torch.ones_like(sightings.pixels[..., :1])
    rays = torch.cat([sightings.pixels, ones], dim=-1) @ torch.linalg.inv(cameras.Ks).mT @ cameras.viewmats[:, :3, :3]
    rays = torch.nn.functional.normalize(rays, dim=-1)
    across = torch.eye(3) - rays[..., :, None] * rays[..., None, :]
    weighted = across * (sightings.stds**-2)[..., None, None]
    normal = weighted.sum(dim=0) + 1e-9 * torch.eye(3)
    return torch.linalg.solve(normal, (weighted @ cameras.centers[:, None, :, None]).sum(dim=0)[..., 0])


def _residuals(
    sightings: Sightings, cameras: Cameras, points: Float[Tensor, "k 3"], reference: int | None
) -> tuple[Float[Tensor, "c k r"], Float[Tensor, "c k r 3"]]:
    """Whitened residuals of every view and their derivatives by the points."""
    rotation = cameras.viewmats[:, None, :3, :3]
    seen = to_camera(points.expand(len(cameras.viewmats), -1, -1), cameras.viewmats)
    z = seen[..., 2:].clamp(min=1e-3)
    focal = cameras.Ks[:, None, [0, 1], [0, 1]]
    flat = seen[..., :2] / z * focal + cameras.Ks[:, None, :2, 2]
    value = (flat - sightings.pixels) / sightings.stds[..., None]
    by_x = (
        focal[..., None]
        * (rotation[..., :2, :] - (seen[..., :2] / z)[..., None] * rotation[..., 2:, :])
        / z[..., None]
    )
    slope = by_x / sightings.stds[..., None, None]
    if sightings.depths is None or sightings.depth_stds is None or reference is None:
        return value, slope
    root = z[:, reference, None]
    along = ((z - root) / root - sightings.depths[..., None]) / sightings.depth_stds[..., None]
    along_by = rotation[..., 2:, :] / root[..., None] / sightings.depth_stds[..., None, None]
    return torch.cat([value, along], dim=-1), torch.cat([slope, along_by], dim=-2)


def _weights(squared: Tensor) -> Tensor:
    return (ROBUST_SCALE**2 / (ROBUST_SCALE**2 + squared)).square()


def _solve(sightings: Sightings, cameras: Cameras, reference: int | None, swapped: Tensor) -> Triangulated:
    """Iteratively reweighted Gauss-Newton steps for all points side by side."""
    points = linear_points(sightings, cameras)
    seen = sightings.stds.isfinite()
    for step in range(ITERATIONS):
        value, slope = _residuals(sightings, cameras, points, reference)
        squared = value.square().sum(dim=-1)
        # The first steps judge views by the median of all: a few wild ones must not decide who is wrong.
        spread = torch.where(seen, squared, torch.nan).nanmedian(dim=0).values
        spread = spread.nan_to_num(1.0).clamp(min=1.0)  # a point that no view sees stays where it is, unsure
        weights = _weights(squared / spread) * seen
        weighted = slope * weights[..., None, None]
        normal = (weighted.mT @ slope).sum(dim=0) + 1e-9 * torch.eye(3)
        move = torch.linalg.solve(normal, (weighted.mT @ value[..., None]).sum(dim=0)[..., 0])
        length = move.norm(dim=-1, keepdim=True)
        points = points - move * (0.3 / length.clamp(min=0.3))
        if step > 3 and float(length.max()) < 1e-5:
            break
    variance = torch.linalg.inv(normal).diagonal(dim1=-2, dim2=-1).mean(dim=-1) * spread
    kept = (weights * seen).sum(dim=0) / seen.sum(dim=0).clamp(min=1)
    return Triangulated(points=points, stds=variance.sqrt(), agreement=kept, swapped=swapped)


def _view_costs(
    sightings: Sightings, cameras: Cameras, points: Float[Tensor, "k 3"], reference: int | None, count: int
) -> Float[Tensor, " c"]:
    """Robust cost of each view, over the first ``count`` points."""
    value, _ = _residuals(sightings, cameras, points, reference)
    squared = value.square().sum(dim=-1)[:, :count]
    return (squared * _weights(squared).sqrt()).sum(dim=-1)
