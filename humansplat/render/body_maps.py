"""What a camera sees of a body's surface, by splatting surface points into a z-buffer.

A transformer over image cells needs to know, for every ray, where the body is and which point of
the skin it meets. Sampled surface points and two scatter reductions give that on any device, for a
whole batch of bodies and cameras, without a mesh rasterizer; the sampling is dense enough
(:data:`DEFAULT_POINTS`) that fewer than one pixel in a hundred of a 128 x 128 map is missed.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.structures import Cameras, PosedBody, TensorStruct

DEFAULT_POINTS = 65_536
"""About nine points for each covered pixel of a 128 x 128 map of a standing adult."""
GAP_DEPTH = 0.08
"""Metres behind a neighbouring pixel at which a point in a part map counts as seen through a gap."""


class SurfaceSamples(TensorStruct):
    """Fixed points on a mesh, as barycentric combinations of its vertices."""

    corners: Int[Tensor, "p 3"]
    """Vertex indices."""
    weights: Float[Tensor, "p 3"]
    """Barycentric coordinates, each row sums to 1."""

    def interpolate(self, values: Float[Tensor, "*batch v c"]) -> Float[Tensor, "*batch p c"]:
        """Values at the points from values at the vertices."""
        return (values[..., self.corners, :] * self.weights[..., None]).sum(dim=-2)


class BodyMaps(TensorStruct):
    """Per-pixel facts of the nearest surface point; zeros where ``hit`` is false."""

    hit: Bool[Tensor, "*batch h w"]
    """Whether the ray through the pixel's area meets the body."""
    points: Float[Tensor, "*batch h w 3"]
    """The surface point, world frame, metres."""
    normals: Float[Tensor, "*batch h w 3"]
    """Outward unit normal at the point, world frame."""
    canonical: Float[Tensor, "*batch h w 3"]
    """The same point on the body model's mean adult in its rest pose, metres."""
    far_depth: Float[Tensor, "*batch h w"]
    """Camera-frame depth of the farthest surface point, metres: how thick the body is there."""
    depth: Float[Tensor, "*batch h w"]
    """Camera-frame depth of the nearest surface point, metres."""


def sample_surface(
    vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], num_points: int = DEFAULT_POINTS, seed: int = 0
) -> SurfaceSamples:
    """Spread points over a mesh, evenly by area.

    Args:
        vertices: Positions that say how large each face is, metres.
        faces: Vertex indices.
        num_points: How many.
        seed: Same seed, same points.

    Returns:
        Samples on the device of ``vertices``.
    """
    generator = torch.Generator().manual_seed(seed)
    corners = vertices.detach().cpu().double()[faces.cpu()]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=-1)
    # Stratified in the cumulated area: faces get their share to within one point.
    steps = (torch.arange(num_points, dtype=torch.float64) + torch.rand(num_points, generator=generator)) / num_points
    chosen = torch.searchsorted(areas.cumsum(0) / areas.sum(), steps).clamp(max=len(areas) - 1)
    u, v = torch.rand(2, num_points, generator=generator).unbind(0)
    root = u.sqrt()  # uniform over a triangle (Osada et al., 2002)
    weights = torch.stack([1 - root, root * (1 - v), root * v], dim=-1)
    return SurfaceSamples(corners=faces[chosen.to(faces.device)].long(), weights=weights.to(vertices))


def vertex_normals(vertices: Float[Tensor, "*batch v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "*batch v 3"]:
    """Unit vertex normals, faces weighted by area."""
    corners = vertices[..., faces.long(), :]
    edges = corners[..., 1:, :] - corners[..., :1, :]
    normals = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :])
    index = faces.long().flatten()
    total = torch.zeros_like(vertices).index_add_(-2, index, normals.repeat_interleave(3, dim=-2))
    return F.normalize(total, dim=-1)


@torch.no_grad()
def rasterize_body(
    body: PosedBody,
    cameras: Cameras,
    samples: SurfaceSamples,
    *,
    size: int = 128,
    normals: Float[Tensor, "b v 3"] | None = None,
) -> BodyMaps:
    """See a batch of bodies through each of its cameras.

    Args:
        body: Vertices ``[b, v, 3]``.
        cameras: ``[b, c]`` cameras of square images; their own size does not matter.
        samples: Points on this body model's surface (:func:`sample_surface`).
        size: Side of the maps, pixels.
        normals: Of the vertices, if they are known.

    Returns:
        Maps with batch axes ``[b, c]``. No gradient flows.
    """
    batch = cameras.viewmats.shape[0]
    points = samples.interpolate(body.vertices)  # [b, p, 3]
    at_vertices = vertex_normals(body.vertices, body.faces) if normals is None else normals
    at_points = F.normalize(samples.interpolate(at_vertices), dim=-1)
    canonical = samples.interpolate(body.canonical)
    splatted = _splat(points, cameras, size)
    winner, nearest = splatted.nearest()
    farthest = splatted.extreme(splatted.depth, 0.0, "amax").view(winner.shape)
    hit = winner >= 0
    index = winner.clamp(min=0)
    element = torch.arange(batch, device=points.device).view(batch, 1, 1, 1)
    mask = hit[..., None]
    return BodyMaps(
        hit=hit,
        points=points[element, index] * mask,
        normals=at_points[element, index] * mask,
        canonical=canonical[index] * mask,
        depth=torch.where(hit, nearest, 0.0),
        far_depth=torch.where(hit, farthest, 0.0),
    )


@torch.no_grad()
def rasterize_parts(
    body: PosedBody, cameras: Cameras, samples: SurfaceSamples, *, size: int = 128
) -> Int[Tensor, "b c {size} {size}"]:
    """Part maps of a batch of bodies: which part each pixel shows.

    Args:
        body: Vertices ``[b, v, 3]``.
        cameras: ``[b, c]`` cameras of square images; their own size does not matter.
        samples: Points on this body model's surface (:func:`sample_surface`).
        size: Side of the maps, pixels.

    Returns:
        0 where no part is seen, ``k + 1`` for part ``k`` (``humansplat.body.parts``). A point far behind those in the
        pixels around it shows through a gap between points and counts as not seen.
    """
    corner = samples.weights.argmax(dim=-1, keepdim=True)
    labels = body.parts[samples.corners.gather(-1, corner)[..., 0]]
    winner, nearest = _splat(samples.interpolate(body.vertices), cameras, size).nearest()
    around = -F.max_pool2d(-nearest, kernel_size=3, stride=1, padding=1)
    seen = (winner >= 0) & (nearest <= around + GAP_DEPTH)
    return (labels[winner.clamp(min=0)] + 1) * seen


class _Splatted(NamedTuple):
    """Points of ``b`` bodies in the pixels of ``c`` cameras, one entry a body, camera and point."""

    cell: Int[Tensor, " n"]
    """Number of the pixel among all maps' pixels; points outside have numbers beyond."""
    depth: Float[Tensor, " n"]
    shape: tuple[int, int, int, int]
    """Of the maps: ``b, c, size, size``."""
    num_points: int

    def extreme(self, values: Tensor, start: float, which: Literal["amin", "amax"]) -> Tensor:
        """The least or largest value in each pixel, ``start`` where there is none."""
        pixels = math.prod(self.shape)
        result = values.new_full((pixels + self.num_points,), start)
        return result.scatter_reduce(0, self.cell, values, which)[:pixels]

    def nearest(self) -> tuple[Int[Tensor, "b c y x"], Float[Tensor, "b c y x"]]:
        """Number of each pixel's nearest point, -1 where there is none, and its depth, infinite there."""
        least = self.extreme(self.depth, torch.inf, "amin")
        number = torch.arange(self.num_points, device=self.cell.device).repeat(self.shape[0] * self.shape[1])
        inside = self.cell < len(least)
        first = self.depth <= least[self.cell.clamp(max=len(least) - 1)]
        # The largest number wins a tie, on every device.
        winner = self.extreme(torch.where(inside & first, number, -1), -1, "amax")
        return winner.view(self.shape), least.view(self.shape)


def _splat(points: Float[Tensor, "b p 3"], cameras: Cameras, size: int) -> _Splatted:
    batch, count = cameras.viewmats.shape[:2]
    seen = cameras.resized(size, size)
    num_points = points.shape[1]
    xy, depth = project(points[:, None].expand(-1, count, -1, -1), seen.viewmats, seen.Ks)  # [b, c, p, 2], [b, c, p]
    column, row = xy.floor().unbind(-1)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size) & (depth > 1e-3)
    view = torch.arange(batch * count, device=points.device).view(batch, count, 1)
    # Points outside go to many spare cells: a GPU writes to one cell one after the other.
    spare = batch * count * size * size + torch.arange(num_points, device=points.device)
    column, row = (place.clamp(0, size - 1).long() for place in (column, row))
    cell = torch.where(inside, (view * size + row) * size + column, spare)
    return _Splatted(cell.flatten(), depth.flatten(), (batch, count, size, size), num_points)
