"""SV3D as a denoiser of latents: its network, the encoder of the photo, and how the library's terms become theirs.

A folder of weights holds ``unet/`` and ``image_encoder/`` as ``save_pretrained`` writes them, and may hold
``feature_extractor/preprocessor_config.json``: the layout in which SV3D and HumanSplat are published for diffusers.
"""

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from humansplat.errors import UserError
from humansplat.models.edm import Denoise, denoise_with
from humansplat.models.loading import load_part
from humansplat.models.sv3d_unet import SV3DUNet, ViewConditions
from humansplat.models.sv3d_weights import load_unet

COND_AUG = 1e-5
"""Noise on the photo before encoding that SV3D was trained with, and that its embedding states."""
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
UNET, IMAGE_ENCODER, FEATURE_EXTRACTOR = "unet", "image_encoder", "feature_extractor"


class SV3D(nn.Module):
    """A :class:`~humansplat.models.edm.LatentDenoiser` of SV3D's architecture, of any size.

    Args:
        unet: The network.
        image_encoder: Embeds the photo in the UNet's ``cross_attention_dim`` numbers.
        image_mean: Of the encoder's input, sRGB in [0, 1].
        image_std: Of the encoder's input.

    Raises:
        ValueError: If the two do not go together.
    """

    def __init__(
        self,
        unet: SV3DUNet,
        image_encoder: CLIPVisionModelWithProjection,
        image_mean: tuple[float, ...] = CLIP_MEAN,
        image_std: tuple[float, ...] = CLIP_STD,
    ) -> None:
        super().__init__()
        width, needed = image_encoder.config.projection_dim, unet.config["cross_attention_dim"]
        if width != needed:
            raise ValueError(f"the image encoder gives {width} numbers, the UNet takes {needed}")
        self.unet = unet
        self.image_encoder = image_encoder
        size = image_encoder.config.image_size
        assert isinstance(size, int)
        self.image_size = size
        self.image_mean, self.image_std = image_mean, image_std

    def embed_photo(self, photo: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 d"]:
        """One token of the image encoder for each photo, sRGB in [0, 1], of any size."""
        channels = zip(resize_photo(photo, self.image_size).unbind(1), self.image_mean, self.image_std, strict=True)
        pixels = torch.stack([(channel - mean) / std for channel, mean, std in channels], dim=1)
        return self.image_encoder(pixels.to(self.image_encoder.dtype)).image_embeds[:, None]

    def to_conditions(
        self,
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
        embedding: Float[Tensor, "b 1 d"] | None = None,
    ) -> ViewConditions:
        """State a photo and views in the network's terms; arguments as for :meth:`denoise`, in the same order.

        ``embedding`` is what :meth:`embed_photo` makes of the photo, if that is known already.
        """
        return ViewConditions(
            image_embedding=self.embed_photo(photo) if embedding is None else embedding,
            photo_latent=photo_latent / self.unet.latent_scaling,
            cond_aug=torch.full_like(azimuths, COND_AUG),
            polar=math.pi / 2 - elevations,
            azimuth=azimuths.remainder(2 * math.pi),
        )

    def denoise(
        self,
        noised: Float[Tensor, "b v c g g2"],
        sigma: Float[Tensor, " b"],
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
    ) -> Float[Tensor, "b v c g g2"]:
        """Estimate the clean latents in one step, without guidance; see the protocol."""
        return self.denoiser(photo_latent, photo, azimuths, elevations)(noised, sigma)

    def denoiser(
        self,
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
    ) -> Denoise:
        """:meth:`denoise` for several steps with the same photo and views, which is encoded once."""
        conditions = self.to_conditions(photo_latent, photo, azimuths, elevations)
        return lambda noised, sigma: self.denoise_given(noised, sigma, conditions)

    def denoise_given(
        self, noised: Float[Tensor, "b v c g g2"], sigma: Float[Tensor, " b"], conditions: ViewConditions
    ) -> Float[Tensor, "b v c g g2"]:
        """:meth:`denoise` for conditions that were computed before; the photo's view first in both."""
        # SV3D's orbit ends at the photo, and its network embeds the place in the orbit.
        ordered = conditions.roll_views(-1)

        def network(scaled: Tensor, noise_level: Tensor) -> Tensor:
            return self.unet(scaled.to(self.unet.dtype), noise_level, ordered)

        return denoise_with(network, noised.roll(-1, dims=1), sigma).roll(1, dims=1)

    def save(self, folder: Path) -> None:
        """Write a folder that :func:`load_sv3d` and diffusers' loaders read."""
        self.unet.save_pretrained(folder / UNET)
        self.image_encoder.save_pretrained(folder / IMAGE_ENCODER)
        (folder / FEATURE_EXTRACTOR).mkdir(parents=True, exist_ok=True)
        values = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": self.image_size},
            "crop_size": {"height": self.image_size, "width": self.image_size},
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }
        text = json.dumps(values, indent=1) + "\n"
        (folder / FEATURE_EXTRACTOR / "preprocessor_config.json").write_text(text, encoding="utf-8")


def resize_photo(photo: Float[Tensor, "b 3 h w"], side: int) -> Float[Tensor, "b 3 s s"]:
    """A photo as an image encoder of that side sees it, before its norm; one of that size stays as it is."""
    if photo.shape[-2:] == (side, side):
        return photo
    return F.interpolate(photo, (side, side), mode="bicubic", align_corners=False, antialias=True)


def load_sv3d(folder: Path, dtype: torch.dtype = torch.float32) -> SV3D:
    """Load a folder strictly, in ``eval`` mode.

    Raises:
        UserError: If files are missing, or a tensor is missing, unknown or of another shape; it is named.
    """
    unet = load_unet(folder / UNET, dtype=dtype)
    image_encoder = load_part(CLIPVisionModelWithProjection, folder / IMAGE_ENCODER, dtype)
    mean, std = _image_statistics(folder)
    return SV3D(unet, image_encoder, mean, std).eval()


def check_latents(unet: SV3DUNet, autoencoder: AutoencoderKL) -> None:
    """Refuse a network that was trained on other latents than an autoencoder makes.

    Raises:
        UserError: If their channels or their scales differ.
    """
    scale, channels = autoencoder.config["scaling_factor"], autoencoder.config["latent_channels"]
    if unet.config["out_channels"] != channels:
        raise UserError(
            f"the autoencoder has latents of {channels} channels, the UNet takes {unet.config['out_channels']}: "
            "give the autoencoder that the UNet was trained with"
        )
    if not math.isclose(scale, unet.latent_scaling, rel_tol=1e-3):
        raise UserError(
            f"the autoencoder scales latents by {scale}, the UNet expects {unet.latent_scaling}: "
            "give the autoencoder that the UNet was trained with"
        )


def build_image_encoder(
    width: int, num_layers: int, num_heads: int, projection: int, image_size: int = 224, patch_size: int = 16
) -> CLIPVisionModelWithProjection:
    """Make an untrained image encoder of CLIP's architecture."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            projection_dim=projection,
            image_size=image_size,
            patch_size=patch_size,
        )
    )


def _image_statistics(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the image encoder's input: as transformers' configuration states them, else as a pipeline's, else CLIP's."""
    for file in (folder / FEATURE_EXTRACTOR / "preprocessor_config.json", folder / "model_index.json"):
        values = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if "image_mean" in values and "image_std" in values:
            return tuple(values["image_mean"]), tuple(values["image_std"])
    return CLIP_MEAN, CLIP_STD
