"""Where splats start: on the rays of their pixels, at the body, or at the axis that the cameras stand around.

Shapes: b batch, v views, m pixels on a side of a body map.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.geometry.rays import camera_rays
from humansplat.models.cells import fill_outwards
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, TensorStruct

GRAZING = 0.2
"""Cosine below which a plane is too steep to continue a surface by."""


class Anchors(TensorStruct):
    """Where the splats of a view's pixels start."""

    directions: Float[Tensor, "*batch 3"]
    """Unit directions of the rays, world frame."""
    distances: Float[Tensor, "*batch 1"]
    """From the camera centre to the body, or to the nearest part of it in the image, metres."""
    on_body: Float[Tensor, "*batch 1"]
    """1 where the ray meets the body, 0 where not, one half where no body is known."""


def ray_anchors(cameras: Cameras, maps: BodyMaps, stride: int) -> Anchors:
    """Anchors at the body for every ``stride``-th pixel.

    The surface between two map pixels is continued by the tangent plane at the nearest point. Rays
    past the body start at the distance of the body nearby: cloth and hair stand off it sideways.

    Args:
        cameras: ``[b, v]``.
        maps: ``[b, v, m, m]``; a map pixel covers one or more strides.
        stride: Pixels from one splat to the next.
    """
    _, directions = camera_rays(cameras, stride)  # [b, v, h, w, 3]
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


def axis_anchors(cameras: Cameras, axis: Float[Tensor, "b 3"], stride: int) -> Anchors:
    """Anchors without a body, for every ``stride``-th pixel: on the upright plane through the axis, facing the camera.

    Args:
        cameras: ``[b, v]``.
        axis: Any point on the vertical axis that the cameras stand around, world frame (:func:`rig_axis`).
        stride: Pixels from one splat to the next.
    """
    _, directions = camera_rays(cameras, stride)
    x, y, z = (axis[:, None] - cameras.centers).unbind(-1)
    across = torch.stack([x, torch.zeros_like(y), z], dim=-1)[:, :, None, None]  # horizontally to the axis
    reach = across.norm(dim=-1, keepdim=True)
    ahead = (directions * across).sum(dim=-1, keepdim=True) / reach
    distances = reach / ahead.clamp(min=GRAZING)
    return Anchors(directions=directions, distances=distances, on_body=torch.full_like(distances, 0.5))


def rig_axis(cameras: Cameras) -> Float[Tensor, "b 3"]:
    """A point on the axis of cameras ``[b, v]`` that stand evenly around it, at their height."""
    return cameras.centers.mean(dim=1)


def rig_center(cameras: Cameras) -> Float[Tensor, "b 3"]:
    """Where the person is without a body known: at the axis of the rig, in the middle of the first view."""
    photo = cameras[:, :1]
    middle = axis_anchors(photo, rig_axis(cameras), cameras.width)
    return photo.centers[:, 0] + (middle.distances * middle.directions)[:, 0, 0, 0]
