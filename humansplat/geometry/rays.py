"""Rays through pixel centres, and their Pluecker coordinates."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from humansplat.structures import Cameras


def pixel_centers(width: int, height: int, device: torch.device | str = "cpu") -> Float[Tensor, "h w 2"]:
    """Image coordinates ``(x, y)`` of the pixel centres, in pixels: the first is ``(0.5, 0.5)``."""
    ys = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    xs = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def camera_rays(
    cameras: Cameras, stride: int = 1
) -> tuple[Float[Tensor, "*batch h w 3"], Float[Tensor, "*batch h w 3"]]:
    """Rays through the centres of square cells of the image.

    Args:
        cameras: Any batch axes.
        stride: Side of a cell in pixels; 1 gives a ray a pixel. It must divide width and height.

    Returns:
        Origins (the camera centres, metres) and unit directions, world frame.

    Raises:
        ValueError: If ``stride`` does not divide the image size.
    """
    if cameras.width % stride or cameras.height % stride:
        raise ValueError(f"stride {stride} does not divide the image size {cameras.width} x {cameras.height}")
    x, y = (
        torch.arange(0.5 * stride, side, stride, dtype=cameras.Ks.dtype, device=cameras.Ks.device)
        for side in (cameras.width, cameras.height)
    )
    # K is upper triangular: solved by hand, for matrix inverses on a GPU wait for it or cannot be captured in a graph.
    K = cameras.Ks[..., None, None]
    down = (y[:, None] - K[..., 1, 2, :, :]) / K[..., 1, 1, :, :]  # [*batch, h, 1]
    right = (x - K[..., 0, 2, :, :] - K[..., 0, 1, :, :] * down) / K[..., 0, 0, :, :]  # [*batch, h, w]
    cam = torch.stack([right, down.expand_as(right), torch.ones_like(right)], dim=-1)
    cam = cam.flatten(-3, -2) @ cameras.viewmats[..., :3, :3]  # [*batch, h*w, 3]
    directions = F.normalize(cam, dim=-1).unflatten(-2, right.shape[-2:])
    return cameras.centers[..., None, None, :].expand_as(directions), directions


def plucker(origins: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 6"]:
    """Pluecker coordinates ``(o x d, d)`` of rays; the same for every origin on the ray."""
    return torch.cat([torch.linalg.cross(origins, directions), directions], dim=-1)
