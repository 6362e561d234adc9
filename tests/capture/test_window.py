import math

import numpy as np
import pytest

from humansplat.capture.window import Window, apply, chain, invert, resample, rotation, sample


@pytest.fixture
def pixels():
    """Smooth pixels whose colours are their coordinates."""
    y, x = np.mgrid[0:180, 0:240] + 0.5
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize(
    "window", [Window(120.0, 90.0, 80.0), Window(100.0, 80.0, 60.0, 0.7), Window(120.0, 90.0, 128.0)]
)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_colours_come_from_where_the_map_says(pixels, window, size):
    square, to_photo = sample(pixels, window, size)
    grid = np.stack(np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5), axis=-1).reshape(-1, 2)
    expected = apply(to_photo, grid).reshape(size, size, 2)
    inner = slice(3, -3)
    np.testing.assert_allclose(square[inner, inner, :2] * 255.0, expected[inner, inner], atol=1.6)


def test_beyond_the_picture_is_black(pixels):
    square, _ = sample(pixels, Window(0.0, 0.0, 100.0), 50)
    assert square[:24].max() == 0.0
    assert square[:, :24].max() == 0.0
    assert square[26:, 26:, 2].min() > 0.9
    assert sample(pixels, Window(-500.0, 0.0, 100.0), 50)[0].max() == 0.0


def test_turning_clockwise_moves_right_to_down():
    np.testing.assert_allclose(rotation(math.pi / 2) @ [1.0, 0.0], [0.0, 1.0], atol=1e-12)


def test_affine_maps_invert_and_chain():
    first, second = Window(10.0, 20.0, 30.0, 0.3).to_photo(64), Window(-5.0, 8.0, 99.0, -1.0).to_photo(32)
    points = np.array([[0.0, 0.0], [3.0, 7.0], [64.0, 1.0]])
    np.testing.assert_allclose(apply(invert(first), apply(first, points)), points, atol=1e-9)
    np.testing.assert_allclose(apply(chain(second, first), points), apply(second, apply(first, points)), atol=1e-9)


def test_resampling_a_ramp_reads_its_coordinates():
    ramp = np.tile(np.arange(40) + 0.5, (30, 1)).astype(np.float32)
    affine = np.array([[0.5, 0.0, 4.0], [0.0, 0.5, 3.0]])
    result = resample(ramp, affine, 20, 10, -1.0)
    np.testing.assert_allclose(result[5], (np.arange(20) + 0.5) * 0.5 + 4.0, atol=1e-4)
    assert resample(ramp, np.array([[1.0, 0, 100.0], [0, 1.0, 0]]), 5, 5, -1.0).max() == -1.0
