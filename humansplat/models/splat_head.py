"""From a network's raw numbers to splats: those on the rays of the views' pixels, and those on the body's skin.

Shapes: b batch, v views, t kept tokens of a view, k splats of a token, j body tokens, n splats.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.geometry.rotations import matrix_to_quaternion, multiplication_matrix
from humansplat.models.anchors import axis_anchors, ray_anchors, rig_axis
from humansplat.models.cells import TokenGrid, patchify, take_cells
from humansplat.models.scene import Scene, look_up
from humansplat.structures import Cameras, Gaussians, TensorStruct

CHANNELS = 4 + 3 + 1 + 3 + 1
"""Quaternion, scale, opacity, colour, share of the photo's colour; the position's come before these."""
RAY_CHANNELS = 1 + CHANNELS
"""Of a splat on a pixel's ray."""
SKIN_CHANNELS = 3 + CHANNELS
"""Of a splat on the skin."""
SKIN_AREA = 1.8
"""Of an adult, square metres (Mosteller, 1987): sets the size of the skin's splats."""
MAX_SKIN_OFFSET = 0.1
"""Farthest that a skin splat gets from its vertex, metres."""


class Starts(TensorStruct):
    """Splats before their activations."""

    raw: Float[Tensor, "b n c"]
    """Network outputs (:data:`CHANNELS`); zeros give a round splat of the known colour's share."""
    means: Float[Tensor, "b n 3"]
    """Centres, world frame, metres."""
    footprint: Float[Tensor, "b n 1"]
    """Standard deviation at raw zero, metres."""
    opacity_logit: Float[Tensor, "b n 1"]
    """Added to the raw opacity."""


def decode(
    photo: Float[Tensor, "b 1 t k c"],
    unseen: Float[Tensor, "b u t k2 c"],
    skin: Float[Tensor, "b j k3 d"] | None,
    points: Float[Tensor, "b j 3"] | None,
    scene: Scene,
    kept: Int[Tensor, "b v t"] | None,
    grid: TokenGrid,
    max_offset: float,
) -> Gaussians:
    """Turn a network's outputs into splats.

    The photo's have the colours and the mask of their pixels. The others lean on the photo's colours where they
    project into it, and nothing of them stands outside the cone of its silhouette.

    Args:
        photo: Of the photo's kept tokens (:data:`RAY_CHANNELS`), float32: a splat for each pixel, row by row.
        unseen: Of the other views' tokens, a square of splats each.
        skin: Of the body tokens (:data:`SKIN_CHANNELS`), if they carry splats.
        points: The body tokens' vertices, world frame, metres.
        scene: What the network was shown.
        kept: Row-major indices of the kept tokens of all views; ``None`` where all are kept.
        grid: How views are cut into tokens.
        max_offset: Farthest that a splat gets from its anchor along its ray, metres.
    """
    pixels = patchify(scene.image.movedim(1, -1)[:, None], grid.side)
    pixels = take_cells(pixels, None if kept is None else kept[:, :1]).flatten(1, 3)  # [b, n, 4]
    starts = [
        _along_rays(photo, scene, slice(0, 1), kept, grid, max_offset),
        _along_rays(unseen, scene, slice(1, None), kept, grid, max_offset),
    ]
    if skin is not None:
        assert points is not None
        starts.append(_on_the_skin(skin, points, scene))
    start = _join(starts)
    others = start.means[:, pixels.shape[1] :].detach()
    color, trust, inside = (
        torch.cat(pair, dim=1)
        for pair in zip(
            (pixels[..., :3], torch.ones_like(pixels[..., 3:]), pixels[..., 3:]), look_up(others, scene), strict=True
        )
    )
    gate_logit = torch.cat([torch.full_like(pixels[..., :1], 4.0), torch.zeros_like(others[..., :1])], dim=1)
    splats = activate(start, known=(color, trust), gate_logit=gate_logit)
    return Gaussians(
        means=splats.means,
        quats=_turn_to_world(splats.quats, scene.cameras, [start.raw.shape[1] for start in starts]),
        scales=splats.scales,
        opacities=splats.opacities * inside[..., 0],
        colors=splats.colors,
    )


def activate(
    start: Starts,
    known: tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 1"]],
    gate_logit: Float[Tensor, "b n 1"],
) -> Gaussians:
    """Turn raw numbers into splats, oriented in the frames of their cameras.

    Args:
        start: The raw numbers, and what they are added to.
        known: A colour to lean on, and how far it can be trusted, in [0, 1].
        gate_logit: Added to the raw share of the known colour.
    """
    quats, scales, opacities, colors, gate = start.raw.split([4, 3, 1, 3, 1], dim=-1)
    local = F.normalize(torch.cat([quats[..., :1] + 1, quats[..., 1:]], dim=-1), dim=-1)
    color, trust = known
    share = trust * (gate + gate_logit).sigmoid()
    return Gaussians(
        means=start.means,
        quats=local,
        scales=start.footprint * torch.exp(2.5 * torch.tanh(scales / 2.5)),  # within a factor of 12
        opacities=(opacities + start.opacity_logit).sigmoid()[..., 0],
        colors=torch.lerp(colors.sigmoid(), color.clamp(0.0, 1.0), share),
    )


def _turn_to_world(quats: Float[Tensor, "b n 4"], cameras: Cameras, counts: Sequence[int]) -> Float[Tensor, "b n 4"]:
    """Orientations in the world's axes: splats of the photo's camera, of the other views', and on the skin.

    The network states those on the skin in the photo's axes. A matrix a camera instead of a product of quaternions
    for every splat: a few kernels instead of tens.

    Args:
        quats: Of all splats, in their cameras' axes.
        cameras: ``[b, v]``.
        counts: Splats of the photo, of all other views together, and on the skin if there are any.
    """
    turns = multiplication_matrix(matrix_to_quaternion(cameras.viewmats[..., :3, :3].mT)).mT  # [b, v, 4, 4]
    photo, others, *skin = quats.split(list(counts), dim=1)
    views = others.unflatten(1, (turns.shape[1] - 1, -1)) @ turns[:, 1:]
    return torch.cat([photo @ turns[:, 0], views.flatten(1, 2), *(part @ turns[:, 0] for part in skin)], dim=1)


def _along_rays(
    raw: Float[Tensor, "b u t k c"],
    scene: Scene,
    views: slice,
    kept: Int[Tensor, "b v t"] | None,
    grid: TokenGrid,
    max_offset: float,
) -> Starts:
    """Splats of some views' kept tokens, on the rays of their pixels."""
    cameras = scene.cameras[:, views]
    across = math.isqrt(raw.shape[3])  # splats on a side of a token
    stride = grid.side // across
    if scene.maps is None or scene.near is None:
        anchors = axis_anchors(cameras, rig_axis(scene.cameras), stride)
        logit = torch.zeros_like(anchors.distances)
    else:
        anchors = ray_anchors(cameras, scene.maps[:, views], scene.near[:, views], stride)
        logit = 4.0 * anchors.on_body - 2.0
    if views.start == 0:
        logit = torch.full_like(logit, 3.0)  # the mask says where the photo's are
    chosen = torch.cat([anchors.directions, anchors.distances, logit], dim=-1)
    chosen = take_cells(patchify(chosen, across), None if kept is None else kept[:, views])  # [b, u, t, k, 5]
    directions, distances, logit = chosen.split([3, 1, 1], dim=-1)
    means = anchors.centers[:, :, None, None] + (distances + max_offset * torch.tanh(raw[..., :1])) * directions
    focal = cameras.Ks[:, :, 0, 0, None, None, None]
    return Starts(
        raw=raw[..., 1:].flatten(1, 3),
        means=means.flatten(1, 3),
        footprint=(0.7 * stride * distances / focal).flatten(1, 3),
        opacity_logit=logit.flatten(1, 3),
    )


def _on_the_skin(raw: Float[Tensor, "b j k c"], points: Float[Tensor, "b j 3"], scene: Scene) -> Starts:
    """Splats of the body tokens, near their vertices."""
    spacing = (SKIN_AREA / (raw.shape[1] * raw.shape[2])) ** 0.5
    offset = MAX_SKIN_OFFSET * torch.tanh(raw[..., :3]).flatten(1, 2)
    means = points.repeat_interleave(raw.shape[2], dim=1) + offset @ scene.cameras.viewmats[:, 0, :3, :3]
    return Starts(
        raw=raw[..., 3:].flatten(1, 2),
        means=means,
        footprint=torch.full_like(means[..., :1], 0.5 * spacing),
        opacity_logit=torch.zeros_like(means[..., :1]),
    )


def _join(parts: Sequence[Starts]) -> Starts:
    return Starts(
        raw=torch.cat([part.raw for part in parts], dim=1),
        means=torch.cat([part.means for part in parts], dim=1),
        footprint=torch.cat([part.footprint for part in parts], dim=1),
        opacity_logit=torch.cat([part.opacity_logit for part in parts], dim=1),
    )
