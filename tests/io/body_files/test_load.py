"""Which format a file is of, whom it shows, and what is refused."""

import json
import pickle

import numpy as np
import pytest
import torch

from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics, look_at, project
from humansplat.io.body import write_body
from humansplat.io.body_files.load import FORMAT_NAMES, load_body_file
from humansplat.io.body_files.record import FocalCamera, PinholeCamera, WeakCamera
from humansplat.io.body_files.surfaces import lacks_faces
from humansplat.structures import Cameras, PosedBody

ROOT, BODY, SMPL_BODY, HAND = np.zeros((1, 3)), np.zeros((21, 3)), np.zeros((23, 3)), np.zeros((15, 3))


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "me.npz"


def test_the_model_follows_from_the_groups(path):
    def family(**more):
        return load_body_file(saved(path, global_orient=ROOT, **more)).family

    assert family(body_pose=SMPL_BODY) == "smpl"
    assert family(body_pose=BODY, jaw_pose=ROOT) == "smplx"
    assert family(body_pose=BODY, expression=np.zeros(10)) == "smplx"
    assert family(body_pose=BODY, model_type=np.array("SMPL+H")) == "smplh"
    assert load_body_file(saved(path, poses=np.zeros((1, 156)))).family == "smplh"
    assert load_body_file(saved(path, poses=np.zeros((1, 165)))).family == "smplx"
    assert load_body_file(saved(path, poses=np.zeros(72))).family == "smpl"


def test_a_model_that_cannot_be_told_is_asked_for(path):
    saved(path, global_orient=ROOT, body_pose=BODY)
    with pytest.raises(UserError, match="fits SMPL-H and SMPL-X alike; say which with --body-model"):
        load_body_file(path)
    assert load_body_file(path, model="smplx").rotations.shape == (55, 3)
    saved(path, global_orient=ROOT, body_pose=BODY, model=np.array("star"))
    with pytest.raises(UserError, match="a body of the model 'star'"):
        load_body_file(path)


def test_every_layout_lands_in_the_skeleton(path):
    poses = np.arange(165.0)[None] / 1000
    whole = load_body_file(saved(path, poses=poses))
    groups = {
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_jaw": poses[:, 66:69],
        "pose_eye": poses[:, 69:75],
        "pose_hand": poses[:, 75:],
    }
    apart = load_body_file(saved(path, **groups))
    torch.testing.assert_close(whole.rotations, torch.arange(165.0).reshape(55, 3) / 1000)
    torch.testing.assert_close(apart.rotations, whole.rotations)
    assert whole.missing == ("betas", "gender", "expression")


def test_hands_of_other_models_are_dropped_or_left_at_rest(path):
    longer = load_body_file(saved(path, global_orient=ROOT, body_pose=SMPL_BODY + 0.1), model="smplx")
    torch.testing.assert_close(longer.rotations[1:22], torch.full((21, 3), 0.1))
    assert longer.rotations[22:].abs().max() == 0
    assert longer.missing[:3] == ("jaw", "left eye", "right eye")
    shorter = load_body_file(saved(path, global_orient=ROOT, body_pose=BODY + 0.1), model="smpl")
    assert shorter.rotations[22:].abs().max() == 0


def test_hands_of_few_numbers_are_components(path):
    hands = {"left_hand_pose": np.ones((1, 12)), "right_hand_pose": np.ones((1, 12))}
    record = load_body_file(saved(path, global_orient=ROOT, body_pose=BODY, jaw_pose=ROOT, **hands))
    assert record.left_hand_pca.shape == (12,)
    assert record.adds_mean_hand
    assert "left hand" not in record.missing
    full = {"left_hand_pose": np.ones((1, 45)), "use_pca": np.array(True), "flat_hand_mean": np.array(True)}
    record = load_body_file(saved(path, global_orient=ROOT, body_pose=BODY, jaw_pose=ROOT, **full))
    assert record.left_hand_pca.shape == (45,)
    assert not record.adds_mean_hand
    assert "right hand" in record.missing


def test_people_in_lists_and_stacks(tmp_path):
    people = [{"id": i, "global_orient": [[0, 0, i / 10]], "body_pose": [[0] * 69], "gender": "f"} for i in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(people))
    (tmp_path / "b.json").write_text(json.dumps({"annots": people}))
    (tmp_path / "c.pkl").write_bytes(
        pickle.dumps({"pose": [np.tile(np.arange(3.0)[:, None] / 10, (1, 72))], "img": "me.png"})
    )
    for name in ("a.json", "b.json", "c.pkl"):
        with pytest.raises(UserError, match="holds 3 people or frames; choose one with --person 0 to 2"):
            load_body_file(tmp_path / name)
        record = load_body_file(tmp_path / name, person=2)
        assert (record.person, record.num_people) == (2, 3)
        assert record.rotations[0, 2] == pytest.approx(0.2)
        assert "person 2 of 3" in record.source
        with pytest.raises(UserError, match="holds no person 3; choose --person 0 to 2"):
            load_body_file(tmp_path / name, person=3)
    assert load_body_file(tmp_path / "a.json", person=0).gender == "female"


def test_people_of_several_pictures_are_counted_on(tmp_path):
    content = {"pose": [np.zeros((1, 72)), np.full((2, 72), 0.1)], "trans": [np.zeros((1, 3)), np.ones((2, 3))]}
    (tmp_path / "nlf.pkl").write_bytes(pickle.dumps({**content, "joints2d": [np.zeros((1, 24, 2))]}))
    record = load_body_file(tmp_path / "nlf.pkl", person=2)
    assert (record.format, record.num_people) == ("NLF", 3)
    assert record.rotations[5, 0] == pytest.approx(0.1)
    assert record.translation.tolist() == [1.0, 1.0, 1.0]


def test_stacks_of_different_numbers_are_refused(path):
    saved(path, global_orient=np.zeros((2, 3)), body_pose=np.zeros((3, 69)))
    with pytest.raises(UserError, match=r"stacks different numbers of people \(body 3, root 2\)"):
        load_body_file(path, person=0)


def test_three_styles_of_cameras(path):
    pose = {"global_orient": ROOT, "body_pose": SMPL_BODY, "transl": np.ones((1, 3))}
    record = load_body_file(saved(path, **pose, K=np.eye(3)[None]))
    assert isinstance(record.camera, PinholeCamera)
    record = load_body_file(
        saved(path, **pose, focal_length=np.array(500.0), width=np.array(640), height=np.array(480))
    )
    assert isinstance(record.camera, FocalCamera)
    assert (record.camera.focal.tolist(), record.camera.principal) == ([500.0, 500.0], None)
    assert record.image_size == (640, 480)
    record = load_body_file(saved(path, **pose, focal=np.array([500.0, 510.0]), princpt=np.array([1.0, 2.0])))
    assert record.camera.focal.tolist() == [500.0, 510.0]
    assert record.camera.principal.tolist() == [1.0, 2.0]
    crop = {"box_center": np.array([[10.0, 20.0]]), "box_size": np.array([100.0])}
    record = load_body_file(saved(path, **pose, weak_cam=np.array([[0.9, 0.1, 0.2]]), **crop))
    assert isinstance(record.camera, WeakCamera)
    assert (record.camera.scale, record.camera.side) == (pytest.approx(0.9), 100.0)
    assert record.translation is None
    assert load_body_file(saved(path, **pose)).frame == "unknown"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"K": np.eye(4)}, "K has the shape"),
        ({"focal": np.array([-1.0, 1.0])}, "it must be positive"),
        ({"body_cam": np.array([0.0, 0, 0]), "box_center": np.ones(2), "box_size": np.ones(1)}, "scale 0"),
        ({"K": np.eye(3), "R": 2 * np.eye(3), "T": np.zeros(3)}, "camera's rotation is none"),
        ({"gender": np.array("other")}, "the gender 'other' is none of"),
        ({"betas": np.array("many")}, "betas holds no array of numbers"),
        ({"transl": np.zeros(4)}, r"transl has the shape \(4,\); needed are 3 numbers"),
    ],
)
def test_what_makes_no_sense_is_refused(path, more, complaint):
    saved(path, global_orient=ROOT, body_pose=SMPL_BODY, **more)
    with pytest.raises(UserError, match=complaint):
        load_body_file(path)


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"score": np.zeros(3)}, "is of no known body format: it names score; needed are a pose"),
        ({"global_pose": ROOT, "body_cam": np.zeros(3)}, "none of which is the pose of a whole body"),
        ({"Rh": ROOT, "Th": ROOT}, "Rh and Th without poses"),
        ({"Rh": ROOT, "Th": ROOT, "poses": np.ones((1, 72))}, "both Rh and the first three poses turn the body"),
        ({"Rh": ROOT, "Th": ROOT, "poses": np.ones((1, 70))}, "poses of 70 numbers; EasyMocap has"),
        ({"vertices": np.random.default_rng(0).random((9, 3)) * 9}, "no person in metres, centimetres or millimetres"),
    ],
)
def test_files_without_a_body_are_refused(path, arrays, complaint):
    with pytest.raises(UserError, match=complaint):
        load_body_file(saved(path, **arrays))


def test_a_bare_array_and_an_empty_list_are_refused(tmp_path):
    np.save(tmp_path / "me.npy", np.zeros((10475, 3)))
    with pytest.raises(UserError, match=r"holds an array of shape \(10475, 3\) and no names"):
        load_body_file(tmp_path / "me.npy")
    (tmp_path / "me.json").write_text("[]")
    with pytest.raises(UserError, match="empty list of people"):
        load_body_file(tmp_path / "me.json")


def test_a_format_can_be_named(path):
    saved(path, poses=np.zeros((1, 156)), trans=np.zeros((1, 3)))
    assert load_body_file(path).frame == "unknown"
    assert load_body_file(path, format="amass").frame == "z_up"
    assert {"pixie", "hmr2", "hybrik-x", "smpler-x", "nlf", "amass", "easymocap", "sam3d"} <= set(FORMAT_NAMES)
    with pytest.raises(UserError, match="there is no body file format 'spin'"):
        load_body_file(path, format="spin")
    with pytest.raises(UserError, match=r"a mesh ends in \.obj or \.ply"):
        load_body_file(path, format="mesh")


FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
POINTS = np.array([[0.0, 0, 0], [0.4, 0, 0], [0, 0, 0.3], [0.1, 1.7, 0.1]])


def write_ply(path, points=POINTS, faces=FACES):
    lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(map(str, point)) for point in points.tolist()]
    lines += [" ".join(map(str, [3, *face])) for face in faces.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_meshes_keep_their_order_and_tell_their_unit(tmp_path):
    record = load_body_file(write_ply(tmp_path / "me.ply", 1000 * POINTS))
    assert (record.format, record.family, record.frame) == ("mesh", "mesh", "unknown")
    torch.testing.assert_close(record.vertices, torch.from_numpy(POINTS).float())
    np.testing.assert_array_equal(record.faces, FACES)
    assert record.warnings == ("me.ply is taken to be in millimetres, by its size",)
    obj = "\n".join(["v 0 0 0", "v 0.4 0 0", "v 0 1.7 0", "v 0 1.7 0.2", "vt 0 0", "f 1/1 2/1 3/1", "f 2/1 3/1 4/1"])
    (tmp_path / "me.obj").write_text(obj)
    assert load_body_file(tmp_path / "me.obj").vertices.shape == (4, 3)


def test_what_is_no_mesh_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no triangles"):
        load_body_file(write_ply(tmp_path / "points.ply", faces=np.zeros((0, 3), int)))
    (tmp_path / "me.obj").write_text("nothing")
    (tmp_path / "me.ply").write_bytes(b"ply\nnothing")
    for name in ("me.obj", "me.ply"):
        with pytest.raises(UserError, match=name):
            load_body_file(tmp_path / name)
    with pytest.raises(UserError, match="no such body file"):
        load_body_file(tmp_path / "none.obj")
    with pytest.raises(UserError, match="holds no person 1"):
        load_body_file(write_ply(tmp_path / "one.ply"), person=1)


@pytest.fixture
def sam3d(tmp_path, rng):
    """What SAM 3D Body writes of one person, small."""
    keypoints = torch.randn(70, 3, generator=rng) * torch.tensor([0.2, 0.5, 0.2])
    shift = torch.tensor([0.1, 0.2, 4.0])
    K = torch.tensor([[800.0, 0.0, 330.0], [0.0, 800.0, 220.0], [0.0, 0.0, 1.0]])
    pixels, _ = project(keypoints + shift, torch.eye(4), K)
    return saved(
        tmp_path / "me.npz",
        pred_vertices=POINTS,
        pred_cam_t=shift,
        pred_keypoints_3d=keypoints,
        pred_keypoints_2d=pixels,
        pred_joint_coords=np.zeros((127, 3)),
        mhr_model_params=np.zeros(204),
        bbox=np.zeros(4),
    )


def test_sam3d_gets_its_camera_from_keypoints_and_its_faces_from_the_mesh_beside_it(sam3d, tmp_path):
    record = load_body_file(sam3d)
    assert (record.format, record.faces) == ("SAM 3D Body", None)
    write_ply(tmp_path / "other.ply", points=np.concatenate([POINTS, POINTS]))
    write_ply(tmp_path / "zz_mesh_000.ply", points=POINTS + 7)
    record = load_body_file(sam3d)
    np.testing.assert_array_equal(record.faces, FACES)
    torch.testing.assert_close(record.vertices, torch.from_numpy(POINTS).float() + torch.tensor([0.1, 0.2, 4.0]))
    torch.testing.assert_close(record.camera.focal, torch.tensor([800.0, 800.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(record.camera.principal, torch.tensor([330.0, 220.0]), atol=0.05, rtol=0)
    with np.load(sam3d) as file:
        arrays = dict(file)
    torch.testing.assert_close(
        record.torso[1], torch.from_numpy(arrays["pred_keypoints_3d"][10] + arrays["pred_cam_t"]).float()
    )
    record = load_body_file(saved(sam3d, **arrays, focal_length=np.array(700.0), faces=FACES[:2]))
    assert (record.camera.focal.tolist(), len(record.faces)) == ([700.0, 700.0], 2)


def test_points_that_fit_no_camera_are_refused(sam3d):
    with np.load(sam3d) as file:
        arrays = dict(file)
    arrays["pred_keypoints_2d"] = arrays["pred_keypoints_2d"][::-1]
    with pytest.raises(UserError, match=r"disagree by [\d.]+ px|fit no camera"):
        load_body_file(saved(sam3d, **arrays))


def test_our_own_file_is_told_by_its_names(path):
    body = PosedBody(
        vertices=torch.from_numpy(POINTS).float(),
        joints=torch.zeros(2, 3),
        canonical=torch.from_numpy(POINTS).float(),
        faces=torch.from_numpy(FACES),
        parts=torch.zeros(4, dtype=torch.long),
    )
    view = look_at(torch.tensor([0.0, 1.0, 4.0]), torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    camera = Cameras(viewmats=view, Ks=intrinsics(0.5, 640, 480), width=640, height=480)
    write_body(body, camera, path)
    record = load_body_file(path)
    assert (record.format, record.image_size, record.frame) == ("humansplat", (640, 480), "world")
    torch.testing.assert_close(record.posed.vertices, body.vertices)
    torch.testing.assert_close(record.viewmat, view)
    assert not lacks_faces(path)
    write_body(body, camera, path, constants=False)
    assert lacks_faces(path)
    with pytest.raises(UserError, match="without its faces"):
        load_body_file(path)
    assert load_body_file(path, template=body).posed.faces.shape == (4, 3)
