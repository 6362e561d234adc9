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

    centers: Float[Tensor, "*views 3"]
    """Of the cameras, world frame, metres."""
    directions: Float[Tensor, "*batch 3"]
    """Unit directions of the rays, world frame."""
    distances: Float[Tensor, "*batch 1"]
    """From the camera centre to the body, or to the nearest part of it in the image, metres."""
    on_body: Float[Tensor, "*batch 1"]
    """1 where the ray meets the body; 0 where it does not, or no body is known."""


def body_distances(cameras: Cameras, maps: BodyMaps) -> Float[Tensor, "b v m m"]:
    """From each camera to the body through its map's pixels, past it to the nearest part of it in the image."""
    known = maps.hit.to(maps.points.dtype)
    distance = (maps.points - cameras.centers[:, :, None, None, :]).norm(dim=-1) * known
    return fill_outwards(distance.flatten(0, 1), known.flatten(0, 1)).view_as(known)


def ray_anchors(cameras: Cameras, maps: BodyMaps, near: Float[Tensor, "b v m m"], stride: int) -> Anchors:
    """Anchors at the body for every ``stride``-th pixel.

    The surface between two map pixels is continued by the tangent plane at the nearest point. Rays
    past the body start at the distance of the body nearby: cloth and hair stand off it sideways.

    Args:
        cameras: ``[b, v]``.
        maps: ``[b, v, m, m]``; a map pixel covers one or more strides.
        near: Of the maps' pixels (:func:`body_distances`).
        stride: Pixels from one splat to the next.
    """
    origins, directions = camera_rays(cameras, stride)  # [b, v, h, w, 3]
    repeat = directions.shape[2] // maps.hit.shape[2]
    # The tangent plane lies at this distance along its normal.
    height = ((maps.points - origins[:, :, :1, :1]) * maps.normals).sum(dim=-1, keepdim=True)
    values = torch.cat([near[..., None], maps.hit[..., None].to(near.dtype), height, maps.normals], dim=-1)
    if repeat > 1:
        wide = values[:, :, :, None, :, None].expand(-1, -1, -1, repeat, -1, repeat, -1)
        values = wide.flatten(4, 5).flatten(2, 3)
    near, hit, height, normals = values.split([1, 1, 1, 3], dim=-1)
    facing = (directions * normals).sum(dim=-1, keepdim=True)
    tangent = near + (height / facing.clamp(max=-GRAZING) - near).clamp(-0.03, 0.03)
    distances = torch.where((hit > 0) & (facing < -GRAZING), tangent, near)
    return Anchors(centers=origins[:, :, 0, 0], directions=directions, distances=distances, on_body=hit)


def axis_anchors(cameras: Cameras, axis: Float[Tensor, "b 3"], stride: int) -> Anchors:
    """Anchors without a body, for every ``stride``-th pixel: on the upright plane through the axis, facing the camera.

    Args:
        cameras: ``[b, v]``.
        axis: Any point on the vertical axis that the cameras stand around, world frame (:func:`rig_axis`).
        stride: Pixels from one splat to the next.
    """
    origins, directions = camera_rays(cameras, stride)
    centers = origins[:, :, 0, 0]
    x, y, z = (axis[:, None] - centers).unbind(-1)
    across = torch.stack([x, torch.zeros_like(y), z], dim=-1)[:, :, None, None]  # horizontally to the axis
    reach = across.norm(dim=-1, keepdim=True)
    ahead = (directions * across).sum(dim=-1, keepdim=True) / reach
    distances = reach / ahead.clamp(min=GRAZING)
    unknown = torch.zeros_like(distances)
    return Anchors(centers=centers, directions=directions, distances=distances, on_body=unknown)


def rig_axis(cameras: Cameras) -> Float[Tensor, "b 3"]:
    """A point on the axis of cameras ``[b, v]`` that stand evenly around it, at their height."""
    return cameras.centers.mean(dim=1)


def rig_center(cameras: Cameras) -> Float[Tensor, "b 3"]:
    """Where the person is without a body known: at the axis of the rig, in the middle of the first view."""
    photo = cameras[:, :1]
    middle = axis_anchors(photo, rig_axis(cameras), cameras.width)
    return photo.centers[:, 0] + (middle.distances * middle.directions)[:, 0, 0, 0]
