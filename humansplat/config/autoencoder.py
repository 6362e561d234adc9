"""Options of the autoencoder task."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Options of the autoencoder task."""

    views_per_person: int = 4
    """Pictures of each drawn person: the batch is ``batch_size`` times as many."""
    ssim_weight: float = 0.2
    color_weight: float = 4.0
    """Of the absolute error of colours less their shade, which are a small part of pictures of people: without it they
    are learned last, and a short run ends before."""
    divergence_weight: float = 1e-4
    """Of the mean divergence of a latent value from the standard normal: keeps the latents in one range."""
