"""The photo, the cameras and the body that a forward pass is shown, and looking points up in the photo.

Shapes: b batch, v views, n points, m pixels on a side of a map.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.geometry.projection import project
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras, TensorStruct


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
