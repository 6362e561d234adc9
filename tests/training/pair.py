"""Runs of the toy task on people, for one process or two: as a script it is one of two processes.

All of a step is in it that draws numbers: people, views, every augmentation, noise in the loss. The module shards
into shares of unequal size.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from humansplat import draws
from humansplat.config import AugmentConfig, CheckpointConfig, DataConfig, OptimConfig, TrainConfig
from humansplat.errors import UserError
from humansplat.training.exchange import GradientExchange
from humansplat.training.people import People, open_pools
from humansplat.training.trainer import Trainer

STEPS = 6
LONG_STEPS = 25
AUGMENT = AugmentConfig(
    mirror=0.5, gain=0.2, permute=0.5, crop_scale=0.1, crop_shift=0.1, background=0.5, jpeg=0.5, jpeg_quality=40
)


class Stage(nn.Module):
    """What is gathered and let go as one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 1), nn.GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.norm(self.conv(x)))


class Staged(nn.Sequential):
    """A small autoencoder of pictures; its widths are odd."""

    _no_split_modules = ("Stage",)

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 7, 4, stride=4), Stage(7), Stage(7), nn.ConvTranspose2d(7, 3, 4, stride=4))
        self.register_buffer("calls", torch.zeros(()))


class PeopleTask:
    """Pictures restored; at the steps in ``poison`` the loss is not a number."""

    def __init__(self, poison: Sequence[int] = ()) -> None:
        self.poison = set(poison)

    def build_module(self) -> nn.Module:
        return Staged()

    def frozen_modules(self) -> Sequence[nn.Module]:
        return ()

    def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> Tensor:
        batch = pool.sample(batch_size, 2, generator, num_inputs=4, photo_weight=0.3, augment=AUGMENT)
        pictures = torch.cat([batch.images, batch.targets], dim=1).flatten(0, 1)
        return pictures[:, :3] * pictures[:, 3:]

    def training_loss(
        self, module: nn.Module, batch: Tensor, generator: torch.Generator, step: int
    ) -> dict[str, Tensor]:
        noisy = batch + 0.05 * draws.normal(generator, *batch.shape)
        squared = F.mse_loss(module(noisy).float(), batch)
        if step in self.poison:
            squared = squared * float("nan")
        return {"squared": squared}

    def validate(self, module: nn.Module, pool: People) -> dict[str, float]:
        assert not module.training
        return {"psnr": 1.0 + float(sum(p.double().sum() for p in module.parameters()))}

    def pictures(self, module: nn.Module, batch: Tensor) -> Tensor:
        return module(batch)[0]

    def save_pretrained(self, module: nn.Module, folder: Path) -> None:
        torch.manual_seed(0)  # what saving draws must not matter


def plan(
    root: Path,
    people: Path,
    bodies: Path,
    name: str,
    source: str = "pool",
    batch_size: int = 2,
    accumulate: int = 1,
    kept: bool = False,
) -> TrainConfig:
    """A run whose every step is logged, and kept if asked for, in ``root/name``."""
    return TrainConfig(
        task="autoencoder",
        output_dir=root / name,
        num_steps=STEPS,
        batch_size=batch_size,
        accumulate=accumulate,
        mixed_precision="no",
        log_every=1,
        validate_every=STEPS,
        num_pictures=1,
        data=DataConfig(
            source=source,
            train=people,
            validation=people,
            validation_people=1,
            image_size=16,
            num_workers=1 if source == "pool" else 0,
            body_model="smplx",
            body_models=bodies,
        ),
        optim=OptimConfig(lr=3e-2, warmup_steps=2, ema_decay=0.5, max_grad_norm=0.1),
        checkpoint=CheckpointConfig(every_minutes=1e-9 if kept else 60.0, keep=STEPS),
    )  # fmt: skip


def train(run: TrainConfig, task: PeopleTask | None = None, *, resume: bool = False) -> Trainer:
    accelerator = Accelerator(cpu=True)
    with open_pools(run.data, accelerator, seed=run.seed) as (people, validation):
        trainer = Trainer(run, task or PeopleTask(), accelerator, people, validation)
        trainer.run(resume=resume)
    return trainer


def train_without_hooks(run: TrainConfig, task: PeopleTask, rank: int) -> None:
    """As where CUDA graphs are replayed, which no CPU does; the second process's first weights are wrong."""
    accelerator = Accelerator(cpu=True)
    with open_pools(run.data, accelerator, seed=run.seed) as (people, validation):
        trainer = Trainer(run, task, accelerator, people, validation)
        trainer.learner.wrap = trainer.learner.without_hooks
        for parameter in trainer.module.parameters():
            parameter.data += rank
        trainer.run()


def exchanged(rank: int) -> dict[str, object]:
    """Gradients of parameters of many kinds after two exchanges, and what is refused."""
    picture = torch.full((1, 2, 2, 3), float(rank)).to(memory_format=torch.channels_last)
    starts = {
        "both": picture,
        "second": torch.zeros(3, dtype=torch.float64),
        "neither": torch.zeros(2),
        "frozen": torch.zeros(1),
    }
    module = nn.ParameterDict(
        {name: nn.Parameter(start, requires_grad=name != "frozen") for name, start in starts.items()}
    )
    exchange = GradientExchange(module)
    for step in range(2):
        module["both"].grad = torch.full_like(picture, 2 * step + rank)
        module["second"].grad = torch.full((3,), 5.0, dtype=torch.float64) if rank else None
        exchange()
    found: dict[str, object] = {"start": float(module["both"].sum())}
    found |= {name: None if p.grad is None else p.grad.unique().tolist() for name, p in module.items()}
    found["laid out alike"] = module["both"].grad.stride() == module["both"].stride()
    module["both"].grad = torch.full_like(picture, float("inf") if rank else 0.0)
    exchange()
    found["finite"] = bool(module["both"].grad.isfinite().any())
    module["neither"].grad = torch.ones(2)
    try:
        exchange()
    except RuntimeError as error:
        found["refused"] = str(error)
    return found


def main() -> None:
    """``pair.py RANK STORE ROOT PEOPLE BODIES``: everything that two processes do."""
    rank, store, root, people, bodies = int(sys.argv[1]), *map(Path, sys.argv[2:6])
    # Accelerate looks for an address, too, though the processes meet in a file.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "-",
        "MASTER_PORT": "0",
    }
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=store.as_uri(), rank=rank, world_size=2)

    folders = (root, people, bodies)
    train(plan(*folders, "pool-two"))
    train(plan(*folders, "stream-two", "stream"))
    train(plan(*folders, "parts-two", batch_size=1, accumulate=2))
    train_without_hooks(plan(*folders, "graphs-two", batch_size=1, accumulate=2), PeopleTask(poison=[3]), rank)
    (root / f"exchanged-{rank}.json").write_text(json.dumps(exchanged(rank)))
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    try:
        train(replace(plan(*folders, "refused"), compile="graphs"))
    except UserError as error:
        (root / f"graphs-{rank}.txt").write_text(str(error))
    os.environ["FSDP_ACTIVATION_CHECKPOINTING"] = "true"
    try:
        train(plan(*folders, "refused"))
    except UserError as error:
        (root / f"refused-{rank}.txt").write_text(str(error))
    del os.environ["FSDP_ACTIVATION_CHECKPOINTING"]
    try:
        train(replace(plan(*folders, "undecided"), best_metric="ssim", validate_every=1))
    except UserError as error:
        (root / f"undecided-{rank}.txt").write_text(str(error))
    train(plan(*folders, "shares-two", batch_size=1, accumulate=2, kept=True), PeopleTask(poison=[3]))
    train(plan(*folders, "resumed-two"), resume=True)
    train(replace(plan(*folders, "started-two"), init_from=root / "pool-one"))
    torch.distributed.destroy_process_group()
    if rank == 1:
        run_until_killed(*folders)


def run_until_killed(*folders: Path) -> None:
    """One process again, which waits for a line, says when it begins a step and would go on for long."""
    sys.stdin.readline()
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP"):
        del os.environ[name]
    AcceleratorState._reset_state(reset_partial_state=True)

    class Telling(PeopleTask):
        begun = 0

        def sample(self, pool: People, batch_size: int, generator: torch.Generator) -> Tensor:
            print("step", flush=True)
            self.begun += 1
            if self.begun == LONG_STEPS:
                sys.stdin.readline()  # whoever kills this may be slow
            return super().sample(pool, batch_size, generator)

    run = plan(*folders, "killed", batch_size=4, kept=True)
    train(replace(run, num_steps=LONG_STEPS, log_every=5), Telling())


if __name__ == "__main__":
    main()
