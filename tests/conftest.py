"""Shared fixtures; every shape annotation of the library is checked while the tests run."""

from pathlib import Path
from typing import TYPE_CHECKING

import beartype
import pytest
import torch
from jaxtyping import install_import_hook

# A whole number is a float to the type checker (PEP 484), so it is to the tests.
beartype.with_tower = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
install_import_hook("humansplat", "beartype.with_tower")

if TYPE_CHECKING:
    from humansplat.pipelines.reconstructor import Reconstructor


@pytest.fixture
def rng() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of untrained weights of the real classes, for pictures of 64 px."""
    from humansplat.models.autoencoder import build_autoencoder
    from humansplat.models.latent_reconstructor import LatentReconstructor

    folder = tmp_path_factory.mktemp("weights") / "tiny"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        build_autoencoder(channels=(16, 16, 16, 16)).save_pretrained(folder / "vae")
        network = LatentReconstructor(
            width=16,
            num_heads=2,
            num_intra_layers=1,
            num_body_layers=1,
            num_inter_layers=1,
            num_body_tokens=64,
            kept_cells=32,
        )
        network.save_pretrained(folder / "reconstructor")
    (folder / "config.json").write_text('{"image_size": 64}\n')
    return folder


@pytest.fixture(scope="session")
def tiny_reconstructor(tiny_weights: Path) -> "Reconstructor":
    """A reconstructor with those weights."""
    from humansplat.pipelines.reconstructor import Reconstructor

    return Reconstructor.from_pretrained(tiny_weights, "cpu")
