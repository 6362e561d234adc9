"""What the reconstruction transformer is given: the photo's latent or all four views', true or as models guess them.

At inference the unseen views' latents come from a view model, whose guesses are not the truth, and a network that has
only seen clean ones trusts them too much. So while training some people's unseen views are noised, or noised and
denoised by the view model itself: in one step, as HumanSplat's published training code does, or in several; or they
are missing, and the network learns to do without.
"""

from typing import NamedTuple

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jaxtyping import Bool, Float
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import ReconstructionConfig
from humansplat.data.people import PeopleBatch
from humansplat.models.autoencoder import PIXEL_CHANNELS, encode_images, load_autoencoder, on_white
from humansplat.models.edm import RHO, Denoise, LatentDenoiser, add_noise, lognormal_sigmas, per_element
from humansplat.models.edm_sampling import sample, unit_noise, with_known
from humansplat.pipelines.weights import ViewSampling
from humansplat.training.graphs import FrozenFunctions
from humansplat.training.view_jitter import rig_views

KINDS = ("clean", "noised", "diffused", "missing")
ENCODED_AT_ONCE = 16
"""Pictures: at 512 px the activations of more take tens of gigabytes, and have more entries than 32 bits count."""


class GivenLatents(NamedTuple):
    """The network's arguments ``latents`` and ``known``."""

    values: Float[Tensor, "b s c g g2"]
    known: Bool[Tensor, "b s"] | None


class LatentSource(nn.Module):
    """Makes the latents of a batch of people; nothing is learned.

    Args:
        options: ``num_inputs``, ``space``, ``latents`` and ``autoencoder`` of it.

    Raises:
        UserError: If a folder does not hold its model, or the view model is one of other latents.
    """

    def __init__(self, options: ReconstructionConfig) -> None:
        super().__init__()
        self.options = options
        self.autoencoder = None if options.space == "pixel" else load_autoencoder(options.autoencoder)
        self.view_model = None if self.autoencoder is None else _load_view_model(options, self.autoencoder)
        self.view_sampling = _stated_sampling(self.view_model)
        """Of a distilled view model, which guesses from noise alone, as at inference; of others None."""
        self._functions = FrozenFunctions(enabled=options.latents.graphs)

    @property
    def channels(self) -> int:
        """Of a latent."""
        return PIXEL_CHANNELS if self.autoencoder is None else int(self.autoencoder.config["latent_channels"])

    def clean(self, batch: PeopleBatch) -> GivenLatents:
        """The true latents."""
        return GivenLatents(self._of(batch), None)

    def validated(self, batch: PeopleBatch) -> GivenLatents:
        """The latents to validate on: what the view model makes of each photo, if there is one; or the true ones."""
        given = self.clean(batch)
        if self.view_model is None:
            return given
        noise = unit_noise([0] * len(given.values), tuple(given.values.shape[1:]), given.values.device)
        made = self._sample(noise, given.values[:, 0], batch, self.view_sampling or ViewSampling())
        return GivenLatents(torch.cat([given.values[:, :1], made[:, 1:]], dim=1), None)

    def mixed(self, batch: PeopleBatch, generator: torch.Generator) -> GivenLatents:
        """The latents to train on: the photo's clean, of each person's other views one of :data:`KINDS`.

        Drawn a person, without waiting for the device; all kinds of a share above 0 are made for everybody, so that
        no shape depends on what was drawn.

        Args:
            batch: Its ``images`` are the first ``num_inputs`` views of the rig.
            generator: On the batch's device.
        """
        values, shares = self._of(batch), self.options.latents
        if self.options.num_inputs == 1 or shares.only_clean:
            return GivenLatents(values, None)
        count = len(values)
        kind = self._kinds(count, generator)
        if shares.noised > 0 or shares.diffused > 0:
            sigma = lognormal_sigmas(count, shares.sigma_mean, shares.sigma_std, generator)
            noise = draws.normal(generator, *values.shape)
            noised = add_noise(values, noise, sigma)
            others = torch.where(per_element(kind == KINDS.index("noised")), noised, values)
            if self.view_model is not None:
                if self.view_sampling is None:
                    guessed = self._denoise(noised, sigma, values[:, 0], batch)
                else:
                    guessed = self._sample(noise, values[:, 0], batch, self.view_sampling)
                others = torch.where(per_element(kind == KINDS.index("diffused")), guessed.to(values.dtype), others)
            values = torch.cat([values[:, :1], others[:, 1:]], dim=1)
        known = (kind != KINDS.index("missing"))[:, None].repeat(1, values.shape[1])
        known[:, 0] = True
        return GivenLatents(values, known)

    def _kinds(self, count: int, generator: torch.Generator) -> Tensor:
        """Places in :data:`KINDS`, one a person."""
        shares = [getattr(self.options.latents, kind) for kind in KINDS]
        drawn = draws.uniform(generator, count)
        return torch.stack([drawn >= sum(shares[:end]) / sum(shares) for end in range(1, len(shares))]).sum(dim=0)

    def _of(self, batch: PeopleBatch) -> Float[Tensor, "b s c g g2"]:
        return self.encode(batch.images) if batch.latents is None else batch.latents

    def encode(self, images: Float[Tensor, "b s 4 h w"]) -> Float[Tensor, "b s c g g2"]:
        """Latents of pictures with straight alpha, before white."""
        pictures = on_white(images)
        parts = pictures.flatten(0, 1).split(ENCODED_AT_ONCE)
        latents = torch.cat([encode_images(self.autoencoder, part).float() for part in parts])
        return latents.unflatten(0, pictures.shape[:2])

    def compile_encoder(self) -> None:
        """Fuse the encoder's norms and activations, which take most of its time; the first call then takes seconds."""
        if self.autoencoder is not None:
            self.autoencoder.to(memory_format=torch.channels_last)
            self.autoencoder.encoder.compile(dynamic=False)

    def _sample(self, noise: Tensor, photo_latent: Tensor, batch: PeopleBatch, how: ViewSampling) -> Tensor:
        """All views from noise, as at inference."""

        def views(noise: Tensor, *told: Tensor) -> Tensor:
            return sample(self._denoiser(*told), noise, how.sigmas(), how.sampler)

        return self._functions.run(("sample", how), views, noise, *_told(batch, photo_latent))

    def _denoise(self, noised: Tensor, sigma: Tensor, photo_latent: Tensor, batch: PeopleBatch) -> Tensor:
        """Euler's steps from each person's own noise level down; levels fall evenly to the power of 1 / rho."""
        steps = self.options.latents.denoising_steps
        shares = [(1 - step / steps) ** RHO for step in range(steps + 1)]  # of the first level

        def views(noised: Tensor, sigma: Tensor, *told: Tensor) -> Tensor:
            denoise, clean = self._denoiser(*told), noised
            for high, low in zip(shares[:-1], shares[1:], strict=True):
                clean = denoise(noised, sigma * high).to(noised.dtype)
                noised = clean + (noised - clean) * (low / high)
            return clean

        return self._functions.run("denoise", views, noised, sigma, *_told(batch, photo_latent))

    def _denoiser(self, photo_latent: Tensor, photo: Tensor, azimuths: Tensor, elevations: Tensor) -> Denoise:
        """The view model, told of the photos and the rig's views."""
        assert self.view_model is not None
        denoise = self.view_model.denoiser(photo_latent, photo, azimuths, elevations)
        return with_known(denoise, {0: photo_latent})


def _told(batch: PeopleBatch, photo_latent: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the view model is told, in the order of its arguments."""
    views = rig_views(batch)
    return photo_latent, views.pictures[:, 0], views.azimuths, views.elevations


def _load_view_model(options: ReconstructionConfig, autoencoder: AutoencoderKL) -> LatentDenoiser | None:
    folder = options.latents.view_model
    if folder is None or options.latents.diffused == 0:
        return None
    from humansplat.models.sv3d import check_latents, load_sv3d  # only who diffuses needs it

    view_model = load_sv3d(folder)
    check_latents(view_model.unet, autoencoder)
    return view_model


def _stated_sampling(view_model: LatentDenoiser | None) -> ViewSampling | None:
    if view_model is None:
        return None
    from humansplat.models.sv3d import SV3D
    from humansplat.pipelines.view_synthesis import stated_sampling

    return stated_sampling(view_model.unet) if isinstance(view_model, SV3D) else None
