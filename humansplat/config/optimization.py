"""How weights are moved, and what is kept so that a run can go on."""

from dataclasses import dataclass
from typing import Literal

from humansplat.errors import UserError


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a linear warm-up and a cosine to nearly nothing, and an average of the weights."""

    lr: float = 4e-4
    """Peak learning rate, after the warm-up."""
    final_lr_fraction: float = 0.01
    """The cosine ends at this fraction of ``lr``."""
    warmup_steps: int = 150
    betas: tuple[float, ...] = (0.9, 0.95)
    weight_decay: float = 0.05
    """For matrices and kernels only; norms, biases and other vectors are not decayed."""
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    """Of the averaged weights that are validated and shipped; smaller at first, see ``training.ema``."""
    max_bad_steps: int = 20
    """Steps with a non-finite gradient are skipped; so many in a row end the run."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise UserError(f"optim.betas ({list(self.betas)}) must be two numbers from 0 to below 1")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"optim.ema_decay ({self.ema_decay}) must be from 0 to below 1")
        if self.lr <= 0 or self.max_grad_norm <= 0:
            raise UserError(f"optim.lr ({self.lr}) and optim.max_grad_norm ({self.max_grad_norm}) must be positive")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept so that a run can go on; see ``humansplat.training.checkpoint``."""

    every_minutes: float = 10.0
    keep: int = 2
    """Older checkpoints are deleted."""
    weights: Literal["float32", "float16"] = "float32"
    moments: Literal["float32", "bfloat16", "none"] = "float32"
    """With anything but float32 in both a resumed run differs a little from an unbroken one."""
    max_part_mib: float | None = None
    """Split a checkpoint into files of at most this size."""

    def __post_init__(self) -> None:
        if self.keep < 1 or self.every_minutes <= 0:
            raise UserError(f"checkpoint.keep ({self.keep}) and every_minutes ({self.every_minutes}) must be positive")
