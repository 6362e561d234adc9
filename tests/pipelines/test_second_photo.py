import math
from dataclasses import replace

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at, orbit
from humansplat.pipelines.second_photo import framed_as, painted
from humansplat.structures import Cameras, Gaussians

SIZE = 64


def test_the_second_photo_is_framed_as_the_body_is():
    outline = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    outline[8:56, 22:42] = True  # a trunk
    outline[20:26, 42:58] = True  # and an arm to the right
    photo = torch.zeros(4, SIZE, SIZE)
    photo[0] = 0.25
    color = torch.tensor([1.0, 0.5, 0.0])
    photo[3, 20:44, 5:15] = 1.0  # half as large, elsewhere
    photo[3, 26:29, 15:23] = 1.0
    photo[3, 18:20, 9:11] = 1.0  # and with a hat, so that the boxes differ
    photo[:3] = torch.where(photo[3] > 0, color.view(3, 1, 1), photo[:3])
    framed = framed_as(photo, outline)
    inside = framed[3] > 0.5
    assert (inside & outline).sum() / (inside | outline).sum() > 0.93
    torch.testing.assert_close(framed[:3, 14:52, 26:38], color.view(3, 1, 1).expand(3, 38, 12))


@pytest.mark.parametrize(("depth", "behind_is_painted"), [(0.2, True), (0.02, True), (-0.2, False)])
def test_what_the_second_photo_shows_gets_its_colours(depth, behind_is_painted):
    """A sheet of splats that faces the first camera, and one ``depth`` behind it."""
    view = look_at(torch.tensor([0.0, 0.0, 3.0]), torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]))
    first = Cameras(viewmats=view, Ks=intrinsics(math.radians(30), SIZE, SIZE), width=SIZE, height=SIZE)
    second = orbit(first, torch.zeros(3), torch.tensor([math.pi]))[0]
    steps = torch.linspace(-0.4, 0.4, 21)
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    sheet = torch.stack([x, y, torch.zeros_like(x)], dim=-1).flatten(0, 1)
    n = len(sheet)
    splats = Gaussians(
        means=torch.cat([sheet, sheet - torch.tensor([0.0, 0.0, depth])]),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(2 * n, 4),
        scales=torch.tensor([0.03, 0.03, 0.002]).expand(2 * n, 3),
        opacities=torch.full((2 * n,), 0.95),
        colors=torch.full((2 * n, 3), 0.5),
    )
    photo = torch.ones(4, SIZE, SIZE) * torch.tensor([1.0, 0.0, 0.0, 1.0]).view(4, 1, 1)
    photo[3, :, : SIZE // 2] = 0.0  # its person fills the right half: -X, seen from behind
    made = painted(splats, photo, second, first)
    assert torch.equal(made.means, splats.means)
    inner = (sheet[:, :2].abs() < 0.3).all(dim=1)
    right, left = (sheet[:, 0] < -0.05) & inner, (sheet[:, 0] > 0.05) & inner
    before, behind = made.colors[:n], made.colors[n:]
    red, grey = torch.tensor([1.0, 0.0, 0.0]), torch.full((3,), 0.5)
    if not behind_is_painted:  # then the second sheet is the first camera's front, and the first one is painted
        before, behind = behind, before
    torch.testing.assert_close(behind[right], red.expand(int(right.sum()), 3), atol=0.1, rtol=0)
    torch.testing.assert_close(behind[left], grey.expand(int(left.sum()), 3), atol=0.02, rtol=0)
    torch.testing.assert_close(before[inner], grey.expand(int(inner.sum()), 3), atol=0.02, rtol=0)
    assert torch.equal(replace(made, colors=splats.colors).opacities, splats.opacities)
