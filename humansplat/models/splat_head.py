"""From a network's raw numbers to splats: those on the rays of the views' pixels, and those on the body's skin.

Shapes: b batch, v views, t kept tokens of a view, k splats of a token, j body tokens, n splats.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.geometry.rotations import matrix_to_quaternion, quaternion_multiply
from humansplat.models.anchors import Anchors, axis_anchors, ray_anchors, rig_axis
from humansplat.models.cells import TokenGrid, patchify, take_cells
from humansplat.models.scene import Scene, photo_colors, sample_image
from humansplat.structures import Cameras, Gaussians

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


def photo_splats(
    raw: Float[Tensor, "b 1 t k c"],
    scene: Scene,
    kept: Int[Tensor, "b v t"] | None,
    grid: TokenGrid,
    max_offset: float,
) -> Gaussians:
    """One splat for each pixel of the photo's kept tokens, of the pixel's colour and mask.

    Args:
        raw: Network outputs (:data:`RAY_CHANNELS`), float32; a token's splats row by row.
        scene: What the network was shown.
        kept: Row-major indices of the kept tokens of all views; ``None`` where all are kept.
        grid: How views are cut into tokens.
        max_offset: Farthest that a splat gets from its anchor along its ray, metres.
    """
    kept = None if kept is None else kept[:, :1]
    camera = scene.cameras[:, :1]
    means, footprint, _ = _along_rays(raw, scene, slice(0, 1), kept, grid.side, 1, max_offset)
    pixels = take_cells(patchify(scene.image.movedim(1, -1)[:, None], grid.side), kept)  # [b, 1, t, k, 4]
    color, alpha = pixels.flatten(1, 3).split([3, 1], dim=-1)
    splats = activate(
        raw[..., 1:].flatten(1, 3),
        means=means.flatten(1, 3),
        footprint=footprint.flatten(1, 3),
        orientation=_orientations(camera),
        opacity_logit=torch.full_like(alpha, 3.0),
        known=(color, torch.ones_like(alpha)),
        gate_logit=4.0,
    )
    return _fainter(splats, alpha[..., 0])  # nothing stands where the photo shows background


def unseen_splats(
    raw: Float[Tensor, "b u t k c"],
    scene: Scene,
    kept: Int[Tensor, "b v t"] | None,
    grid: TokenGrid,
    max_offset: float,
) -> Gaussians:
    """Splats of the views without a photo, ``k`` a token in rows and columns; arguments as of :func:`photo_splats`."""
    kept = None if kept is None else kept[:, 1:]
    stride = grid.side // math.isqrt(raw.shape[3])
    means, footprint, on_body = _along_rays(raw, scene, slice(1, None), kept, grid.side, stride, max_offset)
    orientation = _orientations(scene.cameras[:, 1:])[:, :, None].expand(-1, -1, means.shape[2] * means.shape[3], -1)
    means = means.flatten(1, 3)
    splats = activate(
        raw[..., 1:].flatten(1, 3),
        means=means,
        footprint=footprint.flatten(1, 3),
        orientation=orientation.flatten(1, 2),
        opacity_logit=4.0 * on_body.flatten(1, 3) - 2.0,
        known=photo_colors(means.detach(), scene.image, scene.cameras[:, 0]),
        gate_logit=0.0,
    )
    return carve(splats, scene)


def skin_splats(raw: Float[Tensor, "b j k c"], points: Float[Tensor, "b j 3"], scene: Scene) -> Gaussians:
    """Splats of the body tokens, near their vertices.

    Args:
        raw: Network outputs (:data:`SKIN_CHANNELS`), float32.
        points: The tokens' vertices, world frame, metres.
        scene: What the network was shown.
    """
    photo = scene.cameras[:, 0]
    spacing = (SKIN_AREA / (raw.shape[1] * raw.shape[2])) ** 0.5
    offset = MAX_SKIN_OFFSET * torch.tanh(raw[..., :3]).flatten(1, 2)
    means = points.repeat_interleave(raw.shape[2], dim=1) + offset @ photo.viewmats[:, :3, :3]
    splats = activate(
        raw[..., 3:].flatten(1, 2),
        means=means,
        footprint=torch.full_like(means[..., :1], 0.5 * spacing),
        orientation=_orientations(scene.cameras[:, :1]),
        opacity_logit=torch.zeros_like(means[..., :1]),
        known=photo_colors(means.detach(), scene.image, photo),
        gate_logit=0.0,
    )
    return carve(splats, scene)


def activate(
    raw: Float[Tensor, "b n c"],
    means: Float[Tensor, "b n 3"],
    footprint: Float[Tensor, "b n 1"],
    orientation: Float[Tensor, "b n 4"] | Float[Tensor, "b 1 4"],
    opacity_logit: Float[Tensor, "b n 1"],
    known: tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 1"]],
    gate_logit: float,
) -> Gaussians:
    """Turn raw numbers (:data:`CHANNELS`) into splats; zeros give a round splat of the known colour's share.

    Args:
        raw: Network outputs, float32.
        means: Centres, world frame, metres.
        footprint: Standard deviation at raw zero, metres.
        orientation: Of the camera in whose frame the network states orientations, camera -> world.
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
        quats=quaternion_multiply(orientation, local),
        scales=footprint * torch.exp(2.5 * torch.tanh(scales / 2.5)),  # within a factor of 12
        opacities=(opacities + opacity_logit).sigmoid()[..., 0],
        colors=torch.lerp(colors.sigmoid(), color.clamp(0.0, 1.0), share),
    )


def carve(splats: Gaussians, scene: Scene) -> Gaussians:
    """Take away what the photo shows not to be there: splats that project beside its mask.

    Everything of the person lies in the cone of the silhouette (the visual hull; Laurentini, 1994). The
    mask is widened by two pixels, so that soft edges stay solid.

    Args:
        splats: ``[b, n]``.
        scene: With the photo and its camera.
    """
    widened = F.max_pool2d(scene.image[:, 3:], 5, stride=1, padding=2)
    return _fainter(splats, sample_image(widened, splats.means.detach(), scene.cameras[:, 0])[..., 0])


def _along_rays(
    raw: Tensor,
    scene: Scene,
    views: slice,
    kept: Tensor | None,
    side: int,
    stride: int,
    max_offset: float,
) -> tuple[Float[Tensor, "b v t k 3"], Float[Tensor, "b v t k 1"], Float[Tensor, "b v t k 1"]]:
    """Centres, footprints and whether the ray meets the body, of the splats of some views' kept tokens."""
    cameras = scene.cameras[:, views]
    if scene.maps is None:
        anchors = axis_anchors(cameras, rig_axis(scene.cameras), stride)
    else:
        anchors = ray_anchors(cameras, scene.maps[:, views], stride)
    anchors = Anchors(
        directions=take_cells(patchify(anchors.directions, side // stride), kept),
        distances=take_cells(patchify(anchors.distances, side // stride), kept),
        on_body=take_cells(patchify(anchors.on_body, side // stride), kept),
    )
    distance = anchors.distances + max_offset * torch.tanh(raw[..., :1])
    means = cameras.centers[:, :, None, None] + distance * anchors.directions
    focal = cameras.Ks[:, :, 0, 0, None, None, None]
    return means, 0.7 * stride * anchors.distances / focal, anchors.on_body


def _orientations(cameras: Cameras) -> Float[Tensor, "b v 4"]:
    """Of cameras ``[b, v]``, camera -> world."""
    return matrix_to_quaternion(cameras.viewmats[..., :3, :3].mT)


def _fainter(splats: Gaussians, share: Float[Tensor, "b n"]) -> Gaussians:
    return Gaussians(
        means=splats.means,
        quats=splats.quats,
        scales=splats.scales,
        opacities=splats.opacities * share,
        colors=splats.colors,
    )
