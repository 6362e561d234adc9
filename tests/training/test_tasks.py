"""The real tasks, small."""

from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.config import (
    AugmentConfig,
    AutoencoderConfig,
    DataConfig,
    HierarchicalConfig,
    OptimConfig,
    PerceptualConfig,
    ReconstructionConfig,
    ReconstructorConfig,
    TrainConfig,
)
from humansplat.metrics.scores import METRICS
from humansplat.models.autoencoder import build_autoencoder, load_autoencoder
from humansplat.models.latent_reconstructor import LatentReconstructor
from humansplat.training.autoencoder_task import AutoencoderTask
from humansplat.training.reconstruction_task import ReconstructionTask

SIZE = 64


def tiny_config(tmp_path: Path, **reconstruction: object) -> TrainConfig:
    model = ReconstructorConfig(
        width=32, num_heads=2, num_intra_layers=1, num_inter_layers=1, num_body_tokens=64, kept_cells=40
    )
    return TrainConfig(
        task="reconstruction",
        output_dir=tmp_path / "run",
        num_steps=100,
        optim=OptimConfig(warmup_steps=1),
        data=DataConfig(image_size=SIZE, augment=AugmentConfig(mirror=0.5)),
        autoencoder=AutoencoderConfig(views_per_person=1),
        reconstruction=ReconstructionConfig(
            autoencoder=tmp_path / "vae", model=model, num_targets=2, **reconstruction
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With an untrained autoencoder in it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tasks")
    build_autoencoder((16, 16, 16, 16)).save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def task(folder) -> ReconstructionTask:
    return ReconstructionTask(tiny_config(folder))


def train_steps(task, module, pool, steps: int, lr: float) -> list[float]:
    optimizer = torch.optim.AdamW(module.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    totals = []
    for step in range(steps):
        losses = task.training_loss(module, task.sample(pool, 2, generator), generator, step)
        total = sum(value for name, value in losses.items() if not name.startswith("_"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    return totals


def test_reconstruction_learns_and_reports_by_side(task, pool):
    torch.manual_seed(0)
    module = task.build_module()
    before = task.validate(module, pool)
    train_steps(task, module, pool, steps=8, lr=1e-2)
    with torch.no_grad():
        after = task.validate(module, pool)
    assert after["psnr"] > before["psnr"] + 3.0
    assert set(after) == {f"{name}{side}" for name in METRICS for side in ("", "_front", "_side", "_back")}
    assert set(after) == set(task.figures)
    assert after["psnr_box"] < after["psnr"]  # the box has less of the white that everybody gets right
    assert after["psnr_head"] > before["psnr_head"]


def test_autoencoder_learns_and_stores_its_scale(pool, tmp_path):
    torch.manual_seed(0)
    task = AutoencoderTask(tiny_config(tmp_path))
    module = task.build_module()
    totals = train_steps(task, module, pool, steps=12, lr=6e-3)
    assert np.mean(totals[-3:]) < 0.7 * np.mean(totals[:3])
    with torch.no_grad():
        figures = task.validate(module, pool)
    assert set(figures) == set(task.figures)
    task.save_pretrained(module, tmp_path / "vae")
    scale = load_autoencoder(tmp_path / "vae").config["scaling_factor"]
    assert scale == pytest.approx(1 / figures["latent_spread"], rel=1e-3)


def test_only_the_chosen_bodies_are_perturbed(pool, folder):
    for share, moved in ((0.0, False), (1.0, True)):
        task = ReconstructionTask(tiny_config(folder, wrong_bodies=share))
        generator = torch.Generator().manual_seed(0)
        batch = task.sample(pool, 2, generator)
        wrong = task._perturbed(batch, generator)
        error = (wrong.vertices - batch.body.vertices).norm(dim=-1).mean(dim=1)
        assert (error > 5e-3).all() if moved else (error < 1e-4).all()
        assert (error < 0.3).all()


def test_penalties_are_there_when_they_weigh_something(pool, folder):
    generator = torch.Generator().manual_seed(0)
    parts = {"parts", "parts_perceptual", "perceptual"}
    for weight, names in ((0.0, set()), (0.1, {"spill", "opacity"} | parts)):
        options = {
            "perceptual": PerceptualConfig(kind="encoder", weight=weight),
            "hierarchical": HierarchicalConfig(weight=weight, levels=(16, 32)),
        }
        task = ReconstructionTask(tiny_config(folder, spill_weight=weight, opacity_weight=weight, **options))
        terms = task.training_loss(task.build_module(), task.sample(pool, 2, generator), generator, 0)
        assert terms.keys() - {"squared", "absolute", "mask", "ssim", "_psnr"} == names
        assert all(value.isfinite() for value in terms.values())


def test_the_photograph_is_matched_as_often_as_asked(pool, folder):
    task = ReconstructionTask(tiny_config(folder, photo_weight=1.0))
    batch = task.sample(pool, 4, torch.Generator().manual_seed(0))
    same = (batch.targets == batch.images).flatten(2).all(dim=2)
    assert (same.sum(dim=1) == 1).all()  # one of the targets, the others are other views


def test_sample_sheet_shows_photo_targets_and_renders(task, pool):
    module = task.build_module()
    batch = task.sample(pool, 2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        sheet = task.pictures(module, batch)
    assert sheet.shape == (3, 2 * SIZE, (1 + 2 * 2) * SIZE)
    torch.testing.assert_close(
        sheet[:, :SIZE, SIZE : 2 * SIZE],
        batch.targets[0, 0, :3] * batch.targets[0, 0, 3:] + 1 - batch.targets[0, 0, 3:],
    )


def test_what_is_saved_loads_as_the_library_loads_it(task, tmp_path):
    module = task.build_module()
    task.save_pretrained(module, tmp_path / "model")
    again = LatentReconstructor.from_pretrained(tmp_path / "model")
    for name, value in module.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
