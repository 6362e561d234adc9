"""Crops of people for networks that read one picture: framed again, and spoilt as photographs are.

All of it runs on the device that holds the people, without waiting for it.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from humansplat import draws
from humansplat.data.rig import CANONICAL_FILL
from humansplat.geometry.projection import to_camera
from humansplat.metrics.image import mask_box
from humansplat.structures import Cameras, TensorStruct


class Framing(TensorStruct):
    """A similarity from a picture to a crop of it, both in fractions of their sides."""

    scale: Float[Tensor, " n"]
    roll: Float[Tensor, " n"]
    """Radians, clockwise as seen."""
    source: Float[Tensor, "n 2"]
    """What of the picture comes to lie at ``target``."""
    target: Float[Tensor, "n 2"]

    def turn(self) -> Float[Tensor, "n 2 2"]:
        """Rotation of the picture's axes."""
        cos, sin = self.roll.cos(), self.roll.sin()
        return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], dim=-2)


def box_center(alpha: Float[Tensor, "n h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Centre (x, y) and larger side of each mask's box, fractions of the square picture."""
    low, high = (mask_box(alpha, margin=0.0) / alpha.shape[-1]).split(2, dim=-1)
    return (low + high) / 2, (high - low).amax(dim=-1)


def draw_framing(alpha: Float[Tensor, "n h w"], generator: torch.Generator) -> Framing:
    """The canonical crop of each picture, missed by a little: 3 % of its size, 1 % of its place, 3 degrees of roll."""
    center, side = box_center(alpha)
    noise = draws.normal(generator, len(alpha), 4).mT
    fill = CANONICAL_FILL * (0.03 * noise[0]).clamp(-0.08, 0.08).exp()
    return Framing(
        scale=fill / side,
        roll=math.radians(3.0) * noise[1].clamp(-3, 3),
        source=center,
        target=0.5 + 0.01 * noise[2:].mT,
    )


def canonical_framing(alpha: Float[Tensor, "n h w"]) -> Framing:
    """The canonical crop of each picture."""
    center, side = box_center(alpha)
    zeros = torch.zeros_like(side)
    return Framing(scale=CANONICAL_FILL / side, roll=zeros, source=center, target=torch.full_like(center, 0.5))


def framed_points(places: Float[Tensor, "n k 2"], framing: Framing) -> Float[Tensor, "n k 2"]:
    """Where places of the pictures come to lie in the crops."""
    turned = (places - framing.source[:, None]) @ framing.turn().mT * framing.scale[:, None, None]
    return turned + framing.target[:, None]


def reframe(images: Float[Tensor, "n 4 s s"], framing: Framing) -> Float[Tensor, "n 4 s s"]:
    """Cut crops out of pictures that stand before white, with their alpha; white beyond the picture."""
    size = images.shape[-1]
    places = (torch.arange(size, device=images.device) + 0.5) / size
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), dim=-1).expand(len(images), -1, -1, -1)
    back = framing.turn().mT / framing.scale[:, None, None]
    offset = framing.source - (back @ framing.target[..., None])[..., 0]
    spots = grid @ back.mT[:, None] + offset[:, None, None]
    dark = torch.cat([1 - images[:, :3], images[:, 3:]], dim=1)  # zero is white here, as padding is
    crops = F.grid_sample(dark, 2 * spots - 1, mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.cat([1 - crops[:, :3], crops[:, 3:]], dim=1)


def crop_points(
    points: Float[Tensor, "n k 3"], root: int, cameras: Cameras, framing: Framing
) -> Float[Tensor, "n k 3"]:
    """World points in crop units, see ``humansplat.models.lifter``.

    Args:
        points: World frame.
        root: Index of the point whose depth is zero.
        cameras: ``[n]``, of the pictures that were cropped.
        framing: Of the crops.
    """
    seen = to_camera(points, cameras.viewmats)
    z = seen[..., 2:].clamp(min=0.05)
    focal = torch.stack([cameras.Ks[:, 0, 0] / cameras.width, cameras.Ks[:, 1, 1] / cameras.height], dim=-1)
    center = torch.stack([cameras.Ks[:, 0, 2] / cameras.width, cameras.Ks[:, 1, 2] / cameras.height], dim=-1)
    flat = seen[..., :2] / z * focal[:, None] + center[:, None]
    depth = focal[:, None, :1] * (z - z[:, root, None]) / z[:, root, None]
    return torch.cat([framed_points(flat, framing), depth * framing.scale[:, None, None]], dim=-1)


def crop_up(cameras: Cameras, framing: Framing) -> Float[Tensor, "n 3"]:
    """The world's up in the axes of each crop's camera."""
    up = cameras.viewmats[:, :3, 1]
    return torch.cat([(framing.turn() @ up[:, :2, None])[..., 0], up[:, 2:]], dim=-1)


def inside(points: Float[Tensor, "n k 3"]) -> Bool[Tensor, " n"]:
    """Whether all points lie within the crop."""
    return ((points[..., :2] > 0) & (points[..., :2] < 1)).flatten(1).all(dim=1)


def spoil(crops: Float[Tensor, "n 4 s s"], generator: torch.Generator) -> Float[Tensor, "n 4 s s"]:
    """Blur, noise, contrast, grey, a mask's faults, and pieces that something hides.

    What synthetic pictures lack and photographs have; each crop gets some of it.
    """

    def uniform(*shape: int) -> Tensor:
        return draws.uniform(generator, len(crops), *shape)

    coarse = F.interpolate(F.avg_pool2d(crops, 2), scale_factor=2, mode="bilinear")
    coarser = F.interpolate(F.avg_pool2d(crops, 4), scale_factor=4, mode="bilinear")
    kind, share = uniform(1, 1, 1), uniform(1, 1, 1)
    blurred = torch.where(kind < 0.35, coarse, torch.where(kind > 0.88, coarser, crops))
    crops = torch.lerp(crops, blurred, share)

    colors, alpha = crops[:, :3], crops[:, 3:]
    grey = colors.mean(dim=1, keepdim=True)
    colors = torch.lerp(colors, grey.expand_as(colors), (uniform(1, 1, 1) * 1.6 - 0.6).clamp(min=0.0))
    gamma = (0.7 * (uniform(1, 1, 1) - 0.5)).exp()
    colors = colors.clamp(1e-3, 1).pow(gamma)
    noise = draws.normal(generator, *colors.shape)
    colors = (colors + 0.04 * uniform(1, 1, 1).square() * noise).clamp(0, 1)

    # The mask grows or shrinks by a pixel or two: a threshold on its blurred self.
    soft = F.avg_pool2d(alpha, 7, stride=1, padding=3)
    shifted = ((soft - 0.2 - 0.6 * uniform(1, 1, 1)) * 4 + 0.5).clamp(0, 1)
    alpha_new = torch.where(uniform(1, 1, 1) < 0.4, shifted, alpha)
    colors = 1 - (1 - colors) * torch.minimum(alpha_new / alpha.clamp(min=1e-3), torch.ones_like(alpha))
    return _hide(torch.cat([colors, alpha_new], dim=1), generator)


def _hide(crops: Float[Tensor, "n 4 s s"], generator: torch.Generator) -> Float[Tensor, "n 4 s s"]:
    """Paint a rectangle of some crops: white and masked out, as a matting error, or coloured, as an object."""
    count, size, device = len(crops), crops.shape[-1], crops.device
    numbers = draws.uniform(generator, count, 9, 1, 1, 1).unbind(1)
    places = (torch.arange(size, device=device) + 0.5) / size
    x, y = places.view(1, 1, 1, -1), places.view(1, 1, -1, 1)
    half_width, half_height = 0.02 + 0.08 * numbers[2], 0.02 + 0.08 * numbers[3]
    covered = ((x - numbers[0]).abs() < half_width) & ((y - numbers[1]).abs() < half_height) & (numbers[4] < 0.3)
    absent, none, full = numbers[5] < 0.5, torch.zeros_like(numbers[5]), torch.ones_like(numbers[5])
    paint = torch.where(absent, full, torch.cat(numbers[6:], dim=1))
    patch = torch.cat([paint, torch.where(absent, none, full)], dim=1)
    return torch.where(covered, patch.expand_as(crops), crops)
