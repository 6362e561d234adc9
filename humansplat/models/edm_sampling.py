"""From noise to latents: deterministic samplers, guidance by view, and noise that belongs to a seed.

Sources: Karras et al., NeurIPS 2022, Algorithm 1 (Euler, and Heun's correction); Lu et al., "DPM-Solver++: Fast Solver
for Guided Sampling of Diffusion Probabilistic Models", 2022, Algorithm 2 (2M), here for noise that is added and not
mixed in, where its half log signal-to-noise ratio is ``-ln sigma``; Voleti et al., ECCV 2024, for triangular guidance.

Shapes: b batch, v views, c channels of a latent, g and g2 cells on its sides, n + 1 noise levels that end with 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from humansplat.models.edm import Denoise, start_scale

Sampler = Literal["euler", "heun", "dpm"]
"""``heun`` asks the network twice a step but for the last; the others once."""

Step = Callable[[Denoise, Tensor, float, float], Tensor]
"""From a noise level to a lower one."""


def sample(
    denoise: Denoise,
    noise: Float[Tensor, "b v c g g2"],
    sigmas: Float[Tensor, " n"],
    sampler: Sampler = "dpm",
) -> Float[Tensor, "b v c g g2"]:
    """Follow the noise down to clean latents.

    Args:
        denoise: Estimates clean latents from noised ones and their ``sigma``.
        noise: Of unit variance, float32.
        sigmas: Falling levels, then 0, as :func:`humansplat.models.edm.karras_sigmas` gives them, on any device.
        sampler: How a step is made.

    Raises:
        ValueError: If the levels do not fall to 0.
    """
    levels = sigmas.tolist()
    if len(levels) < 2 or levels[-1] != 0 or any(low >= high for high, low in zip(levels, levels[1:], strict=False)):
        raise ValueError(f"noise levels {levels} do not fall to 0")
    steps: dict[Sampler, Step] = {"euler": _euler, "heun": _heun, "dpm": _MultiStep()}
    step = steps[sampler]
    latents = noise * start_scale(levels[0])
    for high, low in zip(levels[:-1], levels[1:], strict=True):
        latents = step(denoise, latents, high, low)
    return latents


def sigma_like(latents: Float[Tensor, "b v c g g2"], sigma: float) -> Float[Tensor, " b"]:
    """One noise level for every batch element."""
    return latents.new_full((len(latents),), sigma)


def _euler(denoise: Denoise, latents: Tensor, high: float, low: float) -> Tensor:
    clean = denoise(latents, sigma_like(latents, high))
    return clean + (latents - clean) * (low / high)


def _heun(denoise: Denoise, latents: Tensor, high: float, low: float) -> Tensor:
    clean = denoise(latents, sigma_like(latents, high))
    guess = clean + (latents - clean) * (low / high)
    if low == 0:
        return guess
    slope = (latents - clean) / high
    slope_there = (guess - denoise(guess, sigma_like(latents, low))) / low
    return latents + (low - high) * (slope + slope_there) / 2


class _MultiStep:
    """DPM-Solver++(2M): a step uses the estimate of the one before."""

    def __init__(self) -> None:
        self.previous: tuple[Tensor, float] | None = None
        """The last estimate, and the length of the step that it began."""

    def __call__(self, denoise: Denoise, latents: Tensor, high: float, low: float) -> Tensor:
        clean = denoise(latents, sigma_like(latents, high))
        if low == 0:
            return clean
        length = math.log(high / low)
        target = clean
        if self.previous is not None:
            before, length_before = self.previous
            target = clean + (clean - before) * (length / (2 * length_before))
        self.previous = (clean, length)
        return target + (latents - target) * (low / high)


def unit_noise(
    seeds: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Float[Tensor, "b *shape"]:
    """Unit noise of one seed for each batch element: the same whatever else is in the batch, and on any device."""
    parts = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(parts).to(device)


def guide(full: Denoise, bare: Denoise, scale: Float[Tensor, "b v"]) -> Denoise:
    """Classifier-free guidance (Ho and Salimans, 2022), as strong for each view as ``scale`` says; 1 is none.

    Args:
        full: The denoiser that knows the photo.
        bare: The denoiser that does not.
        scale: For each view.
    """
    return lambda noised, sigma: guided(full(noised, sigma), bare(noised, sigma), scale)


def guided(
    full: Float[Tensor, "b v c g g2"], bare: Float[Tensor, "b v c g g2"], scale: Float[Tensor, "b v"]
) -> Float[Tensor, "b v c g g2"]:
    """The estimate that goes as far away from the one without the photo as :func:`guide` says."""
    return bare + scale[..., None, None, None] * (full - bare)


def with_known(denoise: Denoise, known: Mapping[int, Float[Tensor, "b c g g2"]]) -> Denoise:
    """A denoiser whose estimate of some views is what they are: the others are denoised beside the true ones.

    Args:
        denoise: Estimates all views.
        known: Clean latents, by the places of the views.
    """
    return lambda noised, sigma: placed(denoise(noised, sigma), known)


def placed(
    latents: Float[Tensor, "b v c g g2"], known: Mapping[int, Float[Tensor, "b c g g2"]]
) -> Float[Tensor, "b v c g g2"]:
    """Latents with some views exchanged for what they are known to be."""
    views = list(latents.unbind(1))
    for place, latent in known.items():
        views[place] = latent
    return torch.stack(views, dim=1)


def guidance_by_angle(azimuths: Float[Tensor, "b v"], front: float = 1.0, back: float = 2.5) -> Float[Tensor, "b v"]:
    """Triangular guidance: ``front`` at azimuth 0, ``back`` behind, and in proportion to the angle between.

    Example:
        >>> quarter = torch.pi / 2
        >>> scale = guidance_by_angle(torch.tensor([[0, quarter, 2 * quarter, 3 * quarter]]))
        >>> [round(value, 3) for value in scale[0].tolist()]
        [1.0, 1.75, 2.5, 1.75]
    """
    turned = azimuths.remainder(2 * math.pi)
    away = torch.minimum(turned, 2 * math.pi - turned) / math.pi  # 0 at the front, 1 at the back
    return front + (back - front) * away


def guidance_by_place(num_views: int, ends: float = 1.0, middle: float = 2.5) -> Float[Tensor, " v"]:
    """Triangular guidance by the place in the orbit, as SV3D's own sampler has it.

    Example:
        >>> [round(value, 3) for value in guidance_by_place(4).tolist()]
        [1.0, 2.0, 2.0, 1.0]
    """
    place = torch.linspace(0, 1, num_views)
    return ends + (middle - ends) * (1 - (2 * place - 1).abs())
