"""A small real task: a convolutional autoencoder of smooth pictures."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from safetensors.torch import save_file
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import CheckpointConfig, OptimConfig, TrainConfig
from humansplat.training.trainer import Trainer


class ToyPool:
    """Pictures ``[n, 3, 16, 16]`` of a few random waves."""

    def __init__(self, num_pictures: int, seed: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.rand(num_pictures, 3, 3, 3, generator=generator)
        self.pictures = F.interpolate(coarse, size=16, mode="bilinear", align_corners=True).to(device)

    def __len__(self) -> int:
        return len(self.pictures)


class ToyTask:
    """Autoencoding by mean squared error; at the steps in ``poison`` the loss is not a number."""

    def __init__(self, poison: Sequence[int] = ()) -> None:
        self.poison = set(poison)

    def build_module(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 16, 4, stride=4),
            nn.GroupNorm(2, 16),
            nn.SiLU(),
            nn.Dropout(0.05),
            nn.ConvTranspose2d(16, 3, 4, stride=4),
        )

    def frozen_modules(self) -> Sequence[nn.Module]:
        return ()

    def sample(self, pool: ToyPool, batch_size: int, generator: torch.Generator) -> Tensor:
        return pool.pictures[draws.integers(generator, len(pool), batch_size)]

    def training_loss(
        self, module: nn.Module, batch: Tensor, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        noise = 0.01 * draws.normal(generator, *batch.shape)
        squared = F.mse_loss(module(batch + noise).float(), batch)
        if step in self.poison:
            squared = squared * float("nan")
        return {"squared": squared, "_psnr": -10 * squared.detach().log10()}

    def validate(self, module: nn.Module, pool: ToyPool) -> dict[str, float]:
        assert not module.training
        return {"psnr": float(-10 * F.mse_loss(module(pool.pictures).float(), pool.pictures).log10())}

    def pictures(self, module: nn.Module, batch: Tensor) -> Tensor:
        return torch.cat([batch[0], module(batch)[0]], dim=-1)

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        save_file(module.state_dict(), folder / "toy.safetensors")


def toy_config(output_dir: Path, **changes: object) -> TrainConfig:
    """A run of 40 steps that reads the clock every 5."""
    values: dict[str, object] = {
        "task": "autoencoder",
        "output_dir": output_dir,
        "num_steps": 40,
        "batch_size": 8,
        "mixed_precision": "no",
        "log_every": 5,
        "validate_every": 20,
        "num_pictures": 2,
        "optim": OptimConfig(lr=1e-2, warmup_steps=5, ema_decay=0.9),
        "checkpoint": CheckpointConfig(every_minutes=60.0),
    }
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def toy_trainer(config: TrainConfig, task: ToyTask | None = None, *, cpu: bool = True) -> Trainer:
    accelerator = Accelerator(cpu=cpu)
    train_pool, validation_pool = (ToyPool(n, seed=n, device=accelerator.device) for n in (16, 8))
    return Trainer(config, task or ToyTask(), accelerator, train_pool, validation_pool)


def training_lines(folder: Path) -> list[dict]:
    """The readings of a run's losses."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["group"] == "train"]
