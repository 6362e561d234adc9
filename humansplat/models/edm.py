"""The diffusion that SVD and SV3D are trained with: noise levels, preconditioning, and the one-step denoiser.

A noised latent is ``x = clean + sigma * noise``. The network ``F`` sees it scaled, and its output is mixed with it:

    denoised = c_skip x + c_out F(c_in x, c_noise)

Sources: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS 2022, for the
frame, the noise levels and their distribution (Table 1, Eq. 5); Salimans and Ho, "Progressive Distillation for Fast
Sampling of Diffusion Models", ICLR 2022, for the target v, which with data of unit variance gives these coefficients.

Shapes: b batch, v views, c channels of a latent, g and g2 cells on its sides.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from humansplat import draws

SIGMA_MIN, SIGMA_MAX, RHO = 0.002, 700.0, 7.0
"""Of SV3D's own sampler."""
Denoise = Callable[[Float[Tensor, "b v c g g2"], Float[Tensor, " b"]], Float[Tensor, "b v c g g2"]]
"""Estimates clean latents from noised ones and their ``sigma``."""


@runtime_checkable
class LatentDenoiser(Protocol):
    """Something that estimates the clean latents of all views at once."""

    def denoise(
        self,
        noised: Float[Tensor, "b v c g g2"],
        sigma: Float[Tensor, " b"],
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
    ) -> Float[Tensor, "b v c g g2"]:
        """Estimate the clean latents in one step.

        Args:
            noised: Latents of the views plus ``sigma`` times unit noise; the first view is the photo's.
            sigma: Standard deviation of the noise, one a batch element, above 0.
            photo_latent: Of the photo, without noise.
            photo: sRGB in [0, 1], the person before a white background.
            azimuths: Of the views from the photo's, radians, as :func:`humansplat.geometry.projection.orbit` counts.
            elevations: Of the views' cameras above the horizon, radians.

        Returns:
            The estimate for every view, the photo's too. Latents are scaled as the autoencoder's ``scaling_factor``
            has it, here and in the arguments.
        """
        ...

    def denoiser(
        self,
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
    ) -> Denoise:
        """:meth:`denoise` for several steps with the same photo and views: what they tell is computed here, once."""
        ...


class Preconditioning(NamedTuple):
    """The four coefficients of a noise level; each has the shape of ``sigma``."""

    skip: Tensor
    out: Tensor
    input: Tensor
    noise: Tensor


def preconditioning(sigma: Float[Tensor, "*batch"]) -> Preconditioning:
    """Coefficients of the v-prediction form, for data of unit variance.

    Example:
        >>> [round(c.item(), 4) for c in preconditioning(torch.tensor(3.0))]
        [0.1, -0.9487, 0.3162, 0.2747]
    """
    total = sigma.square() + 1
    return Preconditioning(skip=1 / total, out=-sigma * total.rsqrt(), input=total.rsqrt(), noise=sigma.log() / 4)


def denoise_with(
    network: Callable[[Float[Tensor, "b v c g g2"], Float[Tensor, " b"]], Float[Tensor, "b v c g g2"]],
    noised: Float[Tensor, "b v c g g2"],
    sigma: Float[Tensor, " b"],
) -> Float[Tensor, "b v c g g2"]:
    """Estimate the clean latents by a raw network.

    Args:
        network: Called with the scaled latents and ``c_noise``; gives v.
        noised: In float32: at the highest noise levels, float16 could not tell the estimate from rounding.
        sigma: One a batch element, above 0.
    """
    skip, out, scale, noise = preconditioning(sigma)
    return per_element(skip) * noised + per_element(out) * network(per_element(scale) * noised, noise).to(noised.dtype)


def add_noise(
    clean: Float[Tensor, "b v c g g2"], noise: Float[Tensor, "b v c g g2"], sigma: Float[Tensor, " b"]
) -> Float[Tensor, "b v c g g2"]:
    """Latents at a noise level, one a batch element, from unit noise."""
    return clean + per_element(sigma) * noise


def loss_weight(sigma: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Weight of a denoised latent's squared error, which makes the network's own errors count the same everywhere."""
    return 1 / preconditioning(sigma).out.square()


def karras_sigmas(
    num_steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO
) -> Float[Tensor, " n"]:
    """Noise levels of a sampler, falling, and 0 after them (Karras et al., Eq. 5).

    Args:
        num_steps: Levels above 0; one step is from ``sigma_max`` to 0.
        sigma_min: The last above 0.
        sigma_max: The first.
        rho: How much denser the low levels lie.

    Raises:
        ValueError: If there are no steps, or the levels do not fall.
    """
    if num_steps < 1 or not 0 < sigma_min <= sigma_max:
        raise ValueError(f"{num_steps} steps from {sigma_max} to {sigma_min} are no levels that fall to 0")
    ramp = torch.linspace(0, 1, num_steps)
    ends = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    levels = (ends[0] + ramp * (ends[1] - ends[0])) ** rho
    return torch.cat([levels, torch.zeros(1)])


def lognormal_sigmas(count: int, mean: float, std: float, generator: torch.Generator) -> Float[Tensor, " b"]:
    """Draw noise levels to train at, on the generator's device; ``mean`` and ``std`` are those of their logarithm."""
    return (mean + std * draws.normal(generator, count)).exp()


def start_scale(sigma_max: float) -> float:
    """What unit noise is multiplied by to start a sampler: the deviation of noised data of unit variance."""
    return math.hypot(1.0, sigma_max)


def per_element(values: Shaped[Tensor, " b"]) -> Shaped[Tensor, "b 1 1 1 1"]:
    """A number for each batch element, to go with latents ``[b, v, c, g, g2]``."""
    return values[:, None, None, None, None]
