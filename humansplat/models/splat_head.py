"""From a network's raw numbers to splats: activations, and where a splat starts.

Shapes: b batch, v views, g cells on a side, t kept cells of a view, k splats of a cell.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.geometry.rays import camera_rays
from humansplat.geometry.rotations import matrix_to_quaternion, quaternion_multiply
from humansplat.models.cells import fill_outwards
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, Gaussians, TensorStruct

CHANNELS = 4 + 3 + 1 + 3 + 1
"""Quaternion, scale, opacity, colour, share of the photo's colour; the position's come before these."""
GRAZING = 0.2
"""Cosine below which a tangent plane is too steep to continue a surface by."""


class Anchors(TensorStruct):
    """Where the splats of a view's pixels start: on their rays, at the body."""

    directions: Float[Tensor, "*batch 3"]
    """Unit directions of the rays, world frame."""
    distances: Float[Tensor, "*batch 1"]
    """From the camera centre to the body, or to the nearest part of it in the image, metres."""
    on_body: Float[Tensor, "*batch 1"]
    """1 where the ray meets the body."""


def ray_anchors(cameras: Cameras, maps: BodyMaps, stride: int) -> Anchors:
    """Anchors for every ``stride``-th pixel.

    The surface between two map pixels is continued by the tangent plane at the nearest point. Rays
    past the body start at the distance of the body nearby: cloth and hair stand off it sideways.

    Args:
        cameras: ``[b, v]``.
        maps: ``[b, v, m, m]``; a map pixel covers one or more strides.
        stride: Pixels from one splat to the next.
    """
    origins, directions = camera_rays(cameras, stride)  # [b, v, h, w, 3]
    repeat = directions.shape[2] // maps.hit.shape[2]
    center = cameras.centers[:, :, None, None, :]
    offset = maps.points - center
    known = maps.hit.to(offset.dtype)
    near = fill_outwards((offset.norm(dim=-1) * known).flatten(0, 1), known.flatten(0, 1)).view_as(known)

    def spread(x: Tensor) -> Tensor:
        return x.repeat_interleave(repeat, dim=2).repeat_interleave(repeat, dim=3)

    near, hit = spread(near[..., None]), spread(maps.hit[..., None])
    normals = spread(maps.normals)
    facing = (directions * normals).sum(dim=-1, keepdim=True)
    plane = (spread(offset) * normals).sum(dim=-1, keepdim=True) / facing.clamp(max=-GRAZING)
    tangent = near + (plane - near).clamp(-0.03, 0.03)
    distances = torch.where(hit & (facing < -GRAZING), tangent, near)
    return Anchors(directions=directions, distances=distances, on_body=hit.to(distances.dtype))


def sample_image(
    values: Float[Tensor, "b c h w"], points: Float[Tensor, "b n 3"], cameras: Cameras
) -> Float[Tensor, "b n c"]:
    """Bilinear values of an image, or of a coarser map of it, where points project; 0 outside it."""
    xy, _ = project(points, cameras.viewmats, cameras.Ks)
    x, y = xy.unbind(dim=-1)
    grid = 2 * torch.stack([x / cameras.width, y / cameras.height], dim=-1) - 1
    sampled = F.grid_sample(values, grid[:, None].to(values.dtype), align_corners=False)  # [b, c, 1, n]
    return sampled[:, :, 0].transpose(1, 2)


def photo_colors(
    points: Float[Tensor, "b n 3"], image: Float[Tensor, "b 4 h w"], cameras: Cameras
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 1"]]:
    """The photo's colour where points project into it, occluded or not, and how much of a person is there.

    Args:
        points: World frame, metres.
        image: sRGB and straight alpha.
        cameras: ``[b]``, the photo's.
    """
    premultiplied = torch.cat([image[:, :3] * image[:, 3:], image[:, 3:]], dim=1)
    seen = sample_image(premultiplied, points, cameras)
    alpha = seen[..., 3:]
    return seen[..., :3] / alpha.clamp(min=1e-3), alpha


def carve(splats: Gaussians, image: Float[Tensor, "b 4 h w"], cameras: Cameras) -> Gaussians:
    """Take away what the photo shows not to be there: splats that project beside its mask.

    Everything of the person lies in the cone of the silhouette (the visual hull; Laurentini, 1994). The
    mask is widened by two pixels, so that soft edges stay solid.

    Args:
        splats: ``[b, n]``.
        image: sRGB and straight alpha.
        cameras: ``[b]``, the photo's.
    """
    widened = F.max_pool2d(image[:, 3:], 5, stride=1, padding=2)
    inside = sample_image(widened, splats.means.detach(), cameras)[..., 0]
    return Gaussians(
        means=splats.means,
        quats=splats.quats,
        scales=splats.scales,
        opacities=splats.opacities * inside,
        colors=splats.colors,
    )


def activate(
    raw: Float[Tensor, "b n c"],
    means: Float[Tensor, "b n 3"],
    footprint: Float[Tensor, "b n 1"],
    camera_to_world: Float[Tensor, "b n 3 3"] | Float[Tensor, "b 1 3 3"],
    opacity_logit: Float[Tensor, "b n 1"],
    known: tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 1"]],
    gate_logit: float,
) -> Gaussians:
    """Turn raw numbers (:data:`CHANNELS`) into splats; zeros give a round splat of the known colour's share.

    Args:
        raw: Network outputs, float32.
        means: Centres, world frame, metres.
        footprint: Standard deviation at raw zero, metres.
        camera_to_world: Frame in which the network states orientations.
        opacity_logit: Added to the raw opacity.
        known: A colour to lean on, and how far it can be trusted, in [0, 1].
        gate_logit: Added to the raw share of the known colour.
    """
    quats, scales, opacities, colors, gate = raw.split([4, 3, 1, 3, 1], dim=-1)
    local = F.normalize(torch.cat([quats[..., :1] + 1, quats[..., 1:]], dim=-1), dim=-1)
    color, trust = known
    share = trust * (gate + gate_logit).sigmoid()
    return Gaussians(
        means=means,
        quats=quaternion_multiply(matrix_to_quaternion(camera_to_world), local),
        scales=footprint * torch.exp(2.5 * torch.tanh(scales / 2.5)),  # within a factor of 12
        opacities=(opacities + opacity_logit).sigmoid()[..., 0],
        colors=torch.lerp(colors.sigmoid(), color.clamp(0.0, 1.0), share),
    )


def surface_visible(
    points: Float[Tensor, "b j 3"], cameras: Cameras, maps: BodyMaps, slack: float = 0.03
) -> Bool[Tensor, "b j"]:
    """Which points of the skin the photo's camera sees, by the first view's depth map.

    Args:
        points: World frame, metres.
        cameras: ``[b]``, the photo's.
        maps: ``[b, v, m, m]``; view 0 is the photo's.
        slack: How far behind the nearest surface still counts, metres.
    """
    size = maps.hit.shape[-1]
    seen = cameras.resized(size, size)
    xy, depth = project(points, seen.viewmats, seen.Ks)
    inside = ((xy >= 0) & (xy < size)).all(dim=-1)
    column, row = xy.floor().long().clamp(0, size - 1).unbind(-1)
    nearest = maps.depth[:, 0].flatten(1).gather(1, row * size + column)
    return inside & (nearest > 0) & (depth <= nearest + slack)
