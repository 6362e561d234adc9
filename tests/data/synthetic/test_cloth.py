import numpy as np
import pytest
import trimesh

from humansplat.data.synthetic.cloth import Cloth, inflate, normals, smooth_noise
from humansplat.data.synthetic.coverage import away_from_rim, cover


def sphere(radius: float = 1.0) -> Cloth:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    vertices = np.asarray(ball.vertices, np.float32)
    weights = np.stack([vertices[:, 0] * 0.25 + 0.5, 0.5 - vertices[:, 0] * 0.25], 1).astype(np.float32)
    return Cloth(
        vertices=vertices,
        faces=np.asarray(ball.faces, np.int64),
        uvs=vertices[:, :2].copy(),
        canonical=vertices.copy(),
        weights=weights,
        weld=np.arange(len(vertices)),
    )


def area(cloth: Cloth) -> float:
    return float(trimesh.Trimesh(cloth.vertices, cloth.faces, process=False).area)


@pytest.mark.parametrize("height", [-0.5, 0.01, 0.4])
def test_a_clip_ends_at_the_line_and_loses_nothing_above_it(height: float) -> None:
    cloth = sphere()
    top = cloth.clip(cloth.canonical[:, 1] - height)
    bottom = cloth.clip(height - cloth.canonical[:, 1])
    assert top.vertices[:, 1].min() == pytest.approx(height, abs=1e-4)
    assert area(top) + area(bottom) == pytest.approx(area(cloth), rel=1e-4)
    rim = top.boundary()
    np.testing.assert_allclose(top.vertices[rim, 1], height, atol=1e-4)


def test_a_clip_keeps_winding_and_interpolates_every_attribute() -> None:
    cloth = sphere()
    top = cloth.clip(cloth.canonical[:, 1] - 0.3)
    assert (np.einsum("nc,nc->n", normals(top.vertices, top.faces, top.weld), top.vertices) > 0).all()
    np.testing.assert_allclose(top.canonical, top.vertices, atol=1e-6)
    np.testing.assert_allclose(top.uvs, top.vertices[:, :2], atol=1e-6)
    np.testing.assert_allclose(top.weights.sum(1), 1, atol=1e-6)


def test_a_clip_that_misses_changes_nothing_and_one_that_takes_all_leaves_nothing() -> None:
    cloth = sphere()
    assert len(cloth.clip(np.ones(len(cloth.vertices))).faces) == len(cloth.faces)
    assert len(cloth.clip(-np.ones(len(cloth.vertices))).faces) == 0


def test_seams_stay_closed() -> None:
    """Two halves that meet at a seam: same weld numbers, own vertices."""
    cloth = sphere()
    corners = cloth.vertices[cloth.faces].mean(1)[:, 2] > 0
    halves = [cloth.select(corners), cloth.select(~corners)]
    seamed = Cloth(
        vertices=np.concatenate([half.vertices for half in halves]),
        faces=np.concatenate([halves[0].faces, halves[1].faces + len(halves[0].vertices)]),
        uvs=np.concatenate([half.uvs for half in halves]),
        canonical=np.concatenate([half.canonical for half in halves]),
        weights=np.concatenate([half.weights for half in halves]),
        weld=np.concatenate([half.weld for half in halves]),
    )
    assert not seamed.boundary().any()
    outward = normals(seamed.vertices, seamed.faces, seamed.weld)
    np.testing.assert_allclose(outward, seamed.vertices, atol=0.03)
    clipped = seamed.clip(seamed.canonical[:, 1] - 0.2)
    np.testing.assert_allclose(clipped.vertices[clipped.boundary(), 1], 0.2, atol=1e-4)


def test_inflating_moves_along_the_normals() -> None:
    cloth = inflate(sphere(), np.full(642, 0.1, np.float32))
    np.testing.assert_allclose(np.linalg.norm(cloth.vertices, axis=1), 1.1, atol=0.01)


def test_diffusion_keeps_constants_and_flattens_noise() -> None:
    cloth = sphere()
    np.testing.assert_allclose(cloth.smooth(np.full((642, 1), 3.0), 5), 3.0, rtol=1e-5)
    noise = np.random.default_rng(0).normal(size=(642, 1))
    assert cloth.smooth(noise, 5).std() < 0.4 * noise.std()


def test_smooth_noise_is_bounded_and_varies_slowly() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (2000, 3)).astype(np.float32)
    values = smooth_noise(points, np.random.default_rng(1), 0.5)
    near = smooth_noise(points + np.float32(0.005), np.random.default_rng(1), 0.5)
    assert np.abs(values).max() < 2.2
    assert values.std() > 0.2
    assert np.abs(values - near).max() < 0.5


def test_an_inner_ball_is_covered_by_an_outer_one_even_if_it_sank_a_little() -> None:
    inner = sphere(1.0)
    outward = inner.vertices.copy()
    for radius, expected in ((1.05, True), (0.98, True), (1.3, False), (0.9, False)):
        outer = sphere(radius)
        coverage = cover(inner.vertices, outward, [(outer.vertices, outer.faces)])
        assert coverage.hidden.all() == expected
        depth = 1 - radius if radius == 0.98 else 0
        np.testing.assert_allclose(coverage.sunk, depth, atol=0.004)  # facets lie a little under their ball
    assert not cover(inner.vertices, outward, []).hidden.any()


def test_only_what_lies_under_the_hem_is_covered() -> None:
    inner, outer = sphere(1.0), sphere(1.05)
    outer = outer.clip(outer.canonical[:, 1])
    mask = cover(inner.vertices, inner.vertices, [(outer.vertices, outer.faces)]).hidden
    assert mask[inner.vertices[:, 1] > 0.1].all()
    assert not mask[inner.vertices[:, 1] < -0.1].any()
    smaller = away_from_rim(mask, inner.faces, inner.weld, rings=2)
    assert smaller.sum() < mask.sum()
    assert not (smaller & ~mask).any()
    assert smaller[inner.vertices[:, 1] > 0.5].all()
