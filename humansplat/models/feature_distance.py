"""A perceptual distance that needs no download: in the features of our own autoencoder's encoder."""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Float
from torch import Tensor, nn

NORM_FLOOR = 1e-6


class FeatureDistance(nn.Module):
    """Mean squared distance of unit-normalised features, over the levels of an encoder.

    As LPIPS with equal weights for all channels, on an encoder that has learned what people look like. The levels are
    the first convolution's output and those of the downsampling blocks but the last, whose features are the latent's.

    Args:
        autoencoder: Trained; it is shared, not copied, and its parameters must not ask for gradients.
    """

    def __init__(self, autoencoder: AutoencoderKL) -> None:
        super().__init__()
        self.encoder = autoencoder.encoder

    def forward(self, image: Float[Tensor, "n 3 h w"], reference: Float[Tensor, "n 3 h w"]) -> Float[Tensor, " n"]:
        """Distances of pictures in ``[0, 1]``, in ``[0, 4]``; differentiable where the pictures are."""
        levels = list(zip(self._features(image), self._features(reference), strict=True))
        total = image.new_zeros(len(image), dtype=torch.float32)
        for ours, theirs in levels:
            total = total + (_unit(ours) - _unit(theirs)).square().sum(dim=1).mean(dim=(1, 2))
        return total / len(levels)

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x = self.encoder.conv_in(2 * pictures - 1)
        features = [x]
        for block in self.encoder.down_blocks[:-1]:
            x = block(x)
            features.append(x)
        return features


def _unit(features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    features = features.float()
    return features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + NORM_FLOOR)
