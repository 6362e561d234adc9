"""Every example in a docstring runs."""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import humansplat

PACKAGE = Path(humansplat.__file__).parent
WITH_EXAMPLES = [
    ".".join(("humansplat", *path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_geometry_has_examples():
    assert {"humansplat.geometry.projection", "humansplat.geometry.rotations"} <= set(WITH_EXAMPLES)
