import dataclasses
import math

import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.placement import MAX_PITCH, fitted_to_box, into_world, place_before_crop
from humansplat.body.recorded import RecordedBody, moved
from humansplat.geometry.projection import intrinsics, project
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.structures import Cameras

SIDE = 256
CROP_TO_PHOTO = torch.tensor([[2.0, 0.0, 100.0], [0.0, 2.0, 40.0]])
ABOUT = torch.diag(torch.tensor([1.0, -1.0, -1.0]))


@pytest.fixture(scope="module")
def body():
    """Standing, one arm and one knee lifted, on the ground."""
    model = AnnyBody.load()
    rotations = torch.zeros(163, 3)
    rotations[model.joint_names.index("upperarm01.L")] = torch.tensor([0.0, 0.0, 0.7])
    rotations[model.joint_names.index("lowerleg01.R")] = torch.tensor([0.3, 0.0, 0.0])
    posed = model.pose({"rotations": rotations})
    root, ground = posed.joints[0], posed.vertices[:, 1].min()
    shift = -torch.stack([root[0], ground, root[2]])
    return moved(dataclasses.replace(posed, parameters=None), torch.eye(3), shift), model


def before(body, *, yaw=0.0, depth=3.7, x=0.0, pitch=0.0):
    """The body in the frame of a camera at a person's middle, whom it sees turned by ``yaw``."""
    posed, model = body
    turn = axis_angle_to_matrix(torch.tensor([0.0, yaw, 0.0]))
    tilt = axis_angle_to_matrix(torch.tensor([pitch, 0.0, 0.0]))
    rotation = tilt @ ABOUT @ turn
    middle = torch.tensor([0.0, 0.85, 0.0])
    seen = moved(posed, rotation, torch.tensor([x, 0.0, depth]) - rotation @ middle)
    index = [model.joint_names.index(f"{name}.{side}") for name in ("upperleg01", "upperarm01") for side in "LR"]
    return RecordedBody(body=seen, torso=seen.joints[index], is_bare=False)


def crop_pixels(vertices, camera):
    pixels, _ = project(vertices, camera.viewmats, camera.Ks)
    return (pixels - CROP_TO_PHOTO[:, 2]) / 2


def photo_camera(focal, principal=(356.0, 296.0)):
    K = torch.tensor([[focal, 0.0, principal[0]], [0.0, focal, principal[1]], [0.0, 0.0, 1.0]])
    return Cameras(viewmats=torch.eye(4), Ks=K, width=800, height=600)


def assert_in_house(placed):
    vertices, root = placed.body.vertices, placed.body.joints[0]
    assert vertices[:, 1].min().abs() < 1e-4
    assert root[[0, 2]].abs().max() < 1e-4
    hip_left, hip_right, left, right = placed.torso
    across = hip_left - hip_right + left - right
    assert across[0] > 0
    assert (across[2] / across[0]).abs() < 1e-3


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.5])
def test_the_canonical_camera_itself_is_found_again(body, yaw):
    recorded = before(body, yaw=yaw)
    camera = photo_camera(float(2 * intrinsics(math.radians(30), SIDE, SIDE)[0, 0]))
    placed, canonical, changed = place_before_crop(recorded, camera, CROP_TO_PHOTO, SIDE)
    assert changed < 0.01
    assert_in_house(placed)
    pixels, _ = project(placed.body.vertices, canonical.viewmats, canonical.Ks)
    torch.testing.assert_close(pixels, crop_pixels(recorded.body.vertices, camera), atol=0.05, rtol=0)
    # The person is where it was: the camera went around by as much as the body was turned.
    center = canonical.centers
    assert math.atan2(center[0], center[2]) == pytest.approx(-yaw, abs=0.002)
    torch.testing.assert_close(placed.body.vertices, body[0].vertices, atol=1e-3, rtol=0)


def test_a_camera_a_kilometre_away_shows_nearly_the_same_pixels(body):
    recorded = before(body, yaw=0.5, depth=1000.0)
    camera = photo_camera(1000.0 * 2 * 477.7 / 3.7)
    placed, canonical, changed = place_before_crop(recorded, camera, CROP_TO_PHOTO, SIDE)
    pixels, _ = project(placed.body.vertices, canonical.viewmats, canonical.Ks)
    off = (pixels - crop_pixels(recorded.body.vertices, camera)).norm(dim=-1)
    assert changed == pytest.approx(off.square().mean().sqrt(), abs=0.5)
    assert off.mean() < 2.5  # what nearness changes: the body is 0.4 m deep
    assert canonical.centers.norm() < 5.0
    assert_in_house(placed)


def test_a_person_beside_the_axis_of_a_wide_camera_keeps_its_pixels(body):
    recorded = before(body, yaw=0.3, x=1.5)
    focal = 2 * 477.7
    camera = photo_camera(focal, principal=(356.0 - focal * 1.5 / 3.7, 296.0))
    placed, canonical, changed = place_before_crop(recorded, camera, CROP_TO_PHOTO, SIDE)
    assert changed < 4.0  # what the picture's plane stretches 22 degrees from the axis
    pixels, _ = project(placed.body.vertices, canonical.viewmats, canonical.Ks)
    off = (pixels - crop_pixels(recorded.body.vertices, camera)).norm(dim=-1)
    assert off.mean() < 4.0


def test_who_stands_stands_upright_though_the_camera_looks_down(body):
    placed, canonical, _ = place_before_crop(before(body, pitch=0.12), photo_camera(2 * 477.7), CROP_TO_PHOTO, SIDE)
    torch.testing.assert_close(placed.body.vertices, body[0].vertices, atol=0.06, rtol=0)
    down = torch.asin(-canonical.viewmats[2, 1])
    assert 0.05 < down.abs() < 0.17
    assert canonical.viewmats[0, 1].abs() < 1e-5  # no roll


def test_the_camera_never_looks_down_further_than_networks_know(body):
    recorded = before(body)
    _, view = into_world(recorded, torch.tensor([0.0, -0.7, -0.7]))
    assert torch.asin(-view[2, 1]).abs() <= MAX_PITCH + 1e-5


def test_a_body_fills_a_box(body):
    posed, _ = body
    box = torch.tensor([60.0, 20.0, 180.0, 230.0])
    _, seen = fitted_to_box(posed, ABOUT, box, SIDE)
    pixels, depth = project(seen.vertices, torch.eye(4), intrinsics(math.radians(30), SIDE, SIDE))
    assert depth.min() > 1.0
    low, high = pixels.amin(dim=0), pixels.amax(dim=0)
    assert (high - low).max().item() == pytest.approx(210.0, abs=0.2)
    torch.testing.assert_close((low + high) / 2, torch.tensor([120.0, 125.0]), atol=0.2, rtol=0)
