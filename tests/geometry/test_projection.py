import math

import pytest
import torch

from humansplat.geometry.projection import intrinsics, look_at, orbit, project, rigid, to_camera, unproject
from humansplat.structures import Cameras

UP = torch.tensor([0.0, 1.0, 0.0])


def random_eyes(rng, batch):
    eyes = torch.randn(*batch, 3, generator=rng)
    eyes[..., 1] *= 0.3  # clear of the poles
    return 2.0 * eyes / eyes.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_view_matrices_are_rigid_and_right_handed(rng, batch):
    view = look_at(random_eyes(rng, batch), torch.zeros(*batch, 3), UP)
    rotation = view[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(batch))
    torch.testing.assert_close(view[..., 3, :], torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(*batch, 4))


def test_the_target_lands_on_the_principal_point_at_its_distance(rng):
    eye = random_eyes(rng, (4,))
    K = intrinsics(0.9, 256, 192).expand(4, 3, 3)
    xy, depth = project(torch.zeros(4, 1, 3), look_at(eye, torch.zeros(4, 3), UP), K)
    torch.testing.assert_close(xy, torch.tensor([[128.0, 96.0]]).expand(4, 1, 2))
    torch.testing.assert_close(depth, torch.full((4, 1), 2.0))


def test_a_camera_centre_is_where_the_eye_was_put(rng):
    eye = random_eyes(rng, (3,))
    cameras = Cameras(viewmats=look_at(eye, torch.zeros(3, 3), UP), Ks=torch.eye(3).expand(3, 3, 3), width=8, height=8)
    torch.testing.assert_close(cameras.centers, eye)
    torch.testing.assert_close(to_camera(eye[:, None], cameras.viewmats), torch.zeros(3, 1, 3), atol=1e-6, rtol=0)


def test_degenerate_up_is_refused():
    with pytest.raises(ValueError, match="parallel"):
        look_at(torch.tensor([0.0, 2.0, 0.0]), torch.zeros(3), UP)


def test_the_field_of_view_spans_the_larger_side():
    K = intrinsics(math.pi / 2, 400, 200)
    assert K[0, 0].item() == pytest.approx(200.0)
    assert K[1, 1].item() == pytest.approx(200.0)
    assert K[:2, 2].tolist() == [200.0, 100.0]


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_unprojecting_undoes_projecting(rng, batch):
    view = look_at(random_eyes(rng, batch), torch.zeros(*batch, 3), UP)
    K = intrinsics(0.6, 128, 128).expand(*batch, 3, 3)
    points = 0.5 * torch.randn(*batch, 7, 3, generator=rng)
    xy, depth = project(points, view, K)
    torch.testing.assert_close(unproject(xy, depth, view, K), points, atol=2e-5, rtol=1e-4)


def test_projection_has_right_gradients(rng):
    points = torch.randn(2, 3, generator=rng, dtype=torch.float64).requires_grad_()
    view = look_at(torch.tensor([0.3, 0.2, 4.0]).double(), torch.zeros(3).double(), UP.double()).requires_grad_()
    K = intrinsics(0.6, 64, 64).double()
    assert torch.autograd.gradcheck(lambda p, v: project(p, v, K), (points, view))


def test_rigid_matrices_move_points_as_their_parts_do(rng):
    rotation = look_at(random_eyes(rng, ()), torch.zeros(3), UP)[:3, :3]
    translation = torch.randn(3, generator=rng)
    point = torch.randn(3, generator=rng)
    moved = rigid(rotation, translation) @ torch.cat([point, torch.ones(1)])
    torch.testing.assert_close(moved[:3], rotation @ point + translation)


class TestOrbit:
    @pytest.fixture
    def camera(self):
        view = look_at(torch.tensor([0.3, 1.2, 4.0]), torch.tensor([0.1, 0.9, 0.2]), UP)
        return Cameras(viewmats=view, Ks=intrinsics(0.5, 64, 64), width=64, height=64)

    def test_azimuth_zero_is_the_camera_itself(self, camera):
        carried = orbit(camera, torch.tensor([0.1, 0.9, 0.2]), torch.zeros(1))
        torch.testing.assert_close(carried.viewmats[0], camera.viewmats)
        assert (carried.width, carried.height) == (64, 64)

    def test_every_camera_sees_the_axis_at_the_same_pixels(self, camera):
        center = torch.tensor([0.1, 0.9, 0.2])
        carried = orbit(camera, center, torch.linspace(-3, 3, 7))
        axis = (center + torch.tensor([[0.0, -0.7, 0.0], [0.0, 0.0, 0.0], [0.0, 0.7, 0.0]])).expand(7, 3, 3)
        xy, depth = project(axis, carried.viewmats, carried.Ks)
        torch.testing.assert_close(xy, xy[:1].expand_as(xy), atol=1e-3, rtol=0)
        torch.testing.assert_close(depth, depth[:1].expand_as(depth))

    def test_a_positive_azimuth_goes_from_z_towards_x(self):
        view = look_at(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 1.0, 0.0]), UP)
        camera = Cameras(viewmats=view, Ks=intrinsics(0.5, 64, 64), width=64, height=64)
        carried = orbit(camera, torch.zeros(3), torch.tensor([math.pi / 2]))
        torch.testing.assert_close(carried.centers[0], torch.tensor([3.0, 1.0, 0.0]), atol=1e-5, rtol=0)

    def test_batched_cameras_orbit_each_their_own_axis(self, camera):
        centers = torch.tensor([[0.1, 0.9, 0.2], [1.0, 0.0, -1.0]])
        both = Cameras(viewmats=camera.viewmats.expand(2, 4, 4), Ks=camera.Ks.expand(2, 3, 3), width=64, height=64)
        azimuths = torch.tensor([0.0, 1.0, 2.0])
        together = orbit(both, centers, azimuths)
        assert together.viewmats.shape == (2, 3, 4, 4)
        assert together.Ks.shape == (2, 3, 3, 3)
        for i in range(2):
            torch.testing.assert_close(together.viewmats[i], orbit(camera, centers[i], azimuths).viewmats)
