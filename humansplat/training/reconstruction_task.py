"""Learning to reconstruct: one picture and a body in, or all four of the rig, and other views to be matched."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from humansplat import draws, losses
from humansplat.body.parts import part_vertices
from humansplat.body.perturbation import Perturbation
from humansplat.config import TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.metrics.parts import projected_box
from humansplat.metrics.scores import FIGURES, means_by_side, score_views
from humansplat.metrics.views import bearings, sides
from humansplat.models.autoencoder import load_autoencoder, on_white
from humansplat.models.conditioning import BodyConditioner
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.render import render_gaussians
from humansplat.render.gaussians import RenderedImages
from humansplat.structures import Gaussians, PosedBody
from humansplat.training.kept_latents import KeptPeople
from humansplat.training.latents import GivenLatents, LatentSource
from humansplat.training.part_loss import PartLoss
from humansplat.training.people import People, load_body
from humansplat.training.perceptual import build_perceptual, picture_distance
from humansplat.training.precision import autocast

VALIDATION_BATCH = 8


class ReconstructionTask:
    """HumanSplat's second stage, from the photo's latent alone or from four, with a render loss (Eq. 6).

    The perceptual term is ``1 - SSIM``, which needs no downloaded network, unless the configuration names another; the
    body's parts are compared if ``hierarchical`` weighs something (Eq. 5).
    """

    figures = FIGURES

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.reconstruction
        self.augment = config.data.augment
        assert config.data.image_size is not None  # the configuration sees to it
        self.image_size = config.data.image_size
        self.latents = LatentSource(self.options)
        self._kept: KeptPeople | None = None
        self._precision = config.mixed_precision
        if config.compile != "no" and not self.options.keep_latents:
            self.latents.compile_encoder()
        self.perturb = Perturbation(self.options.noise, load_body(config.data))
        encoder = self.latents.autoencoder
        if encoder is None and self.options.perceptual.kind == "encoder":
            encoder = load_autoencoder(self.options.autoencoder)  # pixel space, but its features in the losses
        self.perceptual = build_perceptual(self.options.perceptual, encoder)
        self.part_loss = PartLoss(self.options.hierarchical, self.perceptual)
        model = self.options.model
        self.conditioner = BodyConditioner(
            num_tokens=model.num_body_tokens, map_size=self.image_size // 2, body=model.body
        )

    def build_module(self) -> nn.Module:
        """A fresh transformer."""
        settings = asdict(self.options.model) | {"latent_channels": self.latents.channels}
        return LatentReconstructor(**settings)

    def frozen_modules(self) -> Sequence[nn.Module]:
        """What makes the latents, the body model with its noise, and the losses' networks."""
        return (self.latents, self.perturb, self.part_loss)

    def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> PeopleBatch:
        """People with one picture given and some to be matched."""
        options = self.options
        batch = pool.sample(
            batch_size,
            options.num_targets,
            generator,
            num_inputs=options.num_inputs,
            photo_weight=options.photo_weight,
            augment=self.augment,
        )
        if not options.keep_latents:
            return batch
        assert isinstance(pool, PeoplePool)
        if self._kept is None:  # the first people drawn are the training's
            self._kept = KeptPeople(pool, self._to_keep, num_inputs=options.num_inputs)
        if pool is not self._kept.pool:
            return batch
        mirrored = torch.zeros_like(batch.people).bool() if batch.mirrored is None else batch.mirrored
        [latents] = self._kept.of(batch.people, mirrored)
        return replace(batch, latents=latents)

    def training_loss(
        self, module: nn.Module, batch: PeopleBatch, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """The terms that the configuration weighs, of pictures and of body parts; bodies partly perturbed."""
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            body = self._perturbed(batch, generator)
        with torch.no_grad():
            latents = self.latents.mixed(batch, generator)
        splats = self._reconstruct(module, batch, body, latents)
        rendered = self._render(splats, batch)
        truth, mask = on_white(batch.targets), batch.targets[:, :, 3]
        colors = rendered.colors.movedim(-1, 2)
        squared = losses.squared_loss(colors, truth)
        options = self.options
        terms = {
            "squared": squared,
            "absolute": options.absolute_weight * losses.absolute_loss(colors, truth),
            "mask": options.mask_weight * losses.mask_loss(rendered.alphas, mask),
            "ssim": options.ssim_weight * losses.ssim_loss(colors, truth),
            "_psnr": -10 * squared.detach().log10(),
        }
        if options.spill_weight > 0:
            terms["spill"] = options.spill_weight * losses.spill_penalty(rendered.alphas, mask)
        if options.opacity_weight > 0:
            terms["opacity"] = options.opacity_weight * losses.opacity_penalty(splats.opacities)
        if options.hierarchical.weight > 0:
            terms |= self.part_loss(splats, colors, batch, generator)
        if self.perceptual is not None and options.perceptual.weight > 0:
            count = options.perceptual.num_pictures
            distance = picture_distance(self.perceptual, colors, truth, count, generator)
            terms["perceptual"] = options.perceptual.weight * distance
        return terms

    def validate(self, module: nn.Module, pool: PeoplePool) -> dict[str, float]:
        """The figures of ``metrics.scores`` over the novel views with true bodies: of all views, and by side."""
        device = next(module.parameters()).device
        views, compared = pool.compared_views()
        scores: dict[str, list[Tensor]] = {}
        seen_from: list[Tensor] = []
        for people in pool.everybody(VALIDATION_BATCH):
            batch = pool.batch(people, views.expand(len(people), -1), num_inputs=self.options.num_inputs)
            rendered = self._validated(module, batch)
            with torch.autocast(device.type, enabled=False):
                found = score_views(
                    rendered.colors.movedim(-1, 2).clamp(0, 1),
                    rendered.alphas,
                    on_white(batch.targets),
                    batch.targets[:, :, 3],
                    projected_box(part_vertices(batch.body, "head"), batch.target_cameras),
                )
                side = sides(bearings(batch.cameras[:, 0], batch.target_cameras, batch.body.joints[:, 0]))
            for name, values in found.items():
                scores.setdefault(name, []).append(values.flatten())
            seen_from.append(torch.where(compared[people], side, -1).flatten())
        means = means_by_side({name: torch.cat(parts) for name, parts in scores.items()}, torch.cat(seen_from))
        figures = dict(zip(means, torch.stack(list(means.values())).tolist(), strict=True))
        return {name: round(value, 4) for name, value in figures.items() if not math.isnan(value)}

    def pictures(self, module: nn.Module, batch: PeopleBatch) -> Tensor:
        """A row a person: the photo, then each target beside its render."""
        rendered = self._validated(module, batch)
        renders = rendered.colors.movedim(-1, 2).clamp(0, 1)
        pairs = torch.stack([on_white(batch.targets), renders], dim=2).flatten(1, 2)  # [b, 2 t, 3, h, w]
        rows = torch.cat([on_white(batch.images[:, :1]), pairs], dim=1)
        return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write the transformer as diffusers does."""
        assert isinstance(module, LatentReconstructor)
        module.save_pretrained(folder)

    def _validated(self, module: nn.Module, batch: PeopleBatch) -> RenderedImages:
        """The targets' renders, of true bodies and the latents to validate on."""
        return self._render(self._reconstruct(module, batch, batch.body, self.latents.validated(batch)), batch)

    def _to_keep(self, batch: PeopleBatch) -> tuple[Tensor]:
        with autocast(batch.images.device, self._precision):  # as in a step
            return (self.latents.encode(batch.images).half(),)

    def _perturbed(self, batch: PeopleBatch, generator: torch.Generator) -> PosedBody:
        """Wrong bodies for a share of the batch, the true ones for the rest."""
        if self.options.wrong_bodies == 0:
            return batch.body
        amount, choice = draws.uniform(generator, len(batch.people), 2).unbind(1)
        amount = 1.5 * amount * (choice < self.options.wrong_bodies)
        return self.perturb(batch.body, batch.cameras.centers[:, 0], amount, generator)

    def _reconstruct(self, module: nn.Module, batch: PeopleBatch, body: PosedBody, latents: GivenLatents) -> Gaussians:
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            conditions = self.conditioner(body, batch.cameras)
        return module(latents.values, batch.images[:, 0], batch.cameras, body, *conditions, known=latents.known)

    def _render(self, splats: Gaussians, batch: PeopleBatch) -> RenderedImages:
        with torch.autocast(batch.images.device.type, enabled=False):
            return render_gaussians(splats, batch.target_cameras)
