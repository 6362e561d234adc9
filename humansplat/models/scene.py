"""The photo, the cameras and the body that a forward pass is shown, and looking points up in the photo.

Shapes: b batch, v views, n points, m pixels on a side of a map.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.models.anchors import body_distances, rig_center
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, PosedBody, TensorStruct


class Scene(TensorStruct):
    """What the network is shown besides latents, in float32."""

    image: Float[Tensor, "b 4 h h2"]
    """The photo, sRGB and straight alpha."""
    cameras: Cameras
    """``[b, v]``, the photo's first."""
    center: Float[Tensor, "b 3"]
    """Middle of the person, world frame, metres."""
    maps: BodyMaps | None
    """``[b, v, m, m]``, half the picture's size; ``None`` where the network reads none."""
    near: Float[Tensor, "b v m m"] | None
    """Distance from the cameras to the body, or to the nearest part of it in the image, metres; with maps."""


def make_scene(image: Float[Tensor, "b 4 h h2"], cameras: Cameras, body: PosedBody, maps: BodyMaps | None) -> Scene:
    """Gather what a forward pass is shown; without maps nothing of the body is used."""
    if maps is None:
        return Scene(image=image, cameras=cameras, center=rig_center(cameras), maps=None, near=None)
    center = (body.vertices.amin(dim=1) + body.vertices.amax(dim=1)) / 2
    return Scene(image=image, cameras=cameras, center=center, maps=maps, near=body_distances(cameras, maps))


def sample_image(
    values: Float[Tensor, "b c h w"], points: Float[Tensor, "b n 3"], cameras: Cameras
) -> Float[Tensor, "b n c"]:
    """Bilinear values of an image, or of a coarser map of it, where points project; 0 outside it."""
    xy, _ = project(points, cameras.viewmats, cameras.Ks)
    x, y = xy.unbind(dim=-1)
    grid = 2 * torch.stack([x / cameras.width, y / cameras.height], dim=-1) - 1
    sampled = F.grid_sample(values, grid[:, None].to(values.dtype), align_corners=False)  # [b, c, 1, n]
    return sampled[:, :, 0].transpose(1, 2)


def look_up(
    points: Float[Tensor, "b n 3"], scene: Scene
) -> tuple[Float[Tensor, "b n 3"], Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
    """What the photo shows where points project into it, occluded or not.

    Everything of the person lies in the cone of the silhouette (the visual hull; Laurentini, 1994). For that cone the
    mask is widened by two pixels, so that soft edges stay solid.

    Args:
        points: World frame, metres.
        scene: With the photo and its camera.

    Returns:
        The colour, how much of a person is there, and how far the point lies in the cone.
    """
    color, alpha = scene.image.split([3, 1], dim=1)
    widened = F.max_pool2d(alpha, 5, stride=1, padding=2)
    seen = sample_image(torch.cat([color * alpha, alpha, widened], dim=1), points, scene.cameras[:, 0])
    color, alpha, inside = seen.split([3, 1, 1], dim=-1)
    return color / alpha.clamp(min=1e-3), alpha, inside
