import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at, project
from humansplat.geometry.rays import camera_rays, pixel_centers, plucker
from humansplat.structures import Cameras


@pytest.fixture
def cameras(rng):
    eyes = torch.randn(3, 3, generator=rng) + torch.tensor([0.0, 0.0, 4.0])
    views = look_at(eyes, torch.zeros(3, 3), torch.tensor([0.0, 1.0, 0.0]))
    return Cameras(viewmats=views, Ks=intrinsics(0.7, 12, 8).expand(3, 3, 3), width=12, height=8)


def test_points_on_a_ray_project_onto_its_pixel(cameras):
    origins, directions = camera_rays(cameras)
    assert origins.shape == directions.shape == (3, 8, 12, 3)
    points = (origins + 2.5 * directions).flatten(1, 2)
    xy, _ = project(points, cameras.viewmats, cameras.Ks)
    torch.testing.assert_close(xy.unflatten(1, (8, 12)), pixel_centers(12, 8).expand(3, 8, 12, 2), atol=1e-4, rtol=0)


def test_rays_start_at_the_camera_and_have_unit_directions(cameras):
    origins, directions = camera_rays(cameras)
    torch.testing.assert_close(origins[:, 0, 0], cameras.centers)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(3, 8, 12))


def test_rays_of_cells_are_rays_of_the_smaller_image(cameras):
    _, coarse = camera_rays(cameras, stride=4)
    _, expected = camera_rays(cameras.resized(3, 2))
    torch.testing.assert_close(coarse, expected)


def test_a_stride_that_does_not_divide_is_refused(cameras):
    with pytest.raises(ValueError, match="stride 5 does not divide the image size 12 x 8"):
        camera_rays(cameras, stride=5)


def test_pluecker_coordinates_forget_where_on_the_ray_they_were_taken(cameras):
    origins, directions = camera_rays(cameras)
    moved = plucker(origins + 1.7 * directions, directions)
    torch.testing.assert_close(moved, plucker(origins, directions), atol=1e-5, rtol=1e-5)


def test_moment_and_direction_are_perpendicular(cameras):
    moment, direction = plucker(*camera_rays(cameras)).split(3, dim=-1)
    torch.testing.assert_close((moment * direction).sum(dim=-1), torch.zeros(3, 8, 12), atol=1e-5, rtol=0)
    distance = moment.norm(dim=-1)  # of the ray from the world's origin
    nearest = torch.linalg.cross(direction, moment)
    torch.testing.assert_close(nearest.norm(dim=-1), distance)
