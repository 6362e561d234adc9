"""Learning SV3D: from a photo's latent and embedding, the latents of the views around the person."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import SV3DConfig, TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.errors import UserError
from humansplat.metrics.image import psnr, ssim
from humansplat.models.autoencoder import decode_latents, encode_images, load_autoencoder, on_white
from humansplat.models.edm import add_noise, karras_sigmas, loss_weight
from humansplat.models.edm_sampling import sample, unit_noise
from humansplat.models.sv3d import SV3D, build_image_encoder, load_sv3d
from humansplat.models.sv3d_unet import SV3DUNet
from humansplat.training.latents import elevations

VALIDATION_BATCH = 8
ONE_STEP_SIGMA = 1.0
NAMES = {1: "side", 2: "back", 3: "side"}
"""Of the generated views of the rig."""


class ViewDenoising(nn.Module):
    """SV3D with the forward pass that training needs: some photos are left out of what it is told."""

    def __init__(self, model: SV3D) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        noised: Tensor,
        sigma: Tensor,
        photo_latent: Tensor,
        photo: Tensor,
        azimuths: Tensor,
        elevations: Tensor,
        kept: Tensor,
    ) -> Tensor:
        """Estimate the clean latents as :meth:`SV3D.denoise` does.

        Args:
            noised: ``[b, v, c, g, g]``, and the others as there.
            sigma: ``[b]``.
            photo_latent: ``[b, c, g, g]``.
            photo: ``[b, 3, h, w]``.
            azimuths: ``[b, v]``.
            elevations: ``[b, v]``.
            kept: ``[b, 2]``: 1 where the network is told the embedding, and the latent; 0 where not.
        """
        told = self.model.to_conditions(photo_latent, photo, azimuths, elevations)
        return self.model.denoise_given(noised, sigma, told.keeping(kept[:, 0], kept[:, 1]))

    def enable_gradient_checkpointing(self) -> None:
        """Compute the UNet's activations anew in the backward pass."""
        self.model.unet.enable_gradient_checkpointing()


class ViewTask:
    """EDM's loss on the four views of the rig at log-normal noise levels, with dropped conditions."""

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.sv3d
        self.augment = config.data.augment
        self.autoencoder = load_autoencoder(self.options.autoencoder)

    def build_module(self) -> nn.Module:
        """A fresh network, or the one to fine-tune; what is not to be trained takes no gradients.

        Raises:
            UserError: If ``weights`` do not load, or no parameter has one of the names in ``trainable``.
        """
        options = self.options
        scaling = self.autoencoder.config["scaling_factor"]
        model = build_sv3d(options, scaling) if options.weights is None else load_sv3d(options.weights)
        module = ViewDenoising(model.train())
        if options.trainable:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(any(part in name for part in options.trainable))
            if not any(parameter.requires_grad for parameter in module.parameters()):
                raise UserError(f"sv3d.trainable ({list(options.trainable)}) is in no parameter's name")
        return module

    def frozen_modules(self) -> Sequence[nn.Module]:
        """The autoencoder."""
        return (self.autoencoder,)

    def sample(self, pool: PeoplePool, batch_size: int, generator: torch.Generator) -> PeopleBatch:
        """People with all four views of the rig."""
        return pool.sample(batch_size, 1, generator, num_inputs=4, augment=self.augment)

    def training_loss(
        self, module: nn.Module, batch: PeopleBatch, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Squared error of the denoised latents, weighted so that the network's own counts alike everywhere."""
        with torch.no_grad():
            clean = self._latents(batch)
        count, options = len(clean), self.options
        sigma = (options.sigma_mean + options.sigma_std * draws.normal(generator, count)).exp()
        noised = add_noise(clean, draws.normal(generator, *clean.shape), sigma)
        kept = (draws.uniform(generator, count, 2) >= options.drop).to(clean.dtype)
        estimate = module(noised, sigma, clean[:, 0], on_white(batch.images[:, 0]), *_places(batch), kept)
        error = (estimate.float() - clean).square().mean(dim=(1, 2, 3, 4))
        return {"denoising": (loss_weight(sigma) * error).mean(), "_latent_error": error.detach().mean()}

    def validate(self, module: nn.Module, pool: PeoplePool) -> dict[str, float]:
        """Pictures of sampled views against the truth; and of latents noised to sigma 1 and denoised in one step."""
        assert isinstance(module, ViewDenoising)
        scores: dict[str, list[Tensor]] = {}
        for batch, start in _batches(pool):
            truth = on_white(batch.images)
            clean = self._latents(batch)
            sampled = self._sample(module.model, batch, clean[:, 0], start)
            sigma = clean.new_full((len(clean),), ONE_STEP_SIGMA)
            noised = add_noise(clean, _noise(clean, start), sigma)
            photo = on_white(batch.images[:, 0])
            one_step = module.model.denoise(noised, sigma, clean[:, 0], photo, *_places(batch))
            for view, side in NAMES.items():
                drawn = decode_latents(self.autoencoder, sampled[:, view]).float()
                values = {"psnr": psnr(drawn, truth[:, view]), "ssim": ssim(drawn, truth[:, view])}
                restored = decode_latents(self.autoencoder, one_step[:, view].to(clean.dtype)).float()
                values["psnr_one_step"] = psnr(restored, truth[:, view])
                for name, value in values.items():
                    scores.setdefault(name, []).append(value)
                    scores.setdefault(f"{name}_{side}", []).append(value)
        return {name: round(float(torch.cat(values).mean()), 4) for name, values in scores.items()}

    def pictures(self, module: nn.Module, batch: PeopleBatch) -> Tensor:
        """Two rows a person: the four true views, and the photo with the three sampled ones."""
        assert isinstance(module, ViewDenoising)
        truth = on_white(batch.images)
        sampled = self._sample(module.model, batch, self._latents(batch)[:, 0], 0)
        drawn = [decode_latents(self.autoencoder, sampled[:, view]).float() for view in range(1, truth.shape[1])]
        rows = torch.stack([truth, torch.stack([truth[:, 0], *drawn], dim=1)], dim=1)  # [b, 2, v, 3, h, w]
        return rows.permute(3, 0, 1, 4, 2, 5).flatten(4, 5).flatten(1, 3)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write ``unet/``, ``image_encoder/`` and ``feature_extractor/``."""
        assert isinstance(module, ViewDenoising)
        module.model.save(folder)

    def _latents(self, batch: PeopleBatch) -> Tensor:
        pictures = on_white(batch.images)
        encoded = [encode_images(self.autoencoder, pictures[:, view]).float() for view in range(pictures.shape[1])]
        return torch.stack(encoded, dim=1)

    def _sample(self, model: SV3D, batch: PeopleBatch, photo_latent: Tensor, first_seed: int) -> Tensor:
        """Latents of the views, without guidance; noise by the person's place."""
        told = model.to_conditions(photo_latent, on_white(batch.images[:, 0]), *_places(batch))
        noise = _noise(photo_latent[:, None].expand(-1, batch.images.shape[1], -1, -1, -1), first_seed)
        sigmas = karras_sigmas(self.options.validation_steps)
        return sample(lambda noised, sigma: model.denoise_given(noised, sigma, told), noise, sigmas, "dpm")


def build_sv3d(options: SV3DConfig, latent_scaling: float) -> SV3D:
    """A fresh network of the configured sizes."""
    sizes = options.model
    levels = len(sizes.widths)
    unet = SV3DUNet(
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=sizes.widths,
        num_attention_heads=tuple(width // sizes.head_width for width in sizes.widths),
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.embedding_width,
        addition_time_embed_dim=sizes.noise_width,
        projection_class_embeddings_input_dim=sizes.noise_width + 2 * sizes.angle_width,
        num_frames=4,
        latent_scaling=latent_scaling,
    )
    encoder = build_image_encoder(
        sizes.encoder_width,
        sizes.encoder_layers,
        sizes.encoder_heads,
        sizes.embedding_width,
        sizes.encoder_image,
        sizes.encoder_patch,
    )
    return SV3D(unet, encoder)


def _batches(pool: PeoplePool) -> "list[tuple[PeopleBatch, int]]":
    starts = range(0, len(pool), VALIDATION_BATCH)
    people = [torch.arange(start, min(start + VALIDATION_BATCH, len(pool)), device=pool.device) for start in starts]
    return [(pool.batch(some, some.new_zeros(len(some), 1), num_inputs=4), int(some[0])) for some in people]


def _places(batch: PeopleBatch) -> tuple[Tensor, Tensor]:
    """Azimuths and elevations of the rig's views, ``[b, v]`` each."""
    up = elevations(batch.cameras)
    quarter = torch.arange(up.shape[1], device=up.device) * (torch.pi / 2)
    return quarter.expand_as(up), up


def _noise(like: Tensor, first_seed: int) -> Tensor:
    return unit_noise(range(first_seed, first_seed + len(like)), tuple(like.shape[1:]), like.device)
