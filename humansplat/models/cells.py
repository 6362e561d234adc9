"""What each cell of the image grid is told before the transformer starts.

Shapes: b batch, v views, g cells on a side, t kept cells of a view, p pixels on a side of a cell.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from humansplat.geometry.projection import to_camera
from humansplat.render.body_maps import BodyMaps
from humansplat.structures import Cameras

MAP_CHANNELS = 9
"""Of a pixel of the body maps: hit, depth, thickness, normal (3), canonical position (3)."""


def patchify(x: Float[Tensor, "b v h w c"], size: int) -> Float[Tensor, "b v g g2 p2 c"]:
    """Cut maps into square patches of ``size`` pixels; ``p2 = size ** 2``, row by row."""
    b, v, h, w, c = x.shape
    x = x.view(b, v, h // size, size, w // size, size, c)
    return x.permute(0, 1, 2, 4, 3, 5, 6).flatten(4, 5)


def take_cells(x: Float[Tensor, "b v g g2 *rest"], kept: Int[Tensor, "b v t"]) -> Float[Tensor, "b v t *rest"]:
    """Pick the cells with the row-major indices ``kept``."""
    x = x.flatten(2, 3)
    index = kept.view(*kept.shape, *[1] * (x.ndim - 3)).expand(*kept.shape, *x.shape[3:])
    return x.gather(2, index)


def nearest_cells(alpha: Float[Tensor, "b h h"], maps: BodyMaps, grid: int, count: int) -> Int[Tensor, "b v t"]:
    """Row-major indices of the cells nearest to the person, in every view.

    The photo's own view goes by its mask and the body together, the others by the body. Blurring the
    coverage at growing radii ranks the empty cells by how near they are to a covered one.
    """
    coverage = F.adaptive_avg_pool2d(maps.hit.float(), grid)
    photo = torch.maximum(coverage[:, :1], F.adaptive_avg_pool2d(alpha[:, None], grid))
    coverage = torch.cat([photo, coverage[:, 1:]], dim=1)
    score = coverage
    for step, radius in enumerate((1, 2, 4, 8, 16), start=1):
        blurred = F.avg_pool2d(coverage, 2 * radius + 1, stride=1, padding=radius)
        score = score + 0.1**step * blurred
    return score.flatten(2).topk(min(count, grid * grid), dim=-1).indices


def map_features(maps: BodyMaps, cameras: Cameras, center: Float[Tensor, "b 3"]) -> Float[Tensor, "b v m m c"]:
    """Body maps as network inputs: in each camera's frame, depths relative to the body's centre."""
    middle = to_camera(center[:, None, None, :].expand(-1, maps.hit.shape[1], -1, -1), cameras.viewmats)[..., 2]
    hit = maps.hit[..., None]
    depth = torch.where(hit, maps.depth[..., None] - middle[..., None, None], 0.0)
    thickness = (maps.far_depth - maps.depth)[..., None]
    rotation = cameras.viewmats[:, :, None, :3, :3]  # [b, v, 1, 3, 3]
    normals = maps.normals @ rotation.mT
    return torch.cat([hit.to(depth.dtype), depth, thickness, normals, maps.canonical], dim=-1)


def fill_outwards(values: Float[Tensor, "n h w"], known: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """Continue a map into its unknown pixels: known values average down a pyramid, and fill in going up.

    Args:
        values: Any values where ``known`` is 0.
        known: 1 where ``values`` counts, 0 elsewhere. The sides must be powers of two.

    Returns:
        ``values`` where known, else a mean of the nearest known ones (0 in a map that knows none).
    """
    if values.shape[-1] == 1:
        return torch.where(known > 0, values, 0.0)
    weight = F.avg_pool2d(known[:, None], 2)[:, 0]
    mean = F.avg_pool2d((values * known)[:, None], 2)[:, 0] / weight.clamp(min=1e-6)
    coarse = fill_outwards(mean, (weight > 0).to(values.dtype))
    fine = F.interpolate(coarse[:, None], scale_factor=2.0, mode="nearest")[:, 0]
    return torch.where(known > 0, values, fine)
