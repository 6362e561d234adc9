"""The tasks by their names in a configuration."""

from typing import Any

from humansplat.config import TrainConfig
from humansplat.data.dataset import PeoplePool
from humansplat.training.task import Task


def make_task(config: TrainConfig) -> Task[PeoplePool, Any]:
    """Make the task that ``config.task`` names; its batches are its own affair."""
    match config.task:
        case "autoencoder":
            from humansplat.training.autoencoder_task import AutoencoderTask

            return AutoencoderTask(config)
        case "lifter":
            from humansplat.training.lifter_task import LifterTask

            return LifterTask(config)
        case "reconstruction":
            from humansplat.training.reconstruction_task import ReconstructionTask

            return ReconstructionTask(config)
        case "sv3d" if config.sv3d.distill.teacher is not None:
            from humansplat.training.view_distillation import ViewDistillation

            return ViewDistillation(config)
        case "sv3d":
            from humansplat.training.view_task import ViewTask

            return ViewTask(config)
