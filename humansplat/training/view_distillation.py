"""A view model that needs one pass a step and few steps, learned from one that needs two passes and many.

*Guidance* (``sv3d.distill.steps: null``). The student's one pass is to be the teacher's guided estimate ``G``, at the
fixed guidance of each view, of noised truth at log-normal noise levels:

    w(sigma) |S(x, sigma) - G(x, sigma)|^2,   G = bare + scale (full - bare),   w = (sigma^2 + 1) / sigma^2

Source: Meng et al., "On Distillation of Guided Diffusion Models", CVPR 2023, Eq. 4, with one scale instead of a range.

*Steps* (``steps: N``). The teacher's noise levels ``s_0 > ... > s_n = 0`` are cut into N pieces of ``k = n / N``. From
the beginning ``x`` of a piece, at ``s``, the teacher's k guided steps lead to ``y`` at ``t``. The student's estimate
is to be the one from which one Euler step lands there, too:

    S + (x - S) t / s = y,   so   S(x, s) = (y - x t / s) / (1 - t / s),   with the weight w(s)

Source: Salimans and Ho, "Progressive Distillation for Fast Sampling of Diffusion Models", ICLR 2022, Algorithm 2,
where pieces have two steps. The ``x`` are not noised truth, in which much of the truth shines through, but where the
student's own steps from noise have led: Kohler et al., "Imagine Flash: Accelerating Emu Diffusion Models with
Backward Distillation", 2024. Every view but the photo's counts; the photo's is known, as in sampling.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import DistillConfig, TrainConfig
from humansplat.config.views import check_pieces
from humansplat.data.people import PeopleBatch
from humansplat.errors import UserError
from humansplat.metrics.generated_views import FIGURES, score_generated
from humansplat.metrics.image import psnr
from humansplat.metrics.views import MAX_PSNR
from humansplat.models.edm import Denoise, add_noise, lognormal_sigmas, loss_weight, per_element, start_scale
from humansplat.models.edm_sampling import Sampler, guidance_by_angle, guide, sample, with_known
from humansplat.models.sv3d import SV3D, check_latents, load_sv3d
from humansplat.pipelines.view_synthesis import stated_sampling
from humansplat.pipelines.weights import ViewSampling
from humansplat.training.graphs import FrozenFunctions
from humansplat.training.view_jitter import EncodedViews, TrainingViews
from humansplat.training.view_task import ViewDenoising, ViewTask, validation_noise

OF_TEACHER = ("psnr", "psnr_box", "sharpness", "front_back_color")
"""Figures that are told of the teacher's own samples, too."""


class ViewDistillation(ViewTask):
    """Task ``sv3d`` with a teacher: ``sv3d.distill``.

    Raises:
        UserError: If the teacher does not load or is of other latents, or its steps are not those of the student
            taken apart.
    """

    figures = (
        *FIGURES,
        "psnr_decoded",
        "psnr_to_teacher",
        "latent_to_teacher",
        *(f"{name}_teacher" for name in OF_TEACHER),
    )

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.distill = config.sv3d.distill
        assert self.distill.teacher is not None
        self.teacher = load_sv3d(self.distill.teacher)
        check_latents(self.teacher.unet, self.autoencoder)
        self._photo_side = self.teacher.image_size
        self.taught = teacher_sampling(self.distill, stated_sampling(self.teacher.unet))
        self.learned = student_sampling(self.distill.steps, self.taught, self.options.validation_steps)
        self._pieces = pieces(self.taught.sigmas(), self.distill.steps or 1)
        # Many passes of a network.
        self._functions = FrozenFunctions(enabled=config.compile == "graphs")
        self._drawn_by_teacher: dict[int, Tensor] = {}

    def frozen_modules(self) -> Sequence[nn.Module]:
        """The autoencoder and the teacher."""
        return (self.autoencoder, self.teacher)

    def training_loss(
        self, module: nn.Module, batch: PeopleBatch | EncodedViews, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        """Squared distance of the student's estimates from what the teacher wants, weighted as in its own training."""
        with torch.no_grad():
            given = self._encoded(batch, generator)
            clean, told = given.latents, given.told
            noise = draws.normal(generator, *clean.shape)
            if self.distill.steps is None:
                sigma = lognormal_sigmas(len(clean), self.options.sigma_mean, self.options.sigma_std, generator)
                levels = torch.stack([sigma, torch.zeros_like(sigma)], dim=1)
                noised = add_noise(clean, noise, sigma)
            else:
                piece = draws.integers(generator, self.distill.steps, len(clean))
                self._pieces = self._pieces.to(clean.device)
                levels = self._pieces[piece]
                noised = self._where_it_gets(module, noise, piece, told)
            target = self._functions.run("teacher", self.wanted, noised, levels, *told)
        sigma = levels[:, 0]
        estimate = module(noised, sigma, *told, told[0].new_ones(len(clean), 2)).float()
        error = (estimate - target)[:, 1:].square().mean(dim=(1, 2, 3, 4))
        return {"distillation": (loss_weight(sigma) * error).mean(), "_latent_error": error.detach().mean()}

    def wanted(
        self,
        noised: Float[Tensor, "b v c g g2"],
        levels: Float[Tensor, "b n"],
        photo_latent: Float[Tensor, "b c g g2"],
        photo: Float[Tensor, "b 3 h w"],
        azimuths: Float[Tensor, "b v"],
        elevations: Float[Tensor, "b v"],
    ) -> Float[Tensor, "b v c g g2"]:
        """The estimate that the student should have; arguments as for ``as_one_step`` and the denoiser."""
        denoise = self.guided(photo_latent, photo, azimuths, elevations)
        return as_one_step(denoise, noised, levels, multistep=self.taught.sampler == "dpm")

    def guided(self, photo_latent: Tensor, photo: Tensor, azimuths: Tensor, elevations: Tensor) -> Denoise:
        """The teacher's estimates, with its guidance, of which the photo's is the photo."""
        told = self.teacher.to_conditions(photo_latent, photo, azimuths, elevations)
        front, back = self.taught.guidance

        def full(noised: Tensor, sigma: Tensor) -> Tensor:
            return self.teacher.denoise_given(noised, sigma, told)

        if front == back == 1:
            return with_known(full, {0: photo_latent})
        nothing = told.without_photo()

        def bare(noised: Tensor, sigma: Tensor) -> Tensor:
            return self.teacher.denoise_given(noised, sigma, nothing)

        return with_known(guide(full, bare, guidance_by_angle(azimuths, front, back)), {0: photo_latent})

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        """As the task does; the UNet's configuration says how the student is to be sampled."""
        assert isinstance(module, ViewDenoising)
        module.model.unet.register_to_config(sampling=asdict(self.learned))
        super().save_pretrained(module, folder)

    def _where_it_gets(
        self, module: nn.Module, noise: Tensor, piece: Tensor, told: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> Tensor:
        """Where the student's steps lead from noise, to the beginning of each one's piece."""

        def follow(noise: Tensor, piece: Tensor, levels: Tensor, *told: Tensor) -> Tensor:
            kept = noise.new_ones(len(noise), 2)
            denoise = with_known(lambda noised, sigma: module(noised, sigma, *told, kept), {0: told[0]})
            return begun(denoise, noise * start_scale(self.taught.sigma_max), levels, piece)

        return self._functions.run("student", follow, noise, piece, self._pieces[:, 0], *told)

    def _sampling(self) -> tuple[Tensor, Sampler]:
        return self.learned.sigmas(), self.learned.sampler

    def _compared(
        self, model: SV3D, views: TrainingViews, clean: Tensor, drawn: Tensor, masks: Tensor, first_seed: int
    ) -> dict[str, Tensor]:
        """The teacher's figures, and how far from its samples the student's are that began at the same noise."""
        if first_seed not in self._drawn_by_teacher:
            denoise = self.guided(clean[:, 0], views.pictures[:, 0], views.azimuths, views.elevations)
            noise = validation_noise(clean, first_seed)
            self._drawn_by_teacher[first_seed] = sample(denoise, noise, self.taught.sigmas(), self.taught.sampler)
        theirs = self._drawn_by_teacher[first_seed]
        pictures = self._shown(views, theirs)
        figures = score_generated(pictures, views.pictures, masks)
        distance = psnr(self._shown(views, drawn)[:, 1:], pictures[:, 1:]).clamp(max=MAX_PSNR)
        return {f"{name}_teacher": figures[name] for name in OF_TEACHER} | {
            "psnr_to_teacher": distance.mean(dim=1),
            "latent_to_teacher": (drawn - theirs)[:, 1:].square().mean(dim=(1, 2, 3, 4)).sqrt(),
        }


def teacher_sampling(options: DistillConfig, stated: ViewSampling | None) -> ViewSampling:
    """How the teacher is sampled: as it states itself, or as configured.

    Raises:
        UserError: If its steps are not a multiple of the student's, or are Heun's, of which no target is made.
    """
    if stated is not None:
        if options.steps is not None and stated.sampler == "heun":
            raise UserError(
                "sv3d.distill.teacher states the sampler heun, whose steps no student learns: set sv3d.distill.steps "
                "to null, or take a teacher of dpm or euler"
            )
        check_pieces(options.steps, stated.num_steps)
        return stated
    return ViewSampling(
        num_steps=options.teacher_steps,
        sampler="dpm",
        guidance=(options.guidance[0], options.guidance[1]),
        sigma_max=options.sigma_max,
        sigma_min=options.sigma_min,
    )


def student_sampling(steps: int | None, taught: ViewSampling, free_steps: int) -> ViewSampling:
    """How the student is sampled: at every so-manieth of its teacher's levels, by Euler's steps.

    Args:
        steps: None: guidance alone was learned.
        taught: The teacher's.
        free_steps: For a student that can be sampled in any number.
    """
    if steps is None:
        return ViewSampling(
            num_steps=free_steps, sampler="dpm", sigma_max=taught.sigma_max, sigma_min=taught.sigma_min
        )
    last = taught.sigmas()[taught.num_steps - taught.num_steps // steps]
    return ViewSampling(num_steps=steps, sampler="euler", sigma_max=taught.sigma_max, sigma_min=last.item())


def pieces(sigmas: Float[Tensor, " n"], count: int) -> Float[Tensor, "p m"]:
    """Falling levels in pieces of equally many steps, of which each ends where the next begins.

    Example:
        >>> pieces(torch.tensor([8.0, 4.0, 2.0, 1.0, 0.0]), 2).tolist()
        [[8.0, 4.0, 2.0], [2.0, 1.0, 0.0]]
    """
    begin = sigmas[:-1].unflatten(0, (count, -1))
    return torch.cat([begin, sigmas[begin.shape[1] :: begin.shape[1], None]], dim=1)


def as_one_step(
    denoise: Denoise, noised: Float[Tensor, "b v c g g2"], levels: Float[Tensor, "b n"], *, multistep: bool
) -> Float[Tensor, "b v c g g2"]:
    """The estimate from which one Euler step goes as far as several steps of a sampler.

    Args:
        denoise: Of the sampler.
        noised: Latents at the first level of each row.
        levels: Falling, each element's own; the last may be 0.
        multistep: DPM-Solver++(2M) as in ``edm_sampling``, beginning anew; otherwise Euler's steps.
    """
    latents, before = noised, None
    for number in range(levels.shape[1] - 1):
        high, low = levels[:, number], levels[:, number + 1]
        clean = target = denoise(latents, high)
        if multistep and before is not None:
            share = (high / low).log() / (2 * (levels[:, number - 1] / high).log())
            target = clean + (clean - before) * per_element(torch.where(low > 0, share, 0))
        latents, before = target + (latents - target) * per_element(low / high), clean
    ratio = per_element(levels[:, -1] / levels[:, 0])
    return (latents - noised * ratio) / (1 - ratio)


def begun(
    denoise: Denoise, start: Float[Tensor, "b v c g g2"], levels: Float[Tensor, " p"], piece: Int[Tensor, " b"]
) -> Float[Tensor, "b v c g g2"]:
    """Latents after as many Euler steps as each element's number says.

    Args:
        denoise: Of the sampler.
        start: At the first level.
        levels: Where the steps begin.
        piece: How many steps each element takes, below the number of levels.
    """
    latents = start
    for number in range(len(levels) - 1):
        high, low = levels[number], levels[number + 1]
        clean = denoise(latents, high.expand(len(start)))
        further = clean + (latents - clean) * (low / high)
        latents = torch.where(per_element(piece > number), further, latents)
    return latents
