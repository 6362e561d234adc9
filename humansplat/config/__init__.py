"""Typed run configuration: the dataclasses are the schema, YAML files only override it.

Nothing here imports torch, so that a misspelt file is refused in a blink.
"""

from humansplat.config.autoencoder import AutoencoderConfig
from humansplat.config.data import AugmentConfig, DataConfig, StreamConfig, ViewShares
from humansplat.config.files import as_plain, load_config, save_config
from humansplat.config.lifter import LifterConfig, MarkerLifterConfig
from humansplat.config.optimization import CheckpointConfig, OptimConfig
from humansplat.config.reconstruction import (
    BodyUse,
    HierarchicalConfig,
    LatentsConfig,
    NoiseLevels,
    PerceptualConfig,
    ReconstructionConfig,
    ReconstructorConfig,
)
from humansplat.config.training import Compiled, TrainConfig
from humansplat.config.views import DistillConfig, SV3DConfig, SV3DModelConfig

__all__ = [
    "AugmentConfig",
    "AutoencoderConfig",
    "BodyUse",
    "CheckpointConfig",
    "Compiled",
    "DataConfig",
    "DistillConfig",
    "HierarchicalConfig",
    "LatentsConfig",
    "LifterConfig",
    "MarkerLifterConfig",
    "NoiseLevels",
    "OptimConfig",
    "PerceptualConfig",
    "ReconstructionConfig",
    "ReconstructorConfig",
    "SV3DConfig",
    "SV3DModelConfig",
    "StreamConfig",
    "TrainConfig",
    "ViewShares",
    "as_plain",
    "load_config",
    "save_config",
]
