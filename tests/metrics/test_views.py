import math

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.metrics.views import SIDES, bearings, person_box, sides
from humansplat.structures import Cameras


def test_bearings_are_the_angles_of_the_orbit():
    axes = torch.tensor([[0.1, 0.9, 0.2], [1.0, 0.0, -1.0]])
    eyes = axes + torch.tensor([[0.0, 0.0, 3.0], [2.0, 0.5, -1.0]])
    views = look_at(eyes, axes, torch.tensor([0.0, 1.0, 0.0]))
    photos = Cameras(viewmats=views, Ks=intrinsics(0.5, 8, 8).expand(2, 3, 3), width=8, height=8)
    angles = torch.deg2rad(torch.tensor([0.0, 30.0, -100.0, 179.0]))
    found = bearings(photos, orbit(photos, axes, angles), axes)
    torch.testing.assert_close(found, angles.expand(2, 4), atol=1e-5, rtol=0)
    single = bearings(photos[1], orbit(photos, axes, angles)[1], axes[1])
    torch.testing.assert_close(single, found[1])


@pytest.mark.parametrize(
    ("degrees", "side"), [(0, "front"), (-44, "front"), (46, "side"), (-134, "side"), (136, "back"), (180, "back")]
)
def test_sides_by_bearing(degrees, side):
    assert SIDES[sides(torch.tensor(math.radians(degrees)))] == side


def test_the_box_of_a_person_has_a_margin_and_a_least_size():
    alpha = torch.zeros(2, 100, 100)
    alpha[0, 10:90, 40:60] = 1
    alpha[1, 50, 50] = 1
    boxes = person_box(alpha)
    assert boxes[0].tolist() == [36, 6, 64, 94]
    assert (boxes[1, 2:] - boxes[1, :2]).tolist() == [16, 16]
