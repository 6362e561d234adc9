"""Learning SV3D: from a photo's latent and embedding, the latents of the views around the person."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import SV3DConfig, TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.data.rig import NUM_RIG_VIEWS
from humansplat.errors import UserError
from humansplat.metrics.generated_views import FIGURES, score_generated
from humansplat.metrics.image import psnr
from humansplat.models.autoencoder import decode_latents, encode_images, load_autoencoder
from humansplat.models.edm import add_noise, karras_sigmas, lognormal_sigmas, loss_weight
from humansplat.models.edm_sampling import Sampler, sample, unit_noise, with_known
from humansplat.models.sv3d import SV3D, build_image_encoder, check_latents, load_sv3d, resize_photo
from humansplat.models.sv3d_unet import SV3DUNet
from humansplat.training.graphs import FrozenFunctions
from humansplat.training.kept_latents import KeptPeople
from humansplat.training.precision import autocast
from humansplat.training.view_jitter import (
    EncodedViews,
    TrainingViews,
    beginning_at,
    jittered_views,
    quarters,
    rig_views,
    turned_views,
)

VALIDATION_BATCH = 8
ONE_STEP_SIGMA = 1.0
KEPT_AT_ONCE = 16
"""People whose latents are computed together, to be kept."""


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
    """EDM's loss at log-normal noise levels; conditions are dropped, and some people's views are not the rig's."""

    figures: tuple[str, ...] = (*FIGURES, "psnr_decoded", "psnr_one_step")

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.sv3d
        self.augment = config.data.augment
        self.autoencoder = load_autoencoder(self.options.autoencoder)
        self._photo_side = 0
        self._precision, self._seed = config.mixed_precision, config.seed
        self._kept: KeptPeople | None = None
        # Latents that are kept are computed once, for more people than a step has: no graph is worth its memory.
        replays = config.compile == "graphs" and not self.options.keep_latents
        self._encoder = FrozenFunctions(enabled=replays)

    def build_module(self) -> nn.Module:
        """A fresh network, or the one to fine-tune; what is not to be trained takes no gradients.

        Raises:
            UserError: If ``weights`` do not load or are of other latents, or no parameter has a name in
                ``trainable``.
        """
        options = self.options
        scaling, weights = self.autoencoder.config["scaling_factor"], options.weights or options.distill.teacher
        model = build_sv3d(options, scaling) if weights is None else load_sv3d(weights)
        check_latents(model.unet, self.autoencoder)
        self._photo_side = max(self._photo_side, model.image_size)
        model.unet.register_to_config(sampling=None)  # of weights that were distilled; no longer true of these
        module = ViewDenoising(model.train())
        if options.trainable:
            train_only(module, options.trainable)
        return module

    def frozen_modules(self) -> Sequence[nn.Module]:
        """The autoencoder."""
        return (self.autoencoder,)

    def sample(self, pool: PeoplePool, batch_size: int, generator: torch.Generator) -> PeopleBatch | EncodedViews:
        """People with all four views of the rig, and three others where views are jittered; or what is kept."""
        if self.options.keep_latents:
            if self._kept is None:  # the first people drawn are the training's
                self._kept = self._keep(pool)
            if pool is self._kept.pool:
                self._kept.follow()
                return self._drawn_of(self._kept, batch_size, generator)
        count = NUM_RIG_VIEWS - 1 if self.options.view_jitter > 0 else 1
        return pool.sample(batch_size, count, generator, num_inputs=4, whole=True, augment=self.augment)

    def training_loss(
        self, module: nn.Module, batch: PeopleBatch | EncodedViews, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Squared error of the denoised latents, weighted so that the network's own counts alike everywhere."""
        with torch.no_grad():
            given = self._encoded(batch, generator)
        clean = given.latents
        count, options = len(clean), self.options
        sigma = lognormal_sigmas(count, options.sigma_mean, options.sigma_std, generator)
        noised = add_noise(clean, draws.normal(generator, *clean.shape), sigma)
        drawn = draws.uniform(generator, count, 3)
        kept = ((drawn[:, :2] >= options.drop) & (drawn[:, 2:] >= options.drop_both)).to(clean.dtype)
        estimate = module(noised, sigma, *given.told, kept)
        error = (estimate.float() - clean).square().mean(dim=(1, 2, 3, 4))
        return {"denoising": (loss_weight(sigma) * error).mean(), "_latent_error": error.detach().mean()}

    def validate(self, module: nn.Module, pool: PeoplePool) -> dict[str, float]:
        """The figures of ``metrics.generated_views`` of sampled views, and two that tell where a loss comes from.

        ``psnr_one_step`` is of latents noised to sigma 1 and denoised in one step, ``psnr_decoded`` of the true
        latents: no view model can do better with this autoencoder.
        """
        assert isinstance(module, ViewDenoising)
        scores: dict[str, list[Tensor]] = {}
        for batch, start in _batches(pool):
            views = rig_views(batch)
            truth, clean = views.pictures, self._latents(views)
            drawn = self._drawn(module.model, views, clean, start)
            masks = batch.images[:, :, 3]
            figures = score_generated(self._shown(views, drawn), truth, masks)
            figures["psnr_decoded"] = psnr(self._decode(clean[:, 1:]), truth[:, 1:]).mean(dim=1)
            figures |= self._compared(module.model, views, clean, drawn, masks, start)
            for name, values in figures.items():
                scores.setdefault(name, []).append(values)
        return {name: round(float(torch.cat(values).mean()), 4) for name, values in scores.items()}

    def pictures(self, module: nn.Module, batch: PeopleBatch) -> Tensor:
        """Two rows a person: the four true views, and the photo with the three sampled ones."""
        assert isinstance(module, ViewDenoising)
        views = rig_views(batch)
        drawn = self._drawn(module.model, views, self._latents(views), 0)
        rows = torch.stack([views.pictures, self._shown(views, drawn)], dim=1)  # [b, 2, v, 3, h, w]
        return rows.permute(3, 0, 1, 4, 2, 5).flatten(4, 5).flatten(1, 3)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write ``unet/``, ``image_encoder/`` and ``feature_extractor/``."""
        assert isinstance(module, ViewDenoising)
        module.model.save(folder)

    def _encoded(self, batch: PeopleBatch | EncodedViews, generator: torch.Generator) -> EncodedViews:
        """What a step needs of a batch, unless it is that already."""
        if isinstance(batch, EncodedViews):
            return batch
        views = self._views(batch, generator)
        return EncodedViews(
            latents=self._latents(views),
            photo=views.pictures[:, 0],
            azimuths=views.azimuths,
            elevations=views.elevations,
        )

    def _keep(self, pool: PeoplePool) -> KeptPeople:
        assert self._photo_side > 0  # the network's, which is built first

        def encode(batch: PeopleBatch) -> tuple[Tensor, Tensor, Tensor]:
            views = rig_views(batch)
            photos = resize_photo(views.pictures.flatten(0, 1), self._photo_side)
            told = (255 * photos.clamp(0, 1)).round().byte().unflatten(0, views.pictures.shape[:2])
            with autocast(pool.device, self._precision):  # as in a step
                return self._latents(views).half(), told, views.elevations

        return KeptPeople(
            pool,
            encode,
            num_inputs=NUM_RIG_VIEWS,
            colors=self.augment,
            variants=self.options.keep_variants,
            seed=self._seed,
            at_once=KEPT_AT_ONCE,
        )

    def _drawn_of(self, kept: KeptPeople, count: int, generator: torch.Generator) -> EncodedViews:
        people = draws.integers(generator, len(kept), count)
        mirrored = draws.uniform(generator, count) < self.augment.mirror
        variant = draws.integers(generator, kept.variants, count)
        values = kept.of(people, mirrored, variant)
        if self.options.turn > 0:
            turns = self._turns(count, generator)
            values = [beginning_at(turns, value) for value in values]
        latents, photos, up = values
        return EncodedViews(latents=latents, photo=photos[:, 0] / 255, azimuths=quarters(up), elevations=up)

    def _views(self, batch: PeopleBatch, generator: torch.Generator) -> TrainingViews:
        """The rig's, for some people jittered; some of the others turned."""
        options, count = self.options, len(batch.people)
        jittered = torch.zeros_like(batch.people).bool()
        if options.view_jitter == 0:
            views = rig_views(batch)
        else:
            jittered = draws.uniform(generator, count) < options.view_jitter
            with torch.autocast(batch.images.device.type, enabled=False):
                views = jittered_views(batch, jittered)
        return turned_views(views, self._turns(count, generator) * ~jittered) if options.turn > 0 else views

    def _turns(self, count: int, generator: torch.Generator) -> Tensor:
        """Which view of each person is the photo."""
        another = 1 + draws.integers(generator, NUM_RIG_VIEWS - 1, count)
        return another * (draws.uniform(generator, count) < self.options.turn)

    def _latents(self, views: TrainingViews) -> Tensor:
        pictures = views.pictures.unbind(1)
        return torch.stack([self._encoder.run("encode", self._latents_of, view) for view in pictures], dim=1)

    def _latents_of(self, pictures: Tensor) -> Tensor:
        return encode_images(self.autoencoder, pictures).float()

    def _decode(self, latents: Tensor) -> Tensor:
        return torch.stack([decode_latents(self.autoencoder, view).float() for view in latents.unbind(1)], dim=1)

    def _drawn(self, model: SV3D, views: TrainingViews, clean: Tensor, first_seed: int) -> Tensor:
        """Latents of views that are sampled without guidance; noise by the person's place."""
        denoise = model.denoiser(clean[:, 0], views.pictures[:, 0], views.azimuths, views.elevations)
        sigmas, sampler = self._sampling()
        return sample(with_known(denoise, {0: clean[:, 0]}), validation_noise(clean, first_seed), sigmas, sampler)

    def _sampling(self) -> tuple[Tensor, Sampler]:
        return karras_sigmas(self.options.validation_steps), "dpm"

    def _shown(self, views: TrainingViews, latents: Tensor) -> Tensor:
        """The photo, and pictures of the other views' latents."""
        return torch.cat([views.pictures[:, :1], self._decode(latents[:, 1:])], dim=1)

    def _compared(
        self, model: SV3D, views: TrainingViews, clean: Tensor, drawn: Tensor, masks: Tensor, first_seed: int
    ) -> dict[str, Tensor]:
        """Figures of each person that tell where a loss comes from."""
        sigma = clean.new_full((len(clean),), ONE_STEP_SIGMA)
        noised = add_noise(clean, validation_noise(clean, first_seed), sigma)
        told = clean[:, 0], views.pictures[:, 0], views.azimuths, views.elevations
        one_step = self._decode(model.denoise(noised, sigma, *told).to(clean.dtype)[:, 1:])
        return {"psnr_one_step": psnr(one_step, views.pictures[:, 1:]).mean(dim=1)}


def trainable_names(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The names that patterns choose.

    Args:
        names: In the network's order.
        patterns: Parts of names; with ``[-100:]`` behind it a part chooses only the last 100 names that it is in.

    Raises:
        UserError: If a pattern chooses none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        part, last = re.fullmatch(r"(.*?)(?:\[-(\d+):\])?", pattern).groups()  # type: ignore[union-attr]
        found = [name for name in names if part in name]
        if not found:
            raise UserError(f"sv3d.trainable: {pattern!r} is in no parameter's name")
        chosen.update(found[-int(last) :] if last else found)
    return chosen


def train_only(module: nn.Module, patterns: Sequence[str]) -> None:
    """Have the parameters that :func:`trainable_names` chooses take gradients, and no other.

    Raises:
        UserError: If a pattern chooses none.
    """
    chosen = trainable_names([name for name, _ in module.named_parameters()], patterns)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in chosen)


def build_sv3d(options: SV3DConfig, latent_scaling: float) -> SV3D:
    """A fresh network of the configured sizes."""
    sizes = options.model
    attending = ["CrossAttn" if attention else "" for attention in sizes.attention]
    unet = SV3DUNet(
        down_block_types=tuple(f"{kind}DownBlockSpatioTemporal" for kind in attending),
        up_block_types=tuple(f"{kind}UpBlockSpatioTemporal" for kind in reversed(attending)),
        block_out_channels=sizes.widths,
        num_attention_heads=tuple(width // sizes.head_width for width in sizes.widths),
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.embedding_width,
        addition_time_embed_dim=sizes.noise_width,
        projection_class_embeddings_input_dim=sizes.noise_width + 2 * sizes.angle_width,
        num_frames=NUM_RIG_VIEWS,
        norm_groups=sizes.norm_groups,
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


def _batches(pool: PeoplePool) -> Iterator[tuple[PeopleBatch, int]]:
    """Everybody, a few at a time, and the place of the first of them."""
    for number, some in enumerate(pool.everybody(VALIDATION_BATCH)):
        yield pool.batch(some, some.new_zeros(len(some), 1), num_inputs=4), number * VALIDATION_BATCH


def validation_noise(like: Tensor, first_seed: int) -> Tensor:
    """Unit noise of the same shape, one seed a person."""
    return unit_noise(range(first_seed, first_seed + len(like)), tuple(like.shape[1:]), like.device)
