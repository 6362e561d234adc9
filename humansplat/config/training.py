"""One training run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from humansplat.config.autoencoder import AutoencoderConfig
from humansplat.config.data import DataConfig
from humansplat.config.lifter import LifterConfig
from humansplat.config.optimization import CheckpointConfig, OptimConfig
from humansplat.config.reconstruction import ReconstructionConfig, ReconstructorConfig
from humansplat.config.views import SV3DConfig
from humansplat.errors import UserError

Compiled = Literal["no", "blocks", "stages", "whole", "graphs"]
"""What of a network is compiled for training; ``training.compilation.compile_network`` says what each means."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run. ``configs/<task>_<size>.yaml`` holds only what differs from here."""

    task: Literal["autoencoder", "lifter", "reconstruction", "sv3d"]
    output_dir: Path = Path("runs/debug")
    num_steps: int = 100_000
    max_minutes: float | None = None
    """Ends the run, and its learning-rate schedule, after this time if the steps are not done by then."""
    batch_size: int = 16
    """Per process; the global batch is this times processes times ``accumulate``."""
    accumulate: int = 1
    """Batches whose gradients are averaged into one step."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "bf16"
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass: less memory, about a third more time."""
    compile: Compiled = "no"
    """``blocks``: the network's repeated blocks, alike ones once, and frozen encoders. ``stages``: also what the
    network computes between them. ``whole``: all of the network in one piece, which takes minutes. ``graphs``: nothing
    is compiled, CUDA graphs of all its operations are replayed, for small networks on GPUs. In files ``false`` and
    ``true`` may stand for ``no`` and ``whole``."""
    seed: int = 0
    """Of the first weights and of all that is drawn; at least 0."""
    init_from: Path | None = None
    """Run or checkpoint whose averaged weights a fresh run starts from, or a folder that ``save_pretrained`` wrote."""
    log_every: int = 20
    """Steps between readings of the losses, the clock and the stop signals."""
    validate_every: int = 1_000
    """Steps between validations."""
    best_metric: str = "psnr"
    """Validation figure, larger is better, that decides which averaged weights are kept as ``best``."""
    num_pictures: int = 4
    """People on the sample sheet that every validation logs."""
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    lifter: LifterConfig = field(default_factory=LifterConfig)
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    sv3d: SV3DConfig = field(default_factory=SV3DConfig)

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "accumulate", "log_every", "validate_every", "num_pictures"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed ({self.seed}) must be at least 0")
        if self.task == "reconstruction" and self.reconstruction.keep_latents:
            _check_kept_latents(self.data, "reconstruction", ("gain", "permute", "saturate"))
            if self.data.watch:
                raise UserError("reconstruction.keep_latents needs a pool that stays: set data.watch to false")
        if self.task == "sv3d" and self.sv3d.keep_latents:
            _check_kept_latents(self.data, "sv3d")
        if self.num_steps <= self.optim.warmup_steps:
            raise UserError(
                f"num_steps ({self.num_steps}) must exceed optim.warmup_steps ({self.optim.warmup_steps}): lower it"
            )
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise UserError(f"max_minutes ({self.max_minutes}) must be positive; leave it out for no limit")
        if self.compile == "graphs" and self.gradient_checkpointing:
            raise UserError(
                "compile is graphs, which cannot compute activations anew: set gradient_checkpointing to false"
            )
        if self.task == "reconstruction":
            _check_picture(self.data.image_size, self.reconstruction.model)


def _check_picture(size: int | None, model: ReconstructorConfig) -> None:
    """Refuse pictures that cannot be cut into a reconstructor's tokens, or halved down to one pixel for body maps."""
    if size is None:
        raise UserError("data.image_size is null, but body maps are of one size: give the pictures' side in pixels")
    token = 8 * max(model.patch, 1)
    if size % token:
        raise UserError(f"data.image_size ({size}) must be a multiple of {token}, the pixels on a side of a token")
    if model.body in ("full", "maps") and size & (size - 1):
        raise UserError(f"data.image_size ({size}) must be a power of two, which body maps need")


def _check_kept_latents(data: DataConfig, task: str, colors: tuple[str, ...] = ()) -> None:
    """Refuse what changes pictures whose latents are kept.

    Raises:
        UserError: With the remedy.
    """
    for name in (*colors, "crop_scale", "crop_shift", "background", "jpeg"):
        if getattr(data.augment, name) > 0:
            raise UserError(f"{task}.keep_latents needs pictures as they are: set data.augment.{name} to 0")
    if data.source != "pool":
        raise UserError(f"{task}.keep_latents needs people in memory: set data.source to pool")
