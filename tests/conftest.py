"""Shared fixtures; every shape annotation of the library is checked while the tests run."""

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("humansplat", "beartype.beartype")


@pytest.fixture
def rng() -> torch.Generator:
    """A fresh generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
