"""Scans of each layout and the data sets made of them, for all tests of scans."""

import sys
from pathlib import Path

import pytest

from humansplat.data.prepare import prepare

sys.path.insert(0, str(Path(__file__).parent))  # here too, because worker processes inherit the path
import toy_scans

LAYOUTS = ("thuman2", "2k2k", "customhumans", "generic")
SMALL = {"size": 64, "ring_cameras": 4, "samples": 2, "progress": False, "workers": 0, "factory": toy_scans.factory}


@pytest.fixture(scope="session")
def layout_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of two or three small scans in each layout, by the layout's name."""
    root = tmp_path_factory.mktemp("scans")
    return {layout: toy_scans.write_layout(root / layout, layout) for layout in LAYOUTS}


@pytest.fixture(scope="session")
def prepared_folders(layout_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What ``prepare`` makes of them, by the layout's name: 64 px, 4 + 3 x 4 views, the default body."""
    root = tmp_path_factory.mktemp("prepared")
    for layout, folder in layout_folders.items():
        made = prepare(folder, root / layout, normals=True, depth=True, **SMALL)  # type: ignore[arg-type]
        assert not made.failed
        assert not made.flagged
    return {layout: root / layout for layout in layout_folders}
