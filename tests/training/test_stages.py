"""A run at one size of pictures goes on at twice the size from its weights."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from humansplat.config import DataConfig, OptimConfig, ReconstructionConfig, ReconstructorConfig, TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.models.autoencoder import build_autoencoder
from humansplat.training.reconstruction_task import ReconstructionTask
from humansplat.training.trainer import Trainer


@pytest.fixture
def stages(tmp_path) -> tuple[TrainConfig, TrainConfig]:
    torch.manual_seed(0)
    build_autoencoder((16, 16, 16, 16)).save_pretrained(tmp_path / "vae")
    model = ReconstructorConfig(
        width=32, num_heads=2, num_intra_layers=1, num_inter_layers=1, num_body_tokens=64, kept_cells=None
    )
    first = TrainConfig(
        task="reconstruction",
        output_dir=tmp_path / "small",
        num_steps=6,
        batch_size=2,
        mixed_precision="no",
        validate_every=100,
        num_pictures=1,
        optim=OptimConfig(lr=1e-2, warmup_steps=1, ema_decay=0.5),
        data=DataConfig(image_size=32),
        reconstruction=ReconstructionConfig(
            autoencoder=tmp_path / "vae", model=model, num_targets=2, wrong_bodies=0.0
        ),
    )
    second = replace(
        first,
        output_dir=tmp_path / "large",
        num_steps=1,
        init_from=tmp_path / "small",
        data=DataConfig(image_size=64),
        optim=OptimConfig(lr=1e-4, warmup_steps=0),
    )
    return first, second


def make_trainer(config: TrainConfig, pool: PeoplePool) -> Trainer:
    people = PeoplePool(
        Path(pool.root), pool.template, capacity=2, image_size=config.data.image_size, num_workers=1, max_views=5
    )
    people.load(2)
    return Trainer(config, ReconstructionTask(config), Accelerator(cpu=True), people, people)


def test_a_second_stage_goes_on_at_twice_the_size(stages, pool):
    first, second = stages
    small = make_trainer(first, pool).run()
    trainer = make_trainer(second, pool)
    with torch.no_grad():
        fresh = trainer.task.validate(trainer.module.eval(), trainer.validation.pool)
    trainer.module.train()
    large = trainer.run()
    assert large.metrics["psnr"] > fresh["psnr"] + 3
    assert large.metrics["psnr"] > small.metrics["psnr"] - 2
