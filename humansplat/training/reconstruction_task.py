"""Learning to reconstruct: one picture and a body in, all the other views to be matched."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from humansplat import draws, losses
from humansplat.body.perturbation import Perturbation
from humansplat.config import TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.data.people import PeopleBatch
from humansplat.metrics.image import psnr, psnr_in_box
from humansplat.metrics.views import MAX_PSNR, SIDES, bearings, person_box, sides
from humansplat.models.autoencoder import encode_images, load_autoencoder, on_white
from humansplat.models.conditioning import BodyConditioner
from humansplat.models.latent_reconstructor import NUM_VIEWS, LatentReconstructor
from humansplat.render import render_gaussians
from humansplat.render.gaussians import RenderedImages
from humansplat.structures import Gaussians, PosedBody
from humansplat.training.part_loss import PartLoss
from humansplat.training.people import People, load_body
from humansplat.training.perceptual import build_perceptual, picture_distance

VALIDATION_BATCH = 8


class ReconstructionTask:
    """HumanSplat's second stage, from the photo's latent alone, with a render loss (Eq. 6).

    The perceptual term is ``1 - SSIM``: it needs no downloaded network.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.options = config.reconstruction
        self.augment = config.data.augment
        self.image_size = config.data.image_size or 256
        self.autoencoder = load_autoencoder(self.options.autoencoder)
        self.perturb = Perturbation(self.options.noise, load_body(config.data))
        self.perceptual = build_perceptual(self.options.perceptual, self.autoencoder)
        self.part_loss = PartLoss(self.options.hierarchical, self.perceptual)
        self.conditioner = BodyConditioner(
            num_tokens=self.options.model.num_body_tokens, map_size=self.image_size // 2
        )

    def build_module(self) -> nn.Module:
        """A fresh transformer."""
        return LatentReconstructor(**asdict(self.options.model))

    def frozen_modules(self) -> Sequence[nn.Module]:
        """The autoencoder, the body model with its noise, and the losses' networks."""
        return (self.autoencoder, self.perturb, self.part_loss)

    def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> PeopleBatch:
        """People with one picture given and some to be matched."""
        options = self.options
        return pool.sample(
            batch_size, options.num_targets, generator, photo_weight=options.photo_weight, augment=self.augment
        )

    def training_loss(
        self, module: nn.Module, batch: PeopleBatch, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Squared and absolute error, mask, SSIM; bodies partly perturbed."""
        with torch.no_grad(), torch.autocast(batch.images.device.type, enabled=False):
            body = self._perturbed(batch, generator)
        splats = self._reconstruct(module, batch, body)
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
        """PSNR over the novel views with true bodies: whole picture and the person's box, by side, as evaluated."""
        device = next(module.parameters()).device
        novel = torch.arange(NUM_VIEWS, pool.num_views, device=device)
        whole, box, side = [], [], []
        for start in range(0, len(pool), VALIDATION_BATCH):
            people = torch.arange(start, min(start + VALIDATION_BATCH, len(pool)), device=device)
            batch = pool.batch(people, novel.expand(len(people), -1))
            rendered = self._render(self._reconstruct(module, batch, batch.body), batch)
            colors, truth = rendered.colors.movedim(-1, 2).clamp(0, 1), on_white(batch.targets)
            whole.append(psnr(colors, truth).flatten())
            box.append(psnr_in_box(colors, truth, person_box(batch.targets[:, :, 3])).flatten())
            bearing = bearings(batch.cameras[:, 0], batch.target_cameras, batch.body.joints[:, 0])
            side.append(sides(bearing).flatten())
        seen_from = torch.cat(side)
        figures = {}
        for name, parts in (("psnr", whole), ("box", box)):
            values = torch.cat(parts).clamp(max=MAX_PSNR)
            figures[name] = values.mean()
            for place, label in enumerate(SIDES):
                members = seen_from == place
                figures[f"{name}_{label}"] = (values * members).sum() / members.sum()
        return {name: round(value.item(), 4) for name, value in figures.items()}

    def pictures(self, module: nn.Module, batch: PeopleBatch) -> Tensor:
        """A row a person: the photo, then each target beside its render."""
        rendered = self._render(self._reconstruct(module, batch, batch.body), batch)
        renders = rendered.colors.movedim(-1, 2).clamp(0, 1)
        pairs = torch.stack([on_white(batch.targets), renders], dim=2).flatten(1, 2)  # [b, 2 t, 3, h, w]
        rows = torch.cat([on_white(batch.images[:, :1]), pairs], dim=1)
        return rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """Write the transformer as diffusers does."""
        assert isinstance(module, LatentReconstructor)
        module.save_pretrained(folder)

    def _perturbed(self, batch: PeopleBatch, generator: torch.Generator) -> PosedBody:
        """Wrong bodies for a share of the batch, the true ones for the rest."""
        if self.options.wrong_bodies == 0:
            return batch.body
        amount, choice = draws.uniform(generator, len(batch.people), 2).unbind(1)
        amount = 1.5 * amount * (choice < self.options.wrong_bodies)
        return self.perturb(batch.body, batch.cameras.centers[:, 0], amount, generator)

    def _reconstruct(self, module: nn.Module, batch: PeopleBatch, body: PosedBody) -> Gaussians:
        photo = batch.images[:, 0]
        with torch.no_grad():
            latents = encode_images(self.autoencoder, on_white(photo)).float()[:, None]
            with torch.autocast(photo.device.type, enabled=False):
                conditions = self.conditioner(body, batch.cameras)
        return module(latents, photo, batch.cameras, body, *conditions)

    def _render(self, splats: Gaussians, batch: PeopleBatch) -> RenderedImages:
        with torch.autocast(batch.images.device.type, enabled=False):
            return render_gaussians(splats, batch.target_cameras)
