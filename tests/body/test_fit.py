"""Fits of bodies whose pose is known, seen through their own exact landmarks and silhouette."""

import math
from dataclasses import dataclass

import pytest
import torch

from humansplat.body.fit import BodyFitter, fit_body
from humansplat.body.fit_report import judged
from humansplat.body.fit_silhouette import draw_silhouette
from humansplat.body.fit_start import about_x, camera_pitch, torso_orientation
from humansplat.body.landmarks import MIRRORED_LANDMARKS, landmark_points
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at, project
from humansplat.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from humansplat.structures import Cameras

SIDE = 128
BODY_JOINTS = ("head", "upperarm01", "lowerarm01", "wrist", "upperleg01", "lowerleg01", "foot")


@pytest.fixture(scope="module")
def fitter(body):
    return BodyFitter(body)


@dataclass
class Scene:
    """A posed person before the canonical camera."""

    body: object
    camera: Cameras
    landmarks: torch.Tensor
    world: torch.Tensor
    mask: torch.Tensor


def scene(fitter, azimuth_deg, pose=None):
    """A person in a pose (degrees by name of the angle) seen from an azimuth."""
    space, model = fitter.space, fitter.model
    angles = space.mean.clone()
    for name, value in (pose or {}).items():
        angles[space.index[name]] = math.radians(value)
    rotations = fitter.relaxed.clone()
    rotations[fitter.landmark_rig.joint_ids] = matrix_to_axis_angle(space.rotations(angles))
    posed = model.pose({"rotations": rotations})
    middle = (posed.vertices.amax(0) + posed.vertices.amin(0)) / 2
    azimuth = math.radians(azimuth_deg)
    eye = middle + 4.2 * torch.tensor([math.sin(azimuth), 0.0, math.cos(azimuth)])
    view = look_at(eye, middle, torch.tensor([0.0, 1.0, 0.0]))
    camera = Cameras(viewmats=view, Ks=intrinsics(math.radians(30), SIDE, SIDE), width=SIDE, height=SIDE)
    points = landmark_points(posed, fitter.landmarks)
    seen = points @ view[:3, :3].mT
    return Scene(
        body=posed,
        camera=camera,
        landmarks=project(points, view, camera.Ks)[0],
        world=seen - seen[[23, 24]].mean(0),
        mask=draw_silhouette(project(posed.vertices, view, camera.Ks)[0], posed.faces, SIDE).float(),
    )


def fitted(fitter, seen):
    return fitter(seen.landmarks, torch.ones(33), seen.world, seen.mask)


def azimuth_deg(fit):
    x, _, z = fit.camera.centers.tolist()
    return math.degrees(math.atan2(x, z))


def joint_error(fitter, fit, seen):
    """Mean distance of the main joints in the camera's axes, the roots put together, metres."""
    names = fitter.model.joint_names
    chosen = [i for i, name in enumerate(names) if name.removesuffix(".L").removesuffix(".R") in BODY_JOINTS]
    found, true = (
        joints @ camera.viewmats[:3, :3].mT
        for joints, camera in ((fit.body.joints, fit.camera), (seen.body.joints, seen.camera))
    )
    return ((found - found[0]) - (true - true[0]))[chosen].norm(dim=-1).mean().item()


@pytest.mark.parametrize(
    ("azimuth", "pose"),
    [
        (30.0, {"arm_raise.L": 40.0, "elbow_flexion.R": 80.0, "hip_flexion.L": 35.0, "knee_flexion.L": 50.0}),
        (170.0, {"arm_forward.R": 50.0, "knee_flexion.R": 40.0}),
    ],
)
def test_a_person_is_found_again_from_the_front_and_from_behind(fitter, azimuth, pose):
    seen = scene(fitter, azimuth, pose)
    fit = fitted(fitter, seen)
    assert joint_error(fitter, fit, seen) < 0.045
    assert azimuth_deg(fit) == pytest.approx(azimuth, abs=12)
    assert fit.silhouette_iou > 0.88
    assert fit.landmark_error_px < 0.01 * SIDE
    assert fit.landmark_error_fraction == pytest.approx(fit.landmark_error_px / (0.85 * SIDE), rel=0.25)
    assert fit.warnings == ()

    vertices, root = fit.body.vertices, fit.body.joints[0]
    assert vertices[:, 1].min().abs() < 1e-4
    torch.testing.assert_close(root[[0, 2]], torch.zeros(2), atol=1e-5, rtol=0)
    right, down, forward = fit.camera.viewmats[:3, :3]
    assert right[1].abs() < 1e-5  # no roll
    assert forward[1].abs() <= math.sin(math.radians(10.0)) + 1e-5
    assert down[1] < -0.9
    left = fit.body.joints[fitter.model.joint_names.index("upperleg01.L")]
    assert left[0] > 0.05  # the person's left is +X: the torso faces +Z


def test_the_mirrored_picture_gives_the_mirrored_body(fitter):
    seen = scene(fitter, 20.0, {"arm_raise.L": 60.0, "hip_abduction.R": 25.0})
    plain = fitted(fitter, seen)
    order = list(MIRRORED_LANDMARKS)
    landmarks = (seen.landmarks * torch.tensor([-1.0, 1.0]) + torch.tensor([SIDE, 0.0]))[order]
    world = (seen.world * torch.tensor([-1.0, 1.0, 1.0]))[order]
    mirrored = fitter(landmarks, torch.ones(33), world, seen.mask.flip(1))
    assert azimuth_deg(mirrored) == pytest.approx(-azimuth_deg(plain), abs=4)
    names = fitter.model.joint_names
    for name in ("wrist", "foot", "lowerarm01"):
        ours, theirs = (
            fit.body.joints[names.index(f"{name}.{side}")] for fit, side in ((plain, "L"), (mirrored, "R"))
        )
        torch.testing.assert_close(theirs, ours * torch.tensor([-1.0, 1.0, 1.0]), atol=0.05, rtol=0)


def test_a_knee_that_the_detector_bends_forwards_is_bent_backwards(fitter):
    seen = scene(fitter, 10.0, {"hip_flexion.L": 30.0, "knee_flexion.L": 65.0})
    world = seen.world.clone()
    world[[27, 29, 31], 2] = 2 * world[25, 2] - world[[27, 29, 31], 2]
    fit = fitter(seen.landmarks, torch.ones(33), world, seen.mask)
    assert joint_error(fitter, fit, seen) < 0.06


def test_a_mask_of_something_else_is_warned_about(fitter):
    seen = scene(fitter, 0.0)
    wrong = torch.zeros(SIDE, SIDE)
    wrong[: SIDE // 3, : SIDE // 3] = 1.0
    visibility = torch.ones(33)
    good = judged(seen.body, seen.camera, fitter.landmarks, seen.landmarks, visibility, seen.mask)
    assert good.warnings == ()
    assert good.silhouette_iou == 1.0
    assert good.landmark_error_px < 1e-3
    bad = judged(seen.body, seen.camera, fitter.landmarks, seen.landmarks + 20.0, visibility, wrong)
    assert len(bad.warnings) == 2


def test_what_cannot_be_fitted_is_refused(body, fitter):
    seen = scene(fitter, 0.0)
    with pytest.raises(UserError, match="mask is empty"):
        fit_body(seen.landmarks, torch.ones(33), seen.world, torch.zeros(SIDE, SIDE), body)
    with pytest.raises(UserError, match="not numbers"):
        fit_body(seen.landmarks * math.nan, torch.ones(33), seen.world, seen.mask, body)


def test_the_torso_orientation_of_rest_landmarks_is_the_identity(fitter, body):
    points = landmark_points(body.pose({}), fitter.landmarks)
    turn = axis_angle_to_matrix(torch.tensor([0.2, 1.0, -0.3]))
    found = torso_orientation(points @ turn.mT) @ torso_orientation(points).mT
    torch.testing.assert_close(found, turn, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pitch_deg", [-6.0, 0.0, 8.0])
def test_a_person_who_leans_with_the_camera_stands_upright(body, fitter, pitch_deg):
    points = landmark_points(body.pose({}), fitter.landmarks)
    pitch = torch.tensor(math.radians(pitch_deg))
    flat = torch.stack([0.5 + 0.3 * points[:, 0], 0.9 - 0.3 * points[:, 1]], dim=-1)
    found, upright = camera_pitch(points @ about_x(pitch).mT, flat)
    _, reference = camera_pitch(points, flat)
    assert found.item() == pytest.approx(0.8 * pitch.item(), abs=math.radians(3.0))
    torch.testing.assert_close(
        upright @ about_x(found), reference @ about_x(camera_pitch(points, flat)[0]), atol=1e-3, rtol=0
    )


def test_a_body_that_lies_towards_the_camera_is_not_raised(body, fitter):
    points = landmark_points(body.pose({}), fitter.landmarks) @ about_x(torch.tensor(1.2)).mT
    pitch, world = camera_pitch(points, torch.full((33, 2), 0.5))
    assert pitch == 0.0
    torch.testing.assert_close(world, points)
