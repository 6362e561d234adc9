"""Each program's file, written by its documented keys, gives the joints back, and shows them where it says."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.body.recorded import before_camera, moved, pose_record
from humansplat.errors import UserError
from humansplat.geometry.projection import project
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.io.body_files.load import load_body_file

sys.path.insert(0, str(Path(__file__).parent))
import estimator_files as files
from estimator_files import CENTRED, HEIGHT, WIDTH, K, make_person


@pytest.fixture
def person_of(smpl_folder, rng):
    def make(name, transl=(0.2, 0.1, 5.0), gender="neutral", **options):
        model = load_body_model(name, folder=smpl_folder, gender=gender, **options)
        return make_person(model, rng, transl=transl)

    return make


def shown(record, folder):
    """Joints in the camera's frame and in the picture."""
    recorded, camera = before_camera(record, pose_record(record, folder), WIDTH, HEIGHT)
    pixels, _ = project(recorded.body.joints, camera.viewmats, camera.Ks)
    return recorded.body.joints, pixels


def assert_shows(record, person, folder, intrinsics):
    joints, pixels = shown(record, folder)
    torch.testing.assert_close(joints, person.joints, atol=2e-4, rtol=0)
    torch.testing.assert_close(pixels, person.pixels(intrinsics), atol=0.05, rtol=0)


def test_pixie(person_of, smpl_folder, tmp_path):
    person = person_of("smplx", transl=(0.0, 0.0, 0.0))
    record = load_body_file(files.pixie(person, tmp_path))
    assert (record.format, record.family) == ("PIXIE", "smplx")
    assert record.missing == ("left eye", "right eye", "gender")
    eyes = torch.stack([person.parameters["leye_pose"], person.parameters["reye_pose"]])
    record = dataclasses.replace(record, rotations=torch.cat([record.rotations[:23], eyes, record.rotations[25:]]))
    joints, pixels = shown(record, smpl_folder)
    torch.testing.assert_close(joints[:, :2], person.joints[:, :2] + torch.tensor([0.05, 0.3]), atol=2e-4, rtol=0)
    side = 1.1 * 360
    in_crop = 0.9 * (person.joints[:, :2] + torch.tensor([0.05, 0.3]))
    torch.testing.assert_close(pixels, torch.tensor([300.0, 280.0]) + side / 2 * in_crop, atol=0.3, rtol=0)


def test_hmr2_by_its_crop(person_of, smpl_folder, tmp_path):
    person = person_of("smpl", transl=(0.0, 0.0, 0.0))
    shift = torch.tensor([0.05, 0.3, 2 * 5000 / (256 * 0.9)])
    box = {"box_center": torch.tensor([[300.0, 250.0]]), "box_size": torch.tensor([360.0])}
    path = files.hmr2(person, tmp_path, pred_cam_t=shift[None], **box)
    record = load_body_file(path)
    assert (record.format, record.family, record.missing) == ("HMR2", "smpl", ("gender",))
    _, pixels = shown(record, smpl_folder)
    focal = 5000 / 256 * 360
    crop = torch.tensor([[focal, 0.0, 300.0], [0.0, focal, 250.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(pixels, person.pixels(crop, shift), atol=0.05, rtol=0)


def test_hmr2_by_the_whole_picture(person_of, smpl_folder, tmp_path):
    person = person_of("smpl", transl=(0.0, 0.0, 0.0))
    shift = torch.tensor([0.3, 0.2, 40.0])
    for more in (
        {"scaled_focal_length": torch.tensor(12500.0)},
        {"img_size": torch.tensor([[float(WIDTH), float(HEIGHT)]])},
    ):
        record = load_body_file(files.hmr2(person, tmp_path, pred_cam_t_full=shift[None], **more))
        _, pixels = shown(record, smpl_folder)
        whole = CENTRED.clone()
        whole[0, 0] = whole[1, 1] = 12500.0
        torch.testing.assert_close(pixels, person.pixels(whole, shift), atol=0.05, rtol=0)
    with pytest.raises(UserError, match="add scaled_focal_length or img_size"):
        load_body_file(files.hmr2(person, tmp_path, pred_cam_t_full=shift[None]))


def test_camerahmr_stands_before_the_photos_own_camera(person_of, smpl_folder, tmp_path):
    person = person_of("smpl", transl=(0.0, 0.0, 0.0))
    shift = torch.tensor([0.3, 0.2, 4.0])
    record = load_body_file(files.hmr2(person, tmp_path, pred_cam_t=shift[None], cam_int=K[None]))
    _, pixels = shown(record, smpl_folder)
    torch.testing.assert_close(pixels, person.pixels(K, shift), atol=0.05, rtol=0)


def test_hmr2_without_its_box_has_no_camera(person_of, smpl_folder, tmp_path):
    record = load_body_file(files.hmr2(person_of("smpl"), tmp_path))
    assert record.camera is None
    with pytest.raises(UserError, match="names no camera; needed are K"):
        shown(record, smpl_folder)


def test_hybrik_x(person_of, smpl_folder, tmp_path):
    person = person_of("smplx")
    path = files.hybrik_x(person, tmp_path, people=3)
    with pytest.raises(UserError, match="holds 3 people or frames; choose one with --person 0 to 2"):
        load_body_file(path)
    record = load_body_file(path, person=2)
    assert (record.format, record.person, record.num_people, record.warnings) == ("HybrIK-X", 2, 3, ())
    assert_shows(record, person, smpl_folder, CENTRED)


def test_smpler_x_hands_are_offsets_from_the_mean_hand(person_of, smpl_folder, tmp_path):
    person = person_of("smplx", flat_hand_mean=False)
    record = load_body_file(files.smpler_x(person, tmp_path))
    assert (record.format, record.missing) == ("SMPLer-X", ("gender",))
    assert_shows(record, person, smpl_folder, K)


@pytest.mark.parametrize("name", ["smpl", "smplx"])
def test_nlf(name, person_of, smpl_folder, tmp_path):
    person = person_of(name)
    person.parameters.pop("expression", None)
    posed = person.model.pose(person.parameters)
    person = dataclasses.replace(person, joints=posed.joints)
    record = load_body_file(files.nlf(person, tmp_path))
    assert (record.format, record.family) == ("NLF", name)
    assert_shows(record, person, smpl_folder, K)


@pytest.mark.parametrize("name", ["smplh", "smplx"])
def test_amass(name, person_of, smpl_folder, tmp_path):
    person = person_of(name, gender="female")
    person.parameters.pop("expression", None)
    joints = person.model.joints_only(person.parameters)
    record = load_body_file(files.amass(person, tmp_path, frames=4), person=3)
    assert (record.format, record.family, record.gender, record.frame) == ("AMASS", name, "female", "z_up")
    recorded = pose_record(record, smpl_folder)
    torch.testing.assert_close(recorded.body.joints, joints, atol=2e-4, rtol=0)
    assert recorded.warnings == ()  # the coefficients beyond the model file's are zero


def test_easymocap_smpl_with_a_world_camera(person_of, smpl_folder, tmp_path):
    person = person_of("smpl")
    poses = torch.cat([torch.zeros(3), person.parameters["body_pose"]])
    turn = axis_angle_to_matrix(torch.tensor([0.1, 0.2, 0.3]))
    camera = {"K": K.tolist(), "R": turn.tolist(), "T": [0.1, -0.2, 0.5]}
    record = load_body_file(files.easymocap(person, tmp_path, poses, **camera))
    assert (record.format, record.family, record.frame) == ("EasyMocap", "smpl", "world")
    joints, pixels = shown(record, smpl_folder)
    seen = person.joints @ turn.T + torch.tensor([0.1, -0.2, 0.5])
    torch.testing.assert_close(joints, seen, atol=2e-4, rtol=0)
    torch.testing.assert_close(pixels, project(seen, torch.eye(4), K)[0], atol=0.05, rtol=0)


def test_easymocap_smplx_has_hands_as_components(person_of, smpl_folder, tmp_path):
    person = person_of("smplx", flat_hand_mean=False, num_pca_comps=6)
    names = ("body_pose", "left_hand_pose", "right_hand_pose", "jaw_pose", "leye_pose", "reye_pose")
    poses = torch.cat([torch.zeros(3), *(person.parameters[name] for name in names)])
    assert poses.shape == (87,)
    expression = [person.parameters["expression"].tolist()]
    record = load_body_file(files.easymocap(person, tmp_path, poses, expression=expression, K=K.tolist()))
    assert record.left_hand_pca.shape == (6,)
    assert_shows(record, person, smpl_folder, K)


@pytest.mark.parametrize("name", ["smpl", "smplh", "smplx"])
def test_parameters_by_the_names_of_smplx(name, person_of, smpl_folder, tmp_path):
    person = person_of(name, gender="male", flat_hand_mean=name == "smpl")
    numbers = person.numbers(*person.parameters)
    np.savez(tmp_path / "me.npz", **numbers, gender=np.array("male"), K=K.numpy(), model_type=np.array(name.upper()))
    record = load_body_file(tmp_path / "me.npz")
    assert (record.format, record.missing) == ("SMPL parameters", ())
    assert_shows(record, person, smpl_folder, K)


def test_a_scale_acts_before_the_shift(person_of, smpl_folder, tmp_path):
    person = person_of("smplx", flat_hand_mean=False)
    np.savez(tmp_path / "me.npz", **person.numbers(*person.parameters), scale=np.array([2.0]), K=K.numpy())
    body = pose_record(load_body_file(tmp_path / "me.npz"), smpl_folder).body
    transl = person.parameters["transl"]
    torch.testing.assert_close(body.joints, 2 * (person.joints - transl) + transl, atol=2e-4, rtol=0)
    assert body.parameters is None


def test_a_moved_body_moves_its_parameters(person_of):
    person = person_of("smplh")
    body = person.model.pose(person.parameters)
    turn, shift = axis_angle_to_matrix(torch.tensor([0.4, -1.0, 0.3])), torch.tensor([1.0, 2.0, 3.0])
    there = moved(body, turn, shift)
    again = person.model.pose(there.parameters)
    torch.testing.assert_close(again.vertices, body.vertices @ turn.T + shift, atol=1e-4, rtol=0)
    torch.testing.assert_close(there.vertices, again.vertices, atol=1e-4, rtol=0)


def test_missing_model_files_are_named(person_of, tmp_path):
    np.savez(tmp_path / "me.npz", **person_of("smpl").numbers("global_orient", "body_pose", "betas"), K=K.numpy())
    with pytest.raises(UserError, match="get it after registration"):
        pose_record(load_body_file(tmp_path / "me.npz"), tmp_path)


def test_another_photo_is_refused(person_of, smpl_folder, tmp_path):
    record = load_body_file(files.hybrik_x(person_of("smplx"), tmp_path))
    recorded = pose_record(record, smpl_folder)
    _, camera = before_camera(record, recorded, 2 * WIDTH, 2 * HEIGHT)
    assert camera.Ks[0, 0] == pytest.approx(1800.0, rel=1e-5)
    with pytest.raises(UserError, match="made from a picture of 640 x 480 px and the photo is 480 x 640 px"):
        before_camera(record, recorded, HEIGHT, WIDTH)


def test_a_body_behind_its_camera_is_refused(person_of, smpl_folder, tmp_path):
    person = person_of("smpl", transl=(0.0, 0.0, -5.0))
    np.savez(tmp_path / "me.npz", **person.numbers(*person.parameters), K=K.numpy())
    with pytest.raises(UserError, match="reaches behind its camera"):
        shown(load_body_file(tmp_path / "me.npz"), smpl_folder)
