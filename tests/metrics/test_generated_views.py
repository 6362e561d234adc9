import pytest
import torch

from humansplat.metrics.generated_views import agreement, band_colors, score_generated


@pytest.fixture
def person() -> torch.Tensor:
    """Four views of a red box on blue legs before white, the side views narrower."""
    views = torch.ones(1, 4, 3, 32, 32)
    for view, half in enumerate((8, 4, 8, 4)):
        columns = slice(16 - half, 16 + half)
        views[:, view, :, 4:16, columns] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
        views[:, view, :, 16:28, columns] = torch.tensor([0.1, 0.1, 0.7])[:, None, None]
    return views


def test_views_of_one_thing_agree_and_a_wrong_one_is_found(person):
    same = agreement(person)
    assert same["front_back_color"].item() == pytest.approx(0, abs=1e-6)
    assert same["neighbour_color"].item() == pytest.approx(0, abs=1e-6)
    assert same["neighbour_height"].item() == 1
    wrong = person.clone()
    wrong[:, 2, 0, 4:16, 8:24] = 0.2  # the back is not as red, by 0.6 in one of three channels of half of it
    found = agreement(wrong)
    assert found["front_back_color"].item() == pytest.approx(0.1, abs=0.01)
    assert found["neighbour_color"].item() == pytest.approx(0.05, abs=0.01)  # two of the four pairs
    short = person.clone()
    short[:, 1, :, 4:10] = 1
    assert agreement(short)["neighbour_height"].item() == pytest.approx((18 / 24 + 1) / 2)


def test_bands_have_the_colours_of_what_is_not_white(person):
    colors, share = band_colors(person, 8)
    torch.testing.assert_close(colors[0, 0, 2], torch.tensor([0.8, 0.1, 0.1]))
    assert share[0, 0].tolist() == pytest.approx([0, *[0.5] * 6, 0])


def test_figures_are_those_of_the_generated_views(person):
    masks = (person.amin(dim=2) < 0.9).float()
    drawn = person.clone()
    drawn[:, 2] = (drawn[:, 2] + 0.1).clamp(max=1)
    figures = score_generated(drawn, person, masks)
    assert figures["psnr_left"].item() == figures["psnr_right"].item() == 99
    assert figures["psnr_box_back"].item() == pytest.approx(20.5, abs=0.5)
    assert figures["psnr"].item() == pytest.approx((99 * 2 + figures["psnr_back"].item()) / 3, rel=1e-4)
    assert figures["front_back_color"].item() > 0.05 > figures["front_back_color_true"].item()
