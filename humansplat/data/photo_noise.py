"""What photographs have and renders lack: another framing, a background at the mask's edge, JPEG.

All of it runs on the device that holds the people, and is drawn from a generator. Only what is given is changed: the
pictures to be matched stay as they are.
"""

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from humansplat import draws
from humansplat.config import AugmentConfig
from humansplat.data.people import PeopleBatch
from humansplat.errors import UserError

MAX_BACKGROUNDS = 256
"""Pictures of a folder that are used."""
COARSE = 6
"""Side of the grid of colours that a gradient or noise is spread from."""


def roughen(batch: PeopleBatch, config: AugmentConfig, generator: torch.Generator) -> PeopleBatch:
    """Draw and apply what ``config`` asks for, in the order in which it befalls a photograph.

    Raises:
        UserError: If the folder of backgrounds holds none.
    """
    count = len(batch.people)
    if config.crop_scale > 0 or config.crop_shift > 0:
        framing = 2 * draws.uniform(generator, count, 3) - 1
        batch = reframe_rig(batch, (config.crop_scale * framing[:, 0]).exp(), config.crop_shift * framing[:, 1:])
    compressed = draws.uniform(generator, count, 2).mT if config.jpeg > 0 else None
    if config.background > 0 or compressed is not None:
        chosen = draws.uniform(generator, count) < config.background
        backgrounds = _backgrounds(config, batch.images, generator)
        if compressed is not None:  # JPEG acts on a whole picture: white behind those who have no other background
            backgrounds = torch.where(chosen.view(-1, 1, 1, 1), backgrounds, torch.ones_like(backgrounds))
            chosen = chosen | (compressed[0] < config.jpeg)
        batch = before_background(batch, backgrounds, chosen)
    if compressed is not None:
        quality = config.jpeg_quality + (95 - config.jpeg_quality) * compressed[1]
        batch = through_jpeg(batch, quality, compressed[0] < config.jpeg)
    return batch


def _backgrounds(
    config: AugmentConfig, images: Float[Tensor, "b v 4 h w"], generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """One background a person."""
    count, device, size = len(images), images.device, (images.shape[-2], images.shape[-1])
    if config.backgrounds is None:
        return drawn_backgrounds(count, size, generator)
    pictures = _on_device(config.backgrounds, size, str(device))
    return pictures[draws.integers(generator, len(pictures), count)].float() / 255


def reframe_rig(batch: PeopleBatch, scale: Float[Tensor, " b"], shift: Float[Tensor, "b 2"]) -> PeopleBatch:
    """Cut the given pictures anew; all four cameras of the rig follow, so that every point stays on its pixel.

    Args:
        batch: People.
        scale: How much larger the person gets.
        shift: By which shares of the picture's width and height the person moves right and down.
    """
    cameras = batch.cameras
    size = torch.stack([torch.full_like(scale, cameras.width), torch.full_like(scale, cameras.height)], dim=-1)
    offset = (0.5 + shift) * size - scale[:, None] * 0.5 * size  # pixels: new = scale * old + offset
    Ks = cameras.Ks.clone()
    Ks[..., :2, :] *= scale[:, None, None, None]
    Ks[..., 0, 2] += offset[:, None, 0]
    Ks[..., 1, 2] += offset[:, None, 1]
    return replace(batch, images=_cut(batch.images, scale, 2 * shift), cameras=replace(cameras, Ks=Ks))


def _cut(
    images: Float[Tensor, "b v 4 h w"], scale: Float[Tensor, " b"], shift: Float[Tensor, "b 2"]
) -> Float[Tensor, "b v 4 h w"]:
    """Resample about the middle; ``shift`` in halves of the picture. Nothing lies beyond its edge."""
    count, views, _, height, width = images.shape
    theta = torch.zeros(count, 2, 3, device=images.device)
    theta[:, 0, 0] = theta[:, 1, 1] = 1 / scale
    theta[:, :, 2] = -shift / scale[:, None]
    grid = F.affine_grid(theta.repeat_interleave(views, dim=0), [count * views, 4, height, width], align_corners=False)
    flat = images.flatten(0, 1)
    premultiplied = torch.cat([flat[:, :3] * flat[:, 3:], flat[:, 3:]], dim=1)
    cut = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    alpha = cut[:, 3:]
    colors = cut[:, :3] / alpha.clamp(min=1e-3)
    return torch.cat([colors.clamp(0, 1), alpha], dim=1).unflatten(0, (count, views))


def before_background(
    batch: PeopleBatch, backgrounds: Float[Tensor, "b 3 h w"], chosen: Bool[Tensor, " b"]
) -> PeopleBatch:
    """Put the chosen people before backgrounds, as the camera sees them: the mask stays, the colours at its edge mix.

    That is what a matte cut out of a photograph has. The given pictures' colours become those of the whole picture.
    """
    colors, alpha = batch.images[:, :, :3], batch.images[:, :, 3:]
    seen = colors * alpha + backgrounds[:, None] * (1 - alpha)
    images = torch.cat([torch.where(chosen.view(-1, 1, 1, 1, 1), seen, colors), alpha], dim=2)
    return replace(batch, images=images)


def drawn_backgrounds(count: int, size: tuple[int, int], generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Backgrounds of one colour, of a few that run into each other, or of grain on either; a third each."""
    colors = draws.uniform(generator, count, 3, COARSE, COARSE)
    kind = draws.uniform(generator, count, 1, 1, 1)
    plain = colors[:, :, :1, :1].expand(-1, -1, *size)
    gradient = F.interpolate(colors, size=size, mode="bilinear", align_corners=True)
    grain = 0.2 * draws.normal(generator, count, 3, *size)
    background = torch.where(kind < 1 / 3, plain, gradient)
    return torch.where(kind > 2 / 3, background + grain, background).clamp(0, 1)


def read_backgrounds(folder: Path, size: tuple[int, int]) -> UInt8[Tensor, "n 3 h w"]:
    """The first pictures of a folder by name, their middle cut to the proportions wanted.

    Args:
        folder: Folder of PNG and JPEG files.
        size: Height and width.

    Raises:
        UserError: If there are none, or one cannot be read.
    """
    if not folder.is_dir():
        raise UserError(f"augment.backgrounds ({folder}) is no folder")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise UserError(f"augment.backgrounds ({folder}) holds no PNG or JPEG files")
    pictures = []
    for path in paths[:MAX_BACKGROUNDS]:
        try:
            with Image.open(path) as image:
                colors = image.convert("RGB")
        except (OSError, UnidentifiedImageError, SyntaxError) as error:
            raise UserError(f"{path} cannot be read as a picture ({error}): take it out of the folder") from error
        height, width = size
        share = min(colors.width / width, colors.height / height)
        left, top = (colors.width - share * width) / 2, (colors.height - share * height) / 2
        box = (left, top, left + share * width, top + share * height)
        pictures.append(np.asarray(colors.resize((width, height), Image.Resampling.BOX, box=box)))
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy())


@lru_cache(maxsize=2)
def _on_device(folder: Path, size: tuple[int, int], device: str) -> UInt8[Tensor, "n 3 h w"]:
    return read_backgrounds(folder, size).to(device)


def through_jpeg(batch: PeopleBatch, quality: Float[Tensor, " b"], chosen: Bool[Tensor, " b"]) -> PeopleBatch:
    """Compress and decompress the photographs of the chosen people as JPEG does; masks and other views stay."""
    photos = batch.images[:, 0]
    colors = torch.where(chosen.view(-1, 1, 1, 1), jpeg(photos[:, :3], quality), photos[:, :3])
    images = torch.cat([torch.cat([colors, photos[:, 3:]], dim=1)[:, None], batch.images[:, 1:]], dim=1)
    return replace(batch, images=images)


LUMINANCE = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
CHROMINANCE = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99,
    99, 99, 99, *[99] * 32,
)  # fmt: skip
"""Quantisation tables of ITU-T T.81, annex K.1, for quality 50."""


def jpeg(colors: Float[Tensor, "n 3 h w"], quality: Float[Tensor, " n"]) -> Float[Tensor, "n 3 h w"]:
    """What is left of pictures after JPEG (ITU-T T.81) with the usual scale of qualities; colours at full resolution.

    Args:
        colors: sRGB in [0, 1].
        quality: 1 to 100, of each picture; 50 takes the tables of the standard.
    """
    height, width = colors.shape[-2:]
    tables, to_ycc, basis = _jpeg_constants(colors.device)
    padded = F.pad(colors, (0, -width % 8, 0, -height % 8), mode="replicate")
    bytes_ = (255 * padded).round()
    middle = torch.where(torch.arange(3, device=colors.device) < 1, 128.0, 0.0)[:, None, None]  # chroma's is 0
    ycc = torch.einsum("ij,njhw->nihw", to_ycc, bytes_).round() - middle
    rows, columns = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = ycc.unflatten(-1, (columns, 8)).unflatten(-3, (rows, 8))  # [n, 3, rows, 8, columns, 8]
    waves = torch.einsum("ui,ncriqj,vj->ncruqv", basis, blocks, basis)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None, None].floor()
    steps = ((tables * percent + 50) / 100).floor().clamp(1, 255)[:, :, None, :, None]  # [n, 3, 1, 8, 1, 8]
    kept = (waves / steps).round() * steps
    blocks = torch.einsum("ui,ncruqv,vj->ncriqj", basis, kept, basis)
    restored = blocks.flatten(-2).flatten(-3, -2).round().clamp(-128, 127) + middle  # eight bits a channel
    # Not ``inv``, which waits for a GPU to tell whether there is an inverse.
    rgb = torch.einsum("ij,njhw->nihw", torch.linalg.inv_ex(to_ycc).inverse, restored)
    return (rgb.round().clamp(0, 255) / 255)[..., :height, :width]


@lru_cache(maxsize=4)
def _jpeg_constants(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Quantisation tables [3, 8, 8], RGB -> YCbCr (JFIF, chroma about zero) [3, 3], and the cosines [8, 8]."""
    tables = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE], dtype=torch.float32).view(3, 8, 8)
    red, blue = 0.299, 0.114
    green = 1 - red - blue
    to_ycc = torch.tensor(
        [
            [red, green, blue],
            [-red / (2 - 2 * blue), -green / (2 - 2 * blue), 0.5],
            [0.5, -green / (2 - 2 * red), -blue / (2 - 2 * red)],
        ]
    )
    frequencies = torch.arange(8, dtype=torch.float64)
    basis = 0.5 * torch.cos((2 * frequencies[None] + 1) * frequencies[:, None] * math.pi / 16)
    basis[0] /= math.sqrt(2)
    return tables.to(device), to_ycc.to(device), basis.float().to(device)
