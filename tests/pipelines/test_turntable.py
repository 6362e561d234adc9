import math

import pytest
import torch

from humansplat.errors import UserError
from humansplat.geometry.projection import project
from humansplat.pipelines.turntable import azimuth_of, render_frames, turntable_cameras
from humansplat.structures import Gaussians


@pytest.fixture
def pillar(rng):
    """Splats in an upright box that stands on the ground beside the origin."""
    n = 500
    return Gaussians(
        means=(torch.rand(n, 3, generator=rng) - torch.tensor([0.5, 0.0, 0.5])) * torch.tensor([0.6, 1.8, 0.3])
        + torch.tensor([1.0, 0.0, -2.0]),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(n, 4),
        scales=torch.full((n, 3), 0.01),
        opacities=torch.full((n,), 0.9),
        colors=torch.rand(n, 3, generator=rng),
    )


@pytest.mark.parametrize("elevation", [0.0, 0.5, -0.5])
def test_everything_stays_in_every_picture(pillar, elevation):
    cameras = turntable_cameras(pillar, frames=12, size=64, elevation=elevation)
    xy, depth = project(pillar.means.expand(12, -1, 3), cameras.viewmats, cameras.Ks)
    assert (depth > 0).all()
    assert (xy > 0).all()
    assert (xy < 64).all()
    assert (xy[..., 1].amax(dim=1) - xy[..., 1].amin(dim=1) > 32).all()  # and fills it


def test_the_first_camera_is_where_it_is_asked_to_be(pillar):
    for start in (0.0, 1.0, -2.0):
        cameras = turntable_cameras(pillar, frames=4, size=64, start=start)
        assert azimuth_of(cameras[0]) == pytest.approx(start, abs=1e-5)
        assert azimuth_of(cameras[1]) == pytest.approx(math.remainder(start + math.pi / 2, 2 * math.pi), abs=1e-5)


def test_strays_and_faint_splats_do_not_change_the_framing(pillar):
    cameras = turntable_cameras(pillar, frames=2, size=64)
    opacities = pillar.opacities.clone()
    opacities[:50] = 0.01
    means = pillar.means.clone()
    means[:50] *= 100
    noisy = Gaussians(means=means, quats=pillar.quats, scales=pillar.scales, opacities=opacities, colors=pillar.colors)
    moved = turntable_cameras(noisy, frames=2, size=64).centers - cameras.centers
    assert moved.norm(dim=-1).max() < 0.2


def test_frames_come_one_by_one_before_white(pillar):
    cameras = turntable_cameras(pillar, frames=5, size=32)
    frames = list(render_frames(pillar, cameras))
    assert [tuple(frame.shape) for frame in frames] == [(32, 32, 3)] * 5
    assert frames[0][0, 0].tolist() == [1, 1, 1]
    assert frames[0].min() < 0.8


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"size": 8}, {"elevation": math.pi / 2}])
def test_impossible_turntables_are_refused(pillar, wrong):
    with pytest.raises(UserError):
        turntable_cameras(pillar, **wrong)
