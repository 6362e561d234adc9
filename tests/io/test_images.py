"""PNG files: lossless, whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.errors import UserError
from humansplat.io.images import read_png, to_bytes, write_png


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4), (1, 1)])
def test_reading_gives_what_was_written(tmp_path: Path, shape: tuple[int, ...]):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    write_png(pixels, tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(read_png(tmp_path / "new" / "a.png"), pixels)


def test_effort_changes_the_size_only(tmp_path: Path):
    pixels = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    write_png(pixels, tmp_path / "a.png", level=0)
    write_png(pixels, tmp_path / "b.png", level=9)
    assert (tmp_path / "a.png").stat().st_size > (tmp_path / "b.png").stat().st_size
    np.testing.assert_array_equal(read_png(tmp_path / "a.png"), read_png(tmp_path / "b.png"))


def test_values_are_rounded_and_clamped():
    image = torch.tensor([-0.1, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0]).expand(3, 1, 6)
    np.testing.assert_array_equal(to_bytes(image)[0, :, 0], [0, 0, 0, 1, 255, 255])
    assert to_bytes(image).shape == (1, 6, 3)


def test_bad_input_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="uint8"):
        write_png(np.zeros((4, 4), np.float32), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"\(4, 4, 2\)"):
        write_png(np.zeros((4, 4, 2), np.uint8), tmp_path / "a.png")
    assert not any(tmp_path.iterdir())
    with pytest.raises(UserError, match="no such picture"):
        read_png(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"text")
    with pytest.raises(UserError, match="not a picture"):
        read_png(tmp_path / "a.png")
