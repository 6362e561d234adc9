import numpy as np
import pytest

from humansplat.capture.foreground import estimate_foreground
from humansplat.capture.matting import solve_alpha


@pytest.fixture
def disc():
    """A soft textured disc on another colour: alpha, picture and the disc's own colours."""
    y, x = np.mgrid[0:96, 0:96]
    radius = np.hypot(y - 47.5, x - 47.5)
    alpha = ((30 - radius) / 5 + 0.5).clip(0, 1).astype(np.float32)
    front = np.stack([0.8 + 0.1 * np.sin(x / 9), 0.2 + 0.05 * np.cos(y / 7), np.full((96, 96), 0.1)], axis=-1)
    back = np.stack([np.full((96, 96), 0.2), 0.5 + 0.1 * np.sin(y / 11), np.full((96, 96), 0.8)], axis=-1)
    picture = alpha[..., None] * front + (1 - alpha[..., None]) * back
    return alpha, picture.astype(np.float32), front.astype(np.float32)


def test_alpha_of_a_soft_edge_is_found(disc):
    alpha, picture, _ = disc
    y, x = np.mgrid[0:96, 0:96]
    coarse = (np.hypot(y - 45, x - 50) < 31).astype(np.float32)  # off by a few pixels
    unknown = np.abs(np.hypot(y - 47.5, x - 47.5) - 30) < 9
    prior = np.where(unknown, coarse, alpha).astype(np.float32)
    found = solve_alpha(picture, prior, unknown, np.full_like(alpha, 1e-3))
    assert np.abs(found - alpha).max() < 0.12
    assert np.abs(found - alpha)[unknown].mean() < 0.2 * np.abs(prior - alpha)[unknown].mean()
    np.testing.assert_array_equal(found[~unknown], prior[~unknown])


def test_band_may_touch_the_border(disc):
    alpha, picture, _ = disc
    alpha, picture = alpha[40:], picture[40:]
    unknown = np.zeros(alpha.shape, dtype=bool)
    unknown[:20] = True
    found = solve_alpha(picture, alpha, unknown, np.full_like(alpha, 1e-2))
    assert np.abs(found - alpha).max() < 0.1


def test_without_unknown_pixels_the_prior_is_returned(disc):
    alpha, picture, _ = disc
    found = solve_alpha(picture, alpha, np.zeros(alpha.shape, dtype=bool), alpha)
    np.testing.assert_array_equal(found, alpha)


def test_foreground_is_free_of_background(disc):
    alpha, picture, front = disc
    found = estimate_foreground(picture, alpha)
    edge = (alpha > 0.1) & (alpha < 0.9)
    assert np.abs(found - front)[edge].mean() < 0.05
    assert np.abs(picture - front)[edge].mean() > 0.2
    inside = alpha == 1.0
    np.testing.assert_allclose(found[inside], picture[inside], atol=0.02)


def test_foreground_of_an_opaque_picture_is_the_picture(disc):
    _, picture, _ = disc
    found = estimate_foreground(picture, np.ones(picture.shape[:2], np.float32))
    np.testing.assert_allclose(found, picture, atol=0.01)
