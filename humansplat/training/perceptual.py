"""The perceptual term of the losses: which distance it is, and of which pictures it is taken."""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import PerceptualConfig
from humansplat.metrics.lpips import Lpips
from humansplat.models.feature_distance import FeatureDistance


def build_perceptual(config: PerceptualConfig, autoencoder: AutoencoderKL | None) -> nn.Module | None:
    """The distance that the configuration names; ``None`` for kind ``none``. Kind ``encoder`` needs the autoencoder.

    Called with two stacks of pictures ``[n, 3, h, w]`` in ``[0, 1]`` it gives ``[n]`` distances.

    Raises:
        UserError: If LPIPS is asked for and its weights are not in the folder.
    """
    if config.kind == "lpips":
        assert config.folder is not None, "the configuration sees to it"
        return Lpips.from_folder(config.folder)
    if config.kind == "encoder":
        assert autoencoder is not None, "the task loads it"
        return FeatureDistance(autoencoder)
    return None


def picture_distance(
    distance: nn.Module,
    pictures: Float[Tensor, "b t 3 h w"],
    truth: Float[Tensor, "b t 3 h w"],
    count: int,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Mean distance of whole pictures (HumanSplat, Eq. 6), of ``count`` of each person's drawn at random."""
    chosen = draws.uniform(generator, *pictures.shape[:2]).argsort(dim=1)[:, :count]
    rows = torch.arange(len(pictures), device=pictures.device)[:, None]
    return distance(pictures[rows, chosen].flatten(0, 1), truth[rows, chosen].flatten(0, 1)).mean()
