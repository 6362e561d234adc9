"""The small image autoencoder whose latents the transformer reads: diffusers' ``AutoencoderKL``."""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor

from humansplat.errors import UserError
from humansplat.models.loading import load_part

CELL = 8
"""Pixels on a side of a latent cell."""
LATENT_CHANNELS = 4
FIRST_LOG_VARIANCE = -6.0
"""Of an untrained autoencoder's latents."""
PIXEL_CHANNELS = 3 * CELL**2
"""Of a cell in pixel space."""


def build_autoencoder(
    channels: tuple[int, int, int, int] = (32, 64, 96, 96),
    latent_channels: int = LATENT_CHANNELS,
    norm_groups: int = 4,
) -> AutoencoderKL:
    """Make an untrained autoencoder: 8x downsampling, one residual block a level.

    Args:
        channels: Of the four levels, finest first.
        latent_channels: Of a latent cell.
        norm_groups: Of the group norms, which must divide the channels. A norm takes the mean of each group away, over
            the whole picture: with few channels in a group colours go with it. Stable Diffusion's finest has four.
    """
    autoencoder = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=norm_groups,
        scaling_factor=1.0,
    )
    # The latents' noise begins small. Of unit deviation it would hide what is faint in a picture, colours first, and
    # so what the encoder tells of them from the decoder.
    with torch.no_grad():
        autoencoder.quant_conv.weight[latent_channels:] *= 0.1
        autoencoder.quant_conv.bias[latent_channels:] = FIRST_LOG_VARIANCE
    return autoencoder


def stable_diffusion_autoencoder() -> AutoencoderKL:
    """Stable Diffusion's autoencoder, untrained."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.18215,
    )


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Load an autoencoder that ``save_pretrained`` wrote, in ``eval`` mode and float32.

    Stable Diffusion's has the same cells and channels; a file without a ``scaling_factor`` means its 0.18215.

    Args:
        folder: Its own, or that of a whole pipeline, with the autoencoder in ``vae``.

    Raises:
        UserError: If there is none, its tensors do not fit, or it has other cells.
    """
    folder = folder / "vae" if (folder / "vae" / "config.json").is_file() else folder
    if not (folder / "config.json").is_file():  # diffusers would take the name for one on the hub
        raise UserError(f"{folder} holds no autoencoder (no config.json): give a folder that save_pretrained wrote")
    autoencoder = load_part(AutoencoderKL, folder)
    cell = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
    if cell != CELL:
        raise UserError(f"{folder}: the autoencoder's cells are {cell} pixels on a side, {CELL} are needed")
    return autoencoder


def encode_images(autoencoder: AutoencoderKL | None, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c g g2"]:
    """Latents of pictures: the mode of the posterior, scaled to about unit variance.

    Args:
        autoencoder: Its configured ``scaling_factor`` is applied. ``None`` stays in pixel space: each cell has the
            colours of its 8 x 8 pixels, from -1 to 1, as :data:`PIXEL_CHANNELS` channels.
        images: sRGB in [0, 1], the person before a white background.
    """
    pictures = 2 * images - 1
    if autoencoder is None:
        return F.pixel_unshuffle(pictures, CELL)
    return autoencoder.encode(pictures).latent_dist.mode() * autoencoder.config["scaling_factor"]


def decode_latents(autoencoder: AutoencoderKL, latents: Float[Tensor, "b c g g2"]) -> Float[Tensor, "b 3 h w"]:
    """Pictures of latents that :func:`encode_images` made, sRGB in [0, 1]."""
    decoded = autoencoder.decode(latents / autoencoder.config["scaling_factor"]).sample
    return ((decoded + 1) / 2).clamp(0.0, 1.0)


def on_white(images: Float[Tensor, "*batch 4 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """Pictures with straight alpha, before a white background."""
    color, alpha = images[..., :3, :, :], images[..., 3:, :, :]
    return color * alpha + (1 - alpha)
