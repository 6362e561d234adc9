"""Learning the small autoencoder from pictures of people."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.losses import absolute_loss, ssim_loss
from humansplat.metrics.image import color_error, less_shade, psnr
from humansplat.models.autoencoder import CELL, LATENT_CHANNELS, build_autoencoder, on_white
from humansplat.training.people import People


class Autoencoding(nn.Module):
    """An autoencoder with the forward pass that training needs: pictures -> reconstruction and divergence."""

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct pictures ``[b, 3, h, w]`` in [0, 1] through noised latents.

        Args:
            images: Pictures.
            noise: Standard normal, of the latents' shape.

        Returns:
            Reconstructions (not clamped), and the mean Kullback-Leibler divergence of a latent value
            from the standard normal.
        """
        posterior = self.autoencoder.encode(2 * images - 1).latent_dist
        mean, variance = posterior.mean.float(), posterior.var.float()
        divergence = 0.5 * (mean.square() + variance - 1 - posterior.logvar.float()).mean()
        decoded = self.autoencoder.decode(mean + variance.sqrt() * noise).sample
        return (decoded.float() + 1) / 2, divergence


class AutoencoderTask:
    """Pictures of random views on white, reconstructed by absolute errors, SSIM and a light prior."""

    figures = ("psnr", "color_error", "latent_spread")

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.autoencoder
        self.augment = config.data.augment

    def build_module(self) -> nn.Module:
        """A fresh autoencoder."""
        return Autoencoding(build_autoencoder())

    def frozen_modules(self) -> Sequence[nn.Module]:
        """None."""
        return ()

    def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> Tensor:
        """Pictures ``[b t, 3, h, w]`` on white."""
        batch = pool.sample(batch_size, self.options.views_per_person, generator, augment=self.augment)
        return on_white(batch.targets).flatten(0, 1)

    def training_loss(
        self, module: nn.Module, batch: Tensor, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Absolute errors of pixels and of their colours less their shade, ``1 - SSIM`` and divergence."""
        shape = (len(batch), LATENT_CHANNELS, batch.shape[-2] // CELL, batch.shape[-1] // CELL)
        noise = draws.normal(generator, *shape)
        restored, divergence = module(batch, noise)
        return {
            "absolute": absolute_loss(restored, batch),
            "color": self.options.color_weight * absolute_loss(less_shade(restored), less_shade(batch)),
            "ssim": self.options.ssim_weight * ssim_loss(restored, batch),
            "divergence": self.options.divergence_weight * divergence,
            "_kl": divergence.detach(),
        }

    def validate(self, module: nn.Module, pool: PeoplePool) -> dict[str, float]:
        """PSNR and error of colour of reconstructions from the latents' means, and the latents' spread."""
        assert isinstance(module, Autoencoding)
        values, colors, squares = [], [], []
        device = next(module.parameters()).device
        for people in pool.everybody(8):
            views = torch.arange(min(4, pool.num_views), device=device).expand(len(people), -1)
            targets = pool.batch(people, views).targets.flatten(0, 1)
            images = on_white(targets)
            latents = module.autoencoder.encode(2 * images - 1).latent_dist.mode()
            restored = ((module.autoencoder.decode(latents).sample.float() + 1) / 2).clamp(0, 1)
            values.append(psnr(restored, images))
            colors.append(color_error(restored, images, targets[:, 3]))
            squares.append(latents.float().square().mean())
        self._spread = float(torch.stack(squares).mean().sqrt())
        figures = {"psnr": torch.cat(values), "color_error": torch.cat(colors)}
        return {name: float(each.mean()) for name, each in figures.items()} | {"latent_spread": self._spread}

    def pictures(self, module: nn.Module, batch: Tensor) -> Tensor:
        """Pictures above their reconstructions."""
        assert isinstance(module, Autoencoding)
        shown = batch[:8]
        latents = module.autoencoder.encode(2 * shown - 1).latent_dist.mode()
        restored = (module.autoencoder.decode(latents).sample.float().clamp(-1, 1) + 1) / 2
        rows = torch.stack([shown, restored])  # [2, n, 3, h, w]
        return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write the autoencoder with the scaling that gives its latents unit variance.

        The spread is that of the last validation.
        """
        assert isinstance(module, Autoencoding)
        module.autoencoder.register_to_config(scaling_factor=round(1 / self._spread, 5))
        module.autoencoder.save_pretrained(folder)
