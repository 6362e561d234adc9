from dataclasses import replace

import pytest
import torch

from humansplat.config import AugmentConfig, DataConfig, DistillConfig, OptimConfig, SV3DConfig, TrainConfig
from humansplat.errors import UserError
from humansplat.models.autoencoder import build_autoencoder
from humansplat.models.edm import karras_sigmas
from humansplat.models.edm_sampling import sample, unit_noise
from humansplat.models.sv3d import SV3D, build_image_encoder, load_sv3d
from humansplat.pipelines.view_synthesis import ViewSynthesizer, stated_sampling
from humansplat.training.tasks import make_task
from humansplat.training.view_distillation import (
    ViewDistillation,
    as_one_step,
    begun,
    pieces,
    student_sampling,
    teacher_sampling,
)
from humansplat.training.view_jitter import rig_views
from humansplat.training.view_task import ViewTask


@pytest.fixture(scope="module")
def folder(make_tiny_sv3d, tmp_path_factory):
    """A teacher, with an autoencoder beside it."""
    folder = tmp_path_factory.mktemp("distillation")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build_autoencoder((16, 16, 16, 16)).save_pretrained(folder / "vae")
        encoder = build_image_encoder(width=16, num_layers=1, num_heads=2, projection=16, image_size=32)
    SV3D(make_tiny_sv3d(latent_scaling=1.0), encoder).save(folder)
    return folder


@pytest.fixture
def make(folder):
    def make(keep_latents: bool = False, **distill: object) -> ViewTask:
        options = DistillConfig(**{"teacher": folder, **distill})
        sv3d = SV3DConfig(
            autoencoder=folder / "vae", validation_steps=1, keep_latents=keep_latents, keep_variants=1, distill=options
        )
        data = DataConfig(image_size=64, augment=AugmentConfig())
        return make_task(
            TrainConfig(task="sv3d", num_steps=10, optim=OptimConfig(warmup_steps=1), data=data, sv3d=sv3d)
        )

    return make


def loss_of(task, module, pool) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return task.training_loss(module, task.sample(pool, 2, rng), rng, 0)["distillation"]


def test_targets_are_where_the_sampler_goes(rng):
    def denoise(noised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shrunk = noised / (1 + sigma[:, None, None, None, None] ** 2)
        return torch.tanh(2 * shrunk + 0.3)

    noise = torch.randn(3, 4, 2, 2, 2, generator=rng)
    sigmas = karras_sigmas(6, 0.05, 20.0)
    start = noise * (1 + 20.0**2) ** 0.5

    whole = pieces(sigmas, 1).expand(3, -1)
    torch.testing.assert_close(as_one_step(denoise, start, whole, multistep=True), sample(denoise, noise, sigmas))

    # A student that has learned the targets goes with its few Euler steps where Euler's six lead.
    three = pieces(sigmas, 3)
    torch.testing.assert_close(three[1:, 0], three[:-1, -1])

    def student(noised: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        piece = (three[:, 0] - sigma[:, None]).abs().argmin(dim=1)
        return as_one_step(denoise, noised, three[piece], multistep=False)

    expected = sample(denoise, noise, sigmas, "euler")
    torch.testing.assert_close(sample(student, noise, torch.cat([three[:, 0], sigmas[-1:]]), "euler"), expected)
    places = torch.tensor([0, 2, 1])
    reached = begun(student, start, three[:, 0], places)
    torch.testing.assert_close(reached[0], start[0])
    torch.testing.assert_close(student(reached, three[places, 0])[1], expected[1])


def test_one_step_is_wanted_where_the_guided_pipeline_ends(make, folder, pool):
    task = make(steps=1, teacher_steps=3, guidance=(1.0, 3.0))
    assert isinstance(task, ViewDistillation)
    batch = task.sample(pool, 2, torch.Generator().manual_seed(0))
    views = rig_views(batch)
    synthesizer = ViewSynthesizer.from_folder(folder)
    how = {"num_steps": 3, "guidance": (1.0, 3.0), "sigma_max": 80.0, "sigma_min": 0.02}
    photo = views.pictures[:, 0]
    made = synthesizer(photo, elevations=views.elevations, seeds=[5, 6], decode=False, **how).latents
    noise = unit_noise([5, 6], tuple(made.shape[1:])) * (1 + 80.0**2) ** 0.5
    levels = pieces(task.taught.sigmas(), 1).expand(2, -1)
    with torch.no_grad():
        wanted = task.wanted(noise, levels, made[:, 0], photo, views.azimuths, views.elevations)
    torch.testing.assert_close(wanted, made, rtol=1e-4, atol=1e-4)


def test_a_student_learns_and_says_how_it_is_sampled(make, folder, pool, tmp_path):
    task = make(keep_latents=True, steps=2, teacher_steps=4)
    module = task.build_module()
    assert stated_sampling(module.model.unet) is None  # until it has learned
    # Nothing is left to learn of a teacher without guidance, which the student begins as.
    steps, guided = task.distill, task.taught
    task.distill, task.taught = replace(steps, steps=None), replace(guided, guidance=(1.0, 1.0))
    with torch.no_grad():
        assert loss_of(task, module, pool).item() < 1e-9
    task.distill, task.taught = steps, guided
    for module_of_others in task.frozen_modules():
        module_of_others.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        before = loss_of(task, module, pool)
    before.backward()
    assert all(parameter.grad is not None for parameter in module.model.unet.conv_in.parameters())
    torch.optim.AdamW(module.parameters(), lr=3e-4).step()
    with torch.no_grad():
        assert loss_of(task, module, pool) < before
    with torch.no_grad():
        figures = task.validate(module.eval(), pool)
    assert set(figures) == set(task.figures)

    task.save_pretrained(module, tmp_path)
    parts, unet = ViewSynthesizer.from_folder(folder), load_sv3d(tmp_path).unet
    assert stated_sampling(unet) == task.learned
    torch.testing.assert_close(task.learned.sigmas(), task.taught.sigmas()[::2])
    student = ViewSynthesizer(unet, parts.image_encoder, parts.vae)
    photo = torch.rand(1, 3, 64, 64)
    by_itself = student(photo, decode=False).latents
    same = student(photo, num_steps=2, sampler="euler", guidance=(1.0, 1.0), sigma_max=80.0, decode=False).latents
    assert torch.equal(by_itself, same)
    assert not torch.equal(by_itself, student(photo, num_steps=1, decode=False).latents)


def test_a_student_can_be_a_teacher_as_it_is_sampled_itself():
    learned = student_sampling(4, teacher_sampling(DistillConfig(), None), 8)
    assert teacher_sampling(DistillConfig(steps=2), learned) == learned
    torch.testing.assert_close(student_sampling(2, learned, 8).sigmas(), learned.sigmas()[::2])
    assert student_sampling(None, learned, 8).sigma_min == learned.sigma_min
    with pytest.raises(UserError, match=r"steps \(3\) must divide the teacher's steps \(4\)"):
        teacher_sampling(DistillConfig(steps=3), learned)
    by_heun = replace(learned, sampler="heun")
    assert teacher_sampling(DistillConfig(steps=None), by_heun) == by_heun
    with pytest.raises(UserError, match="states the sampler heun"):
        teacher_sampling(DistillConfig(steps=2), by_heun)


def test_mistakes_are_refused(make):
    with pytest.raises(UserError, match=r"steps \(5\) must divide the teacher's steps \(12\)"):
        make(steps=5)
    with pytest.raises(UserError, match="guidance .* two numbers"):
        make(guidance=(1.0,))
    with pytest.raises(UserError, match="sigma_min .* below sigma_max"):
        replace(DistillConfig(), sigma_min=90.0)
