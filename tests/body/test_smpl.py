"""The SMPL family against the smplx package, on stand-ins: real files may not be handed out."""

import functools
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from humansplat.body.models import load_body_model
from humansplat.body.parts import PART_NAMES
from humansplat.body.protocol import BodyModel
from humansplat.body.smpl import SmplBody
from humansplat.body.smpl_files import NUM_JOINTS, SmplFile
from humansplat.body.smplx_module import create_smplx
from humansplat.errors import UserError

NAMES = ("smpl", "smplh", "smplx")
REAL_SIZE = {"smpl": 6890, "smplh": 6890, "smplx": 10475}


@pytest.fixture(scope="module")
def real_size(make_smpl_standin):
    """Stand-ins with as many vertices as the real models, for smplx looks at certain vertices."""

    @functools.cache
    def make(name):
        arrays = make_smpl_standin(name, num_vertices=REAL_SIZE[name])
        return SmplFile(name=name, gender="neutral", path=Path(f"{name}.npz"), arrays=arrays)

    return make


@pytest.fixture
def smplx():
    return pytest.importorskip("smplx", reason='compares with the smplx package: pip install "humansplat[smplx]"')


def random_parameters(body, rng, *batch):
    scales = {"betas": 2.0, "expression": 2.0, "transl": 1.0}
    return {
        name: scales.get(name, 0.4) * torch.randn(*batch, *shape, generator=rng)
        for name, shape in body.parameter_shapes.items()
    }


def assert_poses_agree(body, module, parameters):
    """Our and smplx's surface and joints, within 1e-5 m."""
    posed, theirs = body.pose(parameters), module(**parameters)
    torch.testing.assert_close(posed.vertices, theirs.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(posed.joints, theirs.joints[:, : len(body.joint_names)], atol=1e-5, rtol=0)
    assert (theirs.vertices - body.pose({}).vertices).norm(dim=-1).mean() > 0.1  # it was a pose


@pytest.mark.parametrize("name", NAMES)
def test_the_smpl_family_keeps_the_protocol(name, smpl_folder):
    body = load_body_model(name, folder=smpl_folder, gender="female")
    assert isinstance(body, BodyModel)
    assert all(hasattr(body, member) for member in vars(BodyModel) if not member.startswith("_"))
    neutral = body.neutral(2)
    assert {key: tuple(value.shape[1:]) for key, value in neutral.items()} == body.parameter_shapes
    assert len(body.joint_names) == len(body.joint_parents) == body.weights.shape[1] == NUM_JOINTS[name]
    posed = body.pose(neutral)
    assert (posed.model, posed.gender) == (name, "female")
    assert posed.parameters.keys() == body.parameter_shapes.keys()
    assert posed.vertices[..., 1].min().abs() < 1e-6
    assert body.canonical[:, 1].min().abs() < 1e-6
    assert posed.joints[0, 0, [0, 2]].abs().max() < 1e-6
    assert isinstance(body.subset(torch.tensor([3, 4])), BodyModel)


@pytest.mark.parametrize("name", NAMES)
def test_the_surface_is_that_of_smplx_which_reads_the_same_file(name, real_size, smplx, tmp_path, rng):
    arrays, options = dict(real_size(name).arrays), {}
    path = tmp_path / name / f"{name.upper()}_NEUTRAL"
    path.parent.mkdir()
    if name == "smpl":  # of which smplx reads pickles only
        arrays["J_regressor"] = scipy.sparse.csc_matrix(arrays["J_regressor"])
        with path.with_suffix(".pkl").open("wb") as file:
            pickle.dump(arrays, file, protocol=2)
    else:
        np.savez(path.with_suffix(".npz"), **arrays)
        options = {"ext": "npz", "use_pca": False, "flat_hand_mean": True}
    module = smplx.create(str(tmp_path), name, batch_size=3, **options)
    body = load_body_model(name, folder=tmp_path)
    assert body.parameter_shapes["body_pose"] == tuple(module.body_pose.shape[1:])
    assert_poses_agree(body, module, random_parameters(body, rng, 3))


@pytest.mark.parametrize(
    ("name", "flat_hand_mean", "num_pca_comps"), [("smplh", False, None), ("smplh", True, 6), ("smplx", False, 12)]
)
def test_hands_are_those_of_smplx(name, flat_hand_mean, num_pca_comps, real_size, smplx, rng):
    hands = {"flat_hand_mean": flat_hand_mean, "num_pca_comps": num_pca_comps}
    body = SmplBody(real_size(name), **hands)
    assert body.parameter_shapes["left_hand_pose"] == (num_pca_comps or 45,)
    assert_poses_agree(body, create_smplx(real_size(name), batch_size=2, **hands), random_parameters(body, rng, 2))


def test_smpl_is_handed_to_smplx_as_arrays(real_size, smplx, rng):
    body = SmplBody(real_size("smpl"))
    assert_poses_agree(body, create_smplx(real_size("smpl"), batch_size=2), random_parameters(body, rng, 2))


def test_all_300_shapes_and_100_expressions_are_those_of_smplx(make_smpl_standin, smplx, rng):
    arrays = make_smpl_standin("smplx", num_vertices=REAL_SIZE["smplx"], num_shapes=400)
    file = SmplFile(name="smplx", gender="male", path=Path("smplx.npz"), arrays=arrays)
    body = SmplBody(file)
    assert (body.num_betas, body.num_expression) == (300, 100)
    module = create_smplx(file, num_betas=300, num_expression=100, batch_size=1)
    parameters = random_parameters(body, rng, 1)
    parameters |= {"betas": parameters["betas"] / 4, "expression": parameters["expression"] / 4}
    assert_poses_agree(body, module, parameters)
    few = parameters | {"betas": parameters["betas"][:, :10], "expression": parameters["expression"][:, :10]}
    assert_poses_agree(body, create_smplx(file, batch_size=1), few)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_put_the_template_where_the_file_has_it(name, make_smpl_standin, smpl_folder):
    body = load_body_model(name, folder=smpl_folder)
    template = torch.from_numpy(make_smpl_standin(name)["v_template"]).float()
    torch.testing.assert_close(body.pose({"transl": torch.zeros(3)}).vertices, template, atol=1e-6, rtol=0)


def test_what_a_body_stores_poses_it_again_with_flat_rotated_hands(smpl_folder, rng):
    curled = load_body_model("smplx", folder=smpl_folder, flat_hand_mean=False, num_pca_comps=6)
    posed = curled.pose(random_parameters(curled, rng, 2))
    again = load_body_model(posed.model, folder=smpl_folder, gender=posed.gender).pose(posed.parameters)
    torch.testing.assert_close(again.vertices, posed.vertices, atol=1e-5, rtol=0)
    torch.testing.assert_close(again.canonical, posed.canonical)


def test_batches_broadcast_and_gradients_reach_every_parameter(smpl_folder, rng):
    body = load_body_model("smplx", folder=smpl_folder)
    parameters = {name: value.requires_grad_() for name, value in random_parameters(body, rng, 1).items()}
    parameters["betas"] = torch.randn(2, 1, 10, generator=rng, requires_grad=True)
    parameters["body_pose"] = torch.randn(3, 63, generator=rng, requires_grad=True)
    posed = body.pose(parameters)
    assert posed.vertices.shape == (2, 3, 600, 3)
    assert posed.parameters["jaw_pose"].shape == (2, 3, 3)
    one = {name: value.expand(2, 3, -1)[1, 2] for name, value in parameters.items()}
    torch.testing.assert_close(posed.vertices[1, 2], body.pose(one).vertices, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(body.joints_only(parameters), posed.joints)
    posed.vertices.square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in parameters.values())


def test_a_subset_is_posed_as_within_the_whole(smpl_folder, rng):
    body = load_body_model("smplh", folder=smpl_folder)
    ids = torch.cat([torch.arange(5, 20), torch.tensor([400, 100])])
    small, parameters = body.subset(ids), random_parameters(body, rng, 2)
    whole, part = body.pose(parameters), small.pose(parameters)
    torch.testing.assert_close(part.vertices, whole.vertices[:, ids], atol=1e-6, rtol=0)
    torch.testing.assert_close(part.joints, whole.joints)
    assert torch.equal(small.parts, body.parts[ids])
    assert torch.equal(ids[small.faces[0]], torch.tensor([5, 6, 7]))
    assert len(body.canonical) == 600  # the whole is as it was


@pytest.mark.parametrize("name", NAMES)
def test_vertices_belong_to_the_part_of_the_joint_that_pulls_them(name, smpl_folder):
    body = load_body_model(name, folder=smpl_folder)
    labels = {joint: PART_NAMES[body.parts[index]] for index, joint in enumerate(body.joint_names)}  # vertex j is at j
    assert set(labels.values()) == set(PART_NAMES)
    expected = {"pelvis": "hips", "left_knee": "leftLeg", "right_foot": "rightToeBase", "right_shoulder": "rightArm"}
    if name != "smpl":
        expected |= {"left_wrist": "leftHand", "left_thumb3": "leftHandIndex1", "right_ring1": "rightHandIndex1"}
    if name == "smplx":
        expected |= {"jaw": "head", "left_eye": "head"}
    assert {joint: labels[joint] for joint in expected} == expected


def test_texture_coordinates_of_the_file_are_kept(make_smpl_standin, tmp_path):
    arrays = make_smpl_standin("smplx")
    arrays["vt"], arrays["ft"] = np.random.default_rng(0).random((700, 2)), arrays["f"]
    np.savez(tmp_path / "SMPLX_MALE.npz", **arrays)
    body = load_body_model("smplx", folder=tmp_path, gender="male")
    assert body.uvs.shape == (700, 2)
    assert torch.equal(body.uv_faces, body.faces)
    small = body.subset(torch.tensor([7, 8, 9, 30]))
    assert small.uv_faces.tolist() == [[7, 8, 9]]


def test_wrong_parameters_are_named(smpl_folder):
    body = load_body_model("smpl", folder=smpl_folder)
    with pytest.raises(UserError, match="smpl has no parameter 'bodypose'; it has betas, global_orient, body_pose"):
        body.pose({"bodypose": torch.zeros(69)})
    with pytest.raises(UserError, match="body_pose has 63 numbers where this smpl model has 69"):
        body.pose({"body_pose": torch.zeros(63)})
    with pytest.raises(UserError, match="betas has 300 numbers where this smpl model has 10"):
        body.pose({"betas": torch.zeros(2, 300)})


def test_hands_that_a_file_lacks_are_missed_only_when_asked_for(make_smpl_standin, tmp_path):
    arrays = {key: value for key, value in make_smpl_standin("smplh").items() if not key.startswith("hands_")}
    np.savez(tmp_path / "SMPLH_MALE.npz", **arrays)
    male = {"folder": tmp_path, "gender": "male"}
    assert load_body_model("smplh", **male).parameter_shapes["left_hand_pose"] == (45,)
    with pytest.raises(UserError, match="has no hands_meanl"):
        load_body_model("smplh", **male, flat_hand_mean=False)
    with pytest.raises(UserError, match="has no hands_componentsl"):
        load_body_model("smplh", **male, num_pca_comps=6)
    with pytest.raises(UserError, match="1 to 45 principal components, not 46"):
        load_body_model("smplh", **male, num_pca_comps=46)


def test_options_that_a_model_has_not_are_refused(smpl_folder):
    with pytest.raises(UserError, match="smpl has no hand poses"):
        load_body_model("smpl", folder=smpl_folder, num_pca_comps=6)
    with pytest.raises(UserError, match="its gender is a phenotype"):
        load_body_model("anny", gender="male")
