import numpy as np
import pytest

from humansplat.data.synthetic.environments import harmonics, project, random_environment, sphere_directions


def test_the_harmonics_are_orthogonal_on_the_map() -> None:
    directions, shares = sphere_directions()
    assert shares.sum() == pytest.approx(1)
    values = harmonics(directions)
    gram = values.T @ (shares[:, None] * values)
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=2e-3)


def test_nine_coefficients_give_what_integration_gives() -> None:
    """Against the cosine integral over the map, for a soft sky with a bright side."""
    rng = np.random.default_rng(0)
    directions, shares = sphere_directions()
    radiance = 0.3 + np.clip(directions @ np.array([0.3, 0.8, 0.5]), 0, 1)[:, None] ** 2 * rng.uniform(0.5, 2, 3)
    normals = rng.normal(size=(50, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    cosine = np.clip(normals @ directions.T, 0, None)
    expected = 4 * (cosine * shares) @ radiance  # 1 / pi of the integral over the sphere's 4 pi
    np.testing.assert_allclose(harmonics(normals) @ project(radiance), expected, atol=0.02 * expected.max())


def test_a_white_room_lights_white_sheets_white() -> None:
    directions, _ = sphere_directions()
    light = harmonics(directions) @ project(np.ones_like(directions))
    np.testing.assert_allclose(light, 1, atol=0.01)


def test_drawn_light_is_repeatable_bright_enough_and_varied() -> None:
    directions, _ = sphere_directions()
    facing = np.array([[0.0, 0.3, 0.95]])
    seen = []
    for seed in range(80):
        first, second = (random_environment(np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(first.environment, second.environment)
        assert (harmonics(directions) @ first.environment).min() > 0
        assert 1 <= len(first.directions) <= 2
        np.testing.assert_allclose(np.linalg.norm(first.directions, axis=1), 1, atol=1e-5)
        lamps = np.maximum(facing @ first.directions.T, 0) @ first.colors
        seen.append((harmonics(facing) @ first.environment + lamps)[0])
    mean = np.array(seen).mean(1)
    assert mean.min() > 0.3
    assert mean.max() < 1.6
    assert np.array(seen).std(0).min() > 0.08
