import math

import pytest
import torch

from humansplat.data import crops
from humansplat.geometry.projection import intrinsics, look_at
from humansplat.structures import Cameras

SIZE = 64


@pytest.fixture
def framing():
    return crops.Framing(
        scale=torch.tensor([0.9, 1.3]),
        roll=torch.tensor([0.3, -0.2]),
        source=torch.tensor([[0.45, 0.55], [0.5, 0.5]]),
        target=torch.tensor([[0.5, 0.48], [0.55, 0.5]]),
    )


def dotted(places):
    """White pictures with one round black dot at ``places`` [n, 2] each."""
    centers = (torch.arange(SIZE) + 0.5) / SIZE
    x, y = torch.meshgrid(centers, centers, indexing="xy")
    distance = (torch.stack([x, y], -1) - places[:, None, None]).norm(dim=-1)
    alpha = ((3.0 / SIZE - distance) * SIZE + 0.5).clamp(0, 1)[:, None]
    return torch.cat([(1 - alpha).expand(-1, 3, -1, -1), alpha], dim=1)


def middle_of(alpha):
    """Centre of mass [n, 2], fractions of the side."""
    centers = (torch.arange(SIZE) + 0.5) / SIZE
    mass = alpha.sum(dim=(1, 2))
    return torch.stack([(alpha.sum(1) * centers).sum(1) / mass, (alpha.sum(2) * centers).sum(1) / mass], dim=-1)


def rectangle(left, top, right, bottom):
    alpha = torch.zeros(1, SIZE, SIZE)
    alpha[:, top:bottom, left:right] = 1.0
    return alpha


def level_camera(size=SIZE, focal_deg=32.0, height=0.9, down_deg=0.0):
    """At 4 m from the axis, looking at it at its own height or down."""
    eye = torch.tensor([[0.0, height + 4.0 * math.tan(math.radians(down_deg)), 4.0]])
    return Cameras(
        viewmats=look_at(eye, torch.tensor([[0.0, height, 0.0]]), torch.tensor([0.0, 1.0, 0.0])),
        Ks=intrinsics(math.radians(focal_deg), size, size)[None],
        width=size,
        height=size,
    )


def unchanged():
    middle = torch.full((1, 2), 0.5)
    return crops.Framing(scale=torch.ones(1), roll=torch.zeros(1), source=middle, target=middle)


@pytest.mark.parametrize("place", [(0.3, 0.4), (0.62, 0.7), (0.5, 0.25)])
def test_points_go_where_the_picture_goes(framing, place):
    places = torch.tensor([place, place])
    crop = crops.reframe(dotted(places), framing)
    seen = crops.framed_points(places[:, None], framing)[:, 0]
    torch.testing.assert_close(middle_of(crop[:, 3]), seen, atol=0.3 / SIZE, rtol=0)
    torch.testing.assert_close(middle_of(1 - crop[:, 0]), seen, atol=0.3 / SIZE, rtol=0)


def test_the_roll_is_clockwise_and_the_source_goes_to_the_target(framing):
    torch.testing.assert_close(crops.framed_points(framing.source[:, None], framing)[:, 0], framing.target)
    beside = crops.framed_points((framing.source + torch.tensor([0.1, 0.0]))[:, None], framing)[:, 0]
    sunk = (beside - framing.target)[:, 1]
    torch.testing.assert_close(sunk, 0.1 * framing.scale * framing.roll.sin())


def test_beyond_the_picture_is_white_and_empty(framing):
    shrunk = crops.Framing(
        scale=torch.full((1,), 0.5), roll=torch.zeros(1), source=framing.source[1:], target=framing.source[1:]
    )
    crop = crops.reframe(torch.cat([torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 1, SIZE, SIZE)], dim=1), shrunk)
    assert (crop[0, :3, 2] == 1).all()
    assert (crop[0, 3, 2] == 0).all()
    assert crop[0, 3].mean() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("box", [(10, 4, 30, 44), (20, 30, 60, 50)])
def test_the_canonical_crop_centres_the_box_and_fills_085(box):
    alpha = rectangle(*box)
    crop = crops.reframe(torch.cat([1 - alpha, 1 - alpha, 1 - alpha, alpha])[None], crops.canonical_framing(alpha))
    center, side = crops.box_center(crop[:, 3])
    torch.testing.assert_close(center, torch.full((1, 2), 0.5), atol=1 / SIZE, rtol=0)
    assert side.item() == pytest.approx(0.85, abs=1.5 / SIZE)


def test_drawn_framings_miss_the_canonical_crop_by_a_little(rng):
    alpha = rectangle(10, 4, 30, 44).expand(400, -1, -1)
    drawn, exact = crops.draw_framing(alpha, rng), crops.canonical_framing(alpha)
    size = (drawn.scale / exact.scale).log()
    assert size.abs().max() <= 0.08 + 1e-6
    assert size.std().item() == pytest.approx(0.03, rel=0.15)
    assert drawn.roll.std().item() == pytest.approx(math.radians(3.0), rel=0.15)
    assert (drawn.target - 0.5).std().item() == pytest.approx(0.01, rel=0.15)
    torch.testing.assert_close(drawn.source, exact.source)


def test_crop_units_of_a_level_camera_by_hand():
    points = torch.tensor([[[0.0, 0.9, 0.0], [0.5, 1.3, 0.8], [-0.3, 0.2, -0.4]]])
    focal = 0.5 / math.tan(math.radians(16.0))
    found = crops.crop_points(points, 0, level_camera(), unchanged())
    for (x, y, z), (u, v, depth) in zip(points[0].tolist(), found[0].tolist(), strict=True):
        assert u == pytest.approx(0.5 + focal * x / (4 - z), abs=1e-5)
        assert v == pytest.approx(0.5 - focal * (y - 0.9) / (4 - z), abs=1e-5)
        assert depth == pytest.approx(focal * ((4 - z) - 4) / 4, abs=1e-5)


def test_crop_units_scale_with_the_crop_in_all_three_directions(framing):
    points = torch.tensor([[[0.0, 0.9, 0.0], [0.5, 1.3, 0.8]]]).expand(2, -1, -1)
    camera = level_camera().map(lambda tensor: tensor.expand(2, *tensor.shape[1:]))
    whole = crops.crop_points(points, 0, camera, unchanged().map(lambda tensor: tensor.expand(2, *tensor.shape[1:])))
    crop = crops.crop_points(points, 0, camera, framing)
    torch.testing.assert_close(crop[..., :2], crops.framed_points(whole[..., :2], framing))
    torch.testing.assert_close(crop[..., 2], whole[..., 2] * framing.scale[:, None])


def test_crop_units_do_not_depend_on_the_pictures_size():
    points = torch.tensor([[[0.0, 0.9, 0.0], [0.5, 1.3, 0.8]]])
    small, large = (crops.crop_points(points, 0, level_camera(size), unchanged()) for size in (32, 512))
    torch.testing.assert_close(small, large, atol=1e-5, rtol=0)


def test_up_is_that_of_the_camera_turned_with_the_crop():
    level = crops.crop_up(level_camera(), unchanged())
    torch.testing.assert_close(level, torch.tensor([[0.0, -1.0, 0.0]]))
    down = crops.crop_up(level_camera(down_deg=20.0), unchanged())
    angle = math.radians(20.0)
    torch.testing.assert_close(down, torch.tensor([[0.0, -math.cos(angle), -math.sin(angle)]]), atol=1e-5, rtol=0)
    middle = torch.full((1, 2), 0.5)
    rolled = crops.Framing(scale=torch.full((1,), 2.0), roll=torch.full((1,), 0.4), source=middle, target=middle)
    up = crops.crop_up(level_camera(), rolled)
    above = torch.tensor([[[0.0, 0.9, 0.0], [0.0, 1.2, 0.0]]])
    flat = crops.crop_points(above, 0, level_camera(), rolled)[0, :, :2].diff(dim=0)
    torch.testing.assert_close(flat / flat.norm(), up[:, :2], atol=1e-5, rtol=0)


def test_inside_asks_for_all_points():
    points = torch.tensor([[[0.1, 0.9, 3.0], [0.5, 0.5, -3.0]], [[0.1, 0.9, 0.0], [1.01, 0.5, 0.0]]])
    assert crops.inside(points).tolist() == [True, False]


def test_spoilt_crops_stay_crops_and_follow_the_generator():
    clean = dotted(torch.rand(12, 2, generator=torch.Generator().manual_seed(1)))
    before = clean.clone()
    one, again, other = (crops.spoil(clean, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    torch.testing.assert_close(clean, before, atol=0, rtol=0)
    assert one.shape == clean.shape
    assert one.isfinite().all()
    assert one.min() >= 0
    assert one.max() <= 1
    torch.testing.assert_close(one, again, atol=0, rtol=0)
    assert ((one - other).abs().amax(dim=(1, 2, 3)) > 0.02).all()
    assert ((one - clean).abs().amax(dim=(1, 2, 3)) > 0.01).all()
