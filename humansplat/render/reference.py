"""The rendering of Gaussians written out in plain PyTorch: slow, short, differentiable, in any precision.

The yardstick of the fast backends. It states the rules that all of them share (those of gsplat 1.5):

1. A splat counts if its centre's depth lies in ``[near, far]`` and its opacity reaches 1 / 255.
2. Its covariance in the image is ``J W S W^T J^T + 0.3 I`` (pixels); ``J`` is the projection's Jacobian at the
   centre, its slopes clamped to 0.3 half fields of view outside the image.
3. At a pixel centre (+0.5), ``alpha = min(0.999, opacity exp(-d^T cov^-1 d / 2))``; below 1 / 255 it is skipped.
4. Splats are composited near to far by the depth of their centres. The splat that would leave a pixel's
   transmittance at 1e-4 or less ends the pixel and is itself not composited.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.geometry.projection import to_camera
from humansplat.geometry.rotations import quaternion_to_matrix
from humansplat.structures import Cameras, Gaussians

_BLOCK = 16  # pixels composited at once, along x and along y; no influence on the result


def rasterize(
    splats: Gaussians, cameras: Cameras, near: float, far: float
) -> tuple[Float[Tensor, "c h w 3"], Float[Tensor, "c h w"], Float[Tensor, "c h w"]]:
    """Render one set of splats from several cameras, in the precision of the splats.

    Args:
        splats: Unbatched.
        cameras: ``[c]`` cameras on the splats' device.
        near: Nearest visible depth of a centre, metres.
        far: Farthest visible depth of a centre, metres.

    Returns:
        Premultiplied colours, alphas, and the sum of depth times weight.
    """
    viewmats, Ks = cameras.viewmats.to(splats.means), cameras.Ks.to(splats.means)
    renders = [_render(splats, viewmats[i], Ks[i], cameras.width, cameras.height, near, far) for i in range(len(Ks))]
    channels = torch.stack(renders)
    return channels[..., :3], channels[..., 3], channels[..., 4]


def _render(
    splats: Gaussians, viewmat: Tensor, K: Tensor, width: int, height: int, near: float, far: float
) -> Float[Tensor, "h w 5"]:
    """Red, green, blue, alpha and weighted depth from one camera."""
    means, covariances, depths = _project(splats, viewmat, K, width, height)
    visible = (depths >= near) & (depths <= far) & (splats.opacities >= 1 / 255)
    order = depths.masked_fill(~visible, torch.inf).argsort(stable=True)[: int(visible.sum())]
    means, covariances, opacities = means[order], covariances[order], splats.opacities[order]
    features = torch.cat([splats.colors[order], torch.ones_like(depths[order, None]), depths[order, None]], dim=-1)

    conics = torch.linalg.inv(covariances)
    # A splat cannot reach 1 / 255 beyond its box of 3.33 standard deviations.
    reach = 3.33 * covariances.diagonal(dim1=-2, dim2=-1).sqrt()
    rows = []
    for top in range(0, height, _BLOCK):
        blocks = []
        for left in range(0, width, _BLOCK):
            low = means.new_tensor([left, top])
            high = low.new_tensor([min(left + _BLOCK, width), min(top + _BLOCK, height)])
            near_by = ((means + reach > low) & (means - reach < high)).all(dim=-1).nonzero()[:, 0]
            pixels = _pixel_centers(low, high)
            block = _composite(pixels, means[near_by], conics[near_by], opacities[near_by], features[near_by])
            blocks.append(block)
        rows.append(torch.cat(blocks, dim=1))
    return torch.cat(rows)


def _pixel_centers(low: Float[Tensor, "2"], high: Float[Tensor, "2"]) -> Float[Tensor, "rows columns 2"]:
    """Centres ``(x, y)`` of the pixels of a rectangle."""
    x, y = (torch.arange(first, last).to(low) + 0.5 for first, last in zip(low.tolist(), high.tolist(), strict=True))
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _project(
    splats: Gaussians, viewmat: Tensor, K: Tensor, width: int, height: int
) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n 2 2"], Float[Tensor, " n"]]:
    """Centres and covariances in pixels, and depths; meaningless for splats that are not in front."""
    points = to_camera(splats.means, viewmat)
    depths = points[:, 2]
    focal, center = K.diagonal()[:2], K[:2, 2]
    slopes = points[:, :2] / depths[:, None]
    size = K.new_tensor([width, height])
    margin = 0.3 * 0.5 * size / focal
    clamped = torch.minimum(torch.maximum(slopes, -center / focal - margin), (size - center) / focal + margin)
    scaled = focal / depths[:, None]
    jacobian = torch.cat([torch.diag_embed(scaled), -(scaled * clamped)[..., None]], dim=-1)  # [n, 2, 3]
    axes = viewmat[:3, :3] @ quaternion_to_matrix(splats.quats) * splats.scales[:, None, :]
    flat = jacobian @ axes
    covariances = flat @ flat.mT + 0.3 * torch.eye(2, dtype=K.dtype, device=K.device)
    return focal * slopes + center, covariances, depths


def _composite(
    pixels: Float[Tensor, "rows columns 2"],
    means: Float[Tensor, "n 2"],
    conics: Float[Tensor, "n 2 2"],
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n k"],
) -> Float[Tensor, "rows columns k"]:
    """Composite splats, sorted near to far, over each pixel."""
    offsets = pixels[..., None, :] - means
    dx, dy = offsets.unbind(-1)
    distances = conics[:, 0, 0] * dx * dx + 2 * conics[:, 0, 1] * dx * dy + conics[:, 1, 1] * dy * dy
    alphas = (opacities * torch.exp(-0.5 * distances)).clamp(max=0.999)
    alphas = alphas.masked_fill(alphas < 1 / 255, 0.0)
    after = torch.cumprod(1 - alphas, dim=-1)
    before = torch.cat([torch.ones_like(after[..., :1]), after[..., :-1]], dim=-1)
    weights = (alphas * before).masked_fill(after <= 1e-4, 0.0)
    return weights @ features
