"""Points from several views: exact where views are, untouched by a few that are not."""

import math

import pytest
import torch

from humansplat.body.scan_triangulate import Sightings, exchanged, triangulate
from humansplat.geometry.projection import intrinsics, look_at, project, to_camera
from humansplat.structures import Cameras

SIZE = 256
MIRRORED = (0, 2, 1, 4, 3, 6, 5)


@pytest.fixture
def cameras():
    angles = torch.arange(8) * math.pi / 4
    eyes = torch.stack([4 * angles.sin(), 0.8 + 0.5 * angles.cos(), 4 * angles.cos()], dim=-1)
    views = look_at(eyes, torch.tensor([0.0, 0.9, 0.0]).expand(8, 3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmats=views, Ks=intrinsics(0.5, SIZE, SIZE).expand(8, 3, 3), width=SIZE, height=SIZE)


@pytest.fixture
def points(rng):
    return torch.rand(9, 3, generator=rng) * torch.tensor([0.8, 1.8, 0.5]) - torch.tensor([0.4, 0.0, 0.25])


@pytest.fixture
def sightings(cameras, points):
    pixels, _ = project(points.expand(8, -1, -1), cameras.viewmats, cameras.Ks)
    z = to_camera(points.expand(8, -1, -1), cameras.viewmats)[..., 2]
    depths = z / z[:, :1] - 1
    return Sightings(
        pixels=pixels,
        stds=torch.full_like(depths, 2.0),
        depths=depths,
        depth_stds=torch.full_like(depths, 0.02),
    )


@pytest.mark.parametrize("reference", [None, 0])
def test_points_that_all_views_see_come_back(sightings, cameras, points, reference):
    found = triangulate(sightings, cameras, reference=reference)
    assert (found.points - points).abs().max() < 1e-4
    assert found.agreement.min() > 0.99


def test_wild_views_of_a_point_do_not_pull(sightings, cameras, points):
    sightings.pixels[2, 3] += torch.tensor([90.0, -60.0])
    sightings.pixels[5, 3] -= torch.tensor([50.0, 80.0])
    found = triangulate(sightings, cameras)
    assert (found.points[3] - points[3]).norm() < 2e-3
    assert found.agreement[3] < 0.85 < found.agreement[4]


def test_noise_averages_out_and_is_told(sightings, cameras, points, rng):
    noisy = Sightings(
        pixels=sightings.pixels + 2.0 * torch.randn(sightings.pixels.shape, generator=rng), stds=sightings.stds
    )
    found = triangulate(noisy, cameras)
    errors = (found.points - points).norm(dim=-1)
    assert errors.mean() < 0.03
    assert 0.3 < float(errors.square().mean().sqrt() / (3**0.5 * found.stds.mean())) < 2.0


def test_views_that_exchange_left_and_right_are_read_the_other_way_round(sightings, cameras, points):
    twin = exchanged(sightings, MIRRORED)
    for view in (1, 4, 6):
        sightings.pixels[view, : len(MIRRORED)] = twin.pixels[view, : len(MIRRORED)]
        sightings.depths[view, : len(MIRRORED)] = twin.depths[view, : len(MIRRORED)]
    found = triangulate(sightings, cameras, mirrored=MIRRORED)
    assert found.swapped.nonzero()[:, 0].tolist() == [1, 4, 6]
    assert (found.points - points)[: len(MIRRORED)].abs().max() < 1e-3


def test_what_a_view_does_not_see_does_not_count(sightings, cameras, points):
    sightings.stds[:5, 2] = torch.inf
    sightings.pixels[:5, 2] = 0.0
    found = triangulate(Sightings(pixels=sightings.pixels, stds=sightings.stds), cameras)
    assert (found.points - points).abs().max() < 1e-3


def test_a_point_that_no_view_sees_is_told_as_unsure_and_harms_none(sightings, cameras, points):
    sightings.stds[:, 2] = torch.inf
    found = triangulate(Sightings(pixels=sightings.pixels, stds=sightings.stds), cameras)
    others = torch.arange(len(points)) != 2
    assert (found.points - points)[others].abs().max() < 1e-3
    assert found.points.isfinite().all()
    assert found.stds[2] > 1000 * found.stds[others].max()
    assert found.agreement[2] == 0


def test_one_view_is_refused(sightings, cameras):
    with pytest.raises(ValueError, match="two views"):
        triangulate(sightings[:1], cameras[:1])
