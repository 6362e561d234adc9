"""A body of somebody else's in place of the fitted one, on a person whose every pixel is known."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.body.anny import AnnyBody
from humansplat.body.fit_report import BodyFit
from humansplat.body.fit_silhouette import draw_silhouette
from humansplat.body.models import load_body_model
from humansplat.capture.capture import Capture
from humansplat.capture.graph import graph_path
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at, project, to_camera
from humansplat.io.body import write_body
from humansplat.io.body_files.load import load_body_file
from humansplat.pipelines.given_body import given_body
from humansplat.structures import Cameras

SIDE = 128
SIZE = (400, 600)
TO_PHOTO = torch.tensor([[2.0, 0.0, 40.0], [0.0, 2.0, 100.0]])


@pytest.fixture(scope="module")
def fit():
    """The mean adult, seen from the left of the front."""
    body = AnnyBody.load().pose({})
    eye = torch.tensor([3.75 * math.sin(0.6), 0.85, 3.75 * math.cos(0.6)])
    view = look_at(eye, torch.tensor([0.0, 0.85, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    camera = Cameras(viewmats=view, Ks=intrinsics(math.radians(30), SIDE, SIDE), width=SIDE, height=SIDE)
    return BodyFit(
        body=body,
        camera=camera,
        landmarks=torch.zeros(33, 2),
        landmark_error_px=0.0,
        landmark_error_fraction=0.0,
        silhouette_iou=1.0,
    )


@pytest.fixture(scope="module")
def capture(fit):
    pixels, _ = project(fit.body.vertices, fit.camera.viewmats, fit.camera.Ks)
    return Capture(
        image=torch.zeros(3, SIDE, SIDE),
        mask=draw_silhouette(pixels, fit.body.faces, SIDE).float(),
        landmarks=torch.zeros(33, 2),
        visibility=torch.ones(33),
        world_landmarks=torch.zeros(33, 3),
        crop_to_photo=TO_PHOTO,
        score=1.0,
    )


@pytest.fixture
def photo_camera(fit):
    """The fit's camera in the pixels of the photo."""
    homogeneous = torch.cat([TO_PHOTO, torch.tensor([[0.0, 0.0, 1.0]])])
    return Cameras(viewmats=fit.camera.viewmats, Ks=homogeneous @ fit.camera.Ks, width=SIZE[0], height=SIZE[1])


def never():
    raise AssertionError("the file says everything; nothing is to be fitted")


def write_mesh(path, vertices, faces):
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    path.write_text("\n".join(lines))
    return path


def shown(placed):
    return project(placed.body.vertices, placed.camera.viewmats, placed.camera.Ks)[0]


def test_our_own_file_keeps_its_camera(fit, capture, photo_camera, tmp_path):
    write_body(fit.body, photo_camera.resized(800, 1200), tmp_path / "body.npz")
    record = load_body_file(tmp_path / "body.npz")
    placed = given_body(record, capture, SIZE, never)
    assert placed.warnings == ()
    torch.testing.assert_close(placed.camera.Ks, fit.camera.Ks, atol=1e-3, rtol=0)
    torch.testing.assert_close(placed.body.vertices, fit.body.vertices)


def test_vertices_before_a_camera_stay_where_they_show(fit, capture, photo_camera, tmp_path):
    before = to_camera(fit.body.vertices, fit.camera.viewmats)
    np.savez(tmp_path / "me.npz", vertices=before, faces=fit.body.faces, K=photo_camera.Ks)
    placed = given_body(load_body_file(tmp_path / "me.npz"), capture, SIZE, lambda: fit)
    pixels, _ = project(fit.body.vertices, fit.camera.viewmats, fit.camera.Ks)
    torch.testing.assert_close(shown(placed), pixels, atol=0.05, rtol=0)
    # Parts and canonical positions come from the fitted body, which is the same one here.
    assert (placed.body.parts == fit.body.parts).float().mean() > 0.99
    assert (placed.body.canonical - fit.body.canonical).norm(dim=-1).median() < 0.005
    assert placed.body.joints.shape == fit.body.joints.shape
    assert placed.body.model.startswith("mesh ")


@pytest.mark.parametrize(("name", "unit"), [("house", 1.0), ("turned camera", 1000.0), ("z up", 100.0)])
def test_meshes_in_any_axes_and_unit_cover_the_person(name, unit, fit, capture, tmp_path):
    house = fit.body.vertices
    before = to_camera(house, fit.camera.viewmats)
    vertices = {
        "house": house,
        "turned camera": before * torch.tensor([1.0, -1.0, -1.0]),
        "z up": house[:, [0, 2, 1]] * torch.tensor([1.0, -1.0, 1.0]),
    }[name]
    record = load_body_file(write_mesh(tmp_path / "me.obj", unit * vertices, fit.body.faces))
    placed = given_body(record, capture, SIZE, lambda: fit)
    pixels, _ = project(fit.body.vertices, fit.camera.viewmats, fit.camera.Ks)
    assert (shown(placed) - pixels).norm(dim=-1).mean() < 1.0
    assert placed.body.vertices[:, 1].min().abs() < 1e-4
    torch.testing.assert_close(placed.body.vertices, fit.body.vertices, atol=0.03, rtol=0)
    assert any("names no camera" in warning for warning in placed.warnings)
    assert any("by its size" in warning for warning in placed.warnings) == (unit != 1.0)


def test_a_mesh_that_is_no_such_person_is_refused(fit, capture, tmp_path):
    lying = fit.body.vertices[:, [1, 0, 2]] * torch.tensor([1.0, 0.2, 1.0])
    record = load_body_file(write_mesh(tmp_path / "me.obj", lying, fit.body.faces.flip(1)))
    with pytest.raises(UserError, match="covers the person of the photo badly in every reading of its axes"):
        given_body(record, capture, SIZE, lambda: fit)


def test_parameters_stand_in_the_house_world(fit, capture, photo_camera, smpl_folder, tmp_path):
    model = load_body_model("smpl", folder=smpl_folder)
    turn = torch.tensor([math.pi, 0.0, 0.0])
    middle = to_camera(torch.tensor([[0.0, 0.9, 0.0]]), fit.camera.viewmats)[0]
    parameters = {"global_orient": turn, "body_pose": torch.zeros(69), "betas": torch.zeros(10), "transl": middle}
    numbers = {name: value.numpy() for name, value in parameters.items()}
    np.savez(tmp_path / "me.npz", **numbers, K=photo_camera.Ks.numpy(), model=np.array("smpl"))
    placed = given_body(load_body_file(tmp_path / "me.npz"), capture, SIZE, never, smpl_folder)
    body = placed.body
    assert (body.model, body.vertices[:, 1].min().abs() < 1e-4) == ("smpl", True)
    assert body.joints[0][[0, 2]].abs().max() < 1e-4
    assert body.joints[15, 1] > body.joints[0, 1] + 0.4  # the head is above the pelvis
    assert body.joints[16, 0] > 0.1  # the left shoulder is at +X
    own = model.pose(parameters)
    pixels, _ = project(own.joints, torch.eye(4), torch.linalg.inv(torch.eye(3)) @ fit.camera.Ks)
    seen, _ = project(body.joints, placed.camera.viewmats, placed.camera.Ks)
    torch.testing.assert_close(seen, pixels, atol=0.5, rtol=0)
    again = model.pose(body.parameters)
    torch.testing.assert_close(again.joints, body.joints, atol=1e-3, rtol=0)


def test_frames_of_a_z_up_world_face_as_the_fitted_body(fit, capture, smpl_folder, tmp_path):
    np.savez(
        tmp_path / "walk.npz",
        poses=np.tile(np.concatenate([[math.pi / 2, 0, 0], np.zeros(153)]), (5, 1)),
        trans=np.zeros((5, 3)),
        betas=np.zeros(16),
        gender=np.array("neutral"),
        mocap_framerate=np.array(120.0),
    )
    record = load_body_file(tmp_path / "walk.npz", person=4)
    standing = load_body_model("smplh", folder=smpl_folder).pose({})
    pixels, _ = project(standing.vertices, fit.camera.viewmats, fit.camera.Ks)
    mask = draw_silhouette(pixels, standing.faces, SIDE).float()
    seen, fitted = dataclasses.replace(capture, mask=mask), dataclasses.replace(fit, body=standing)
    placed = given_body(record, seen, SIZE, lambda: fitted, smpl_folder)
    assert placed.body.joints[15, 1] > placed.body.joints[0, 1] + 0.4
    assert placed.body.joints[16, 0] > 0.1
    azimuth = torch.atan2(placed.camera.centers[0], placed.camera.centers[2])
    assert azimuth.item() == pytest.approx(0.6, abs=0.05)


def test_a_photo_is_reconstructed_with_the_parameters_of_another_program(
    tiny_reconstructor, smpl_folder, tmp_path, monkeypatch
):
    photo = Path(__file__).parents[2] / "examples" / "person.png"
    if not photo.is_file() or not graph_path().is_file():
        pytest.skip("the example photo or the pose graph is missing; reconstructing any photo fetches the latter")
    monkeypatch.setenv("HUMANSPLAT_BODY_MODELS", str(smpl_folder))
    np.savez(
        tmp_path / "me.npz",
        global_orient=np.array([math.pi, 0.0, 0.0]),
        body_pose=np.zeros(69),
        transl=np.array([0.0, 0.0, 4.0]),
        K=np.array([[1200.0, 0, 320], [0, 1200.0, 320], [0, 0, 1]]),
    )
    person = tiny_reconstructor(photo, body=tmp_path / "me.npz")
    assert person.body.model == "smpl"
    write_body(person.body, person.photo_camera, tmp_path / "body.npz")
    record = load_body_file(tmp_path / "body.npz")
    assert (record.format, record.family) == ("humansplat", "smpl")
    # Saved and read again it shows where the file's own camera showed it: the pelvis of the stand-in is near 0.
    pixels, _ = project(record.posed.joints[:1], record.viewmat, record.camera.K)
    torch.testing.assert_close(pixels[0], torch.tensor([320.0, 320.0]), atol=8.0, rtol=0)
