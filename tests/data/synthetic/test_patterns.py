import numpy as np
import pytest

from humansplat.data.synthetic.appearance import hair_color, skin_texture, tint_hair
from humansplat.data.synthetic.figure import Template
from humansplat.data.synthetic.patterns import PATTERNS, canvas, cloth_color, draw_pattern, recolor, shading, weave

SQUARE = np.array([[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]], np.float32)
CORNERS = np.array([[-0.2, 1.0, 0.1], [0.2, 1.0, 0.1], [0.2, 1.4, 0.1], [-0.2, 1.4, 0.1]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3]])


def test_a_canvas_knows_where_its_pixels_lie(template: Template) -> None:
    square = canvas(template, SQUARE, FACES, CORNERS, 32)
    assert len(square.pixels) == 16 * 16
    row, column = np.divmod(square.pixels, 32)
    np.testing.assert_allclose(square.points[:, 0], ((column + 0.5) / 32 - 0.5) * 0.8, atol=1e-5)
    np.testing.assert_allclose(square.points[:, 1], 1.2 - ((row + 0.5) / 32 - 0.5) * 0.8, atol=1e-5)
    painted = square.finish(np.repeat(square.points[:, :1] + 0.5, 3, axis=1))
    assert (painted[:, 0] == painted[:, 8]).all()  # the island bleeds to the texture's edge
    np.testing.assert_allclose(square.sample(painted)[:, 0] / 255, square.points[:, 0] + 0.5, atol=0.005)


@pytest.mark.parametrize("name", sorted(PATTERNS))
def test_every_pattern_paints_a_repeatable_picture(template: Template, name: str) -> None:
    square = canvas(template, SQUARE, FACES, CORNERS, 64)
    colors = [np.array(color, np.float32) for color in ([0.1, 0.1, 0.4], [0.9, 0.8, 0.1], [0.8, 0.1, 0.1])]
    first, second = (PATTERNS[name][1](square, colors, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == square.points.shape
    assert first.min() >= -1e-6
    assert first.max() <= 1 + 1e-6
    if name not in ("plain", "gradient"):
        assert first.std(0).max() > 0.02


def test_patterns_differ_from_seed_to_seed(template: Template) -> None:
    square = canvas(template, SQUARE, FACES, CORNERS, 32)
    drawn = [draw_pattern(square, np.random.default_rng(seed)) for seed in range(30)]
    assert len({name for _, name in drawn}) >= 6
    assert len({tuple(image.mean(0).round(3)) for image, _ in drawn}) == 30


def test_folds_of_a_photograph_survive_recolouring(template: Template) -> None:
    square = canvas(template, SQUARE, FACES, CORNERS, 64)
    photo = np.full((64, 64, 4), 120, np.uint8)
    photo[:, 30:33, :3] = 60  # a seam
    folds = shading(photo, square)
    assert folds.min() < 0.8
    assert np.median(folds) == pytest.approx(1, abs=0.1)
    colors = square.sample(photo)[:, :3].astype(np.float32) / 255
    for seed in range(5):
        shifted = recolor(colors, np.random.default_rng(seed))
        seam = folds < 0.8
        assert shifted[seam].mean() < shifted[~seam].mean()
        assert 0 <= shifted.min() <= shifted.max() <= 1
    woven = weave(colors, square, np.random.default_rng(0))
    assert np.abs(woven - colors).mean() < 0.1


def test_cloth_colours_are_colours() -> None:
    rng = np.random.default_rng(0)
    colors = np.stack([cloth_color(rng) for _ in range(300)])
    assert 0 <= colors.min() <= colors.max() <= 1
    assert colors.std(0).min() > 0.15


def test_skin_keeps_its_details_and_changes_its_tone() -> None:
    texture = np.full((16, 16, 4), [200, 150, 120, 255], np.uint8)
    texture[4, 4, :3] = [120, 60, 50]  # a mole
    tones = []
    for seed in range(8):
        moved, place = skin_texture(texture, "young_caucasian_male", np.random.default_rng(seed))
        assert moved[4, 4].mean() < moved[8, 8].mean()
        tones.append(place)
    assert np.ptp(tones) > 1


def test_hair_takes_a_colour_and_keeps_its_alpha() -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (16, 16, 4), dtype=np.uint8)
    color = hair_color(rng, tone=1.0, age=0.7)
    tinted = tint_hair(texture, color, rng)
    np.testing.assert_array_equal(tinted[..., 3], texture[..., 3])
    assert 0 <= color.min() <= color.max() <= 1
