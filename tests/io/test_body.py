import numpy as np
import pytest
import torch

from humansplat.body.models import load_body_model
from humansplat.errors import UserError
from humansplat.geometry.projection import intrinsics
from humansplat.io.body import read_body, write_body
from humansplat.structures import Cameras, PosedBody


@pytest.fixture
def body(rng):
    return PosedBody(
        vertices=torch.randn(5, 3, generator=rng),
        joints=torch.randn(2, 3, generator=rng),
        canonical=torch.randn(5, 3, generator=rng),
        faces=torch.tensor([[0, 1, 2], [2, 3, 4]]),
        parts=torch.tensor([0, 1, 2, 3, 23]),
        parameters={"rotations": torch.randn(2, 3, generator=rng), "translation": torch.zeros(3)},
    )


@pytest.fixture
def camera():
    return Cameras(viewmats=torch.eye(4), Ks=intrinsics(0.5, 64, 48), width=64, height=48)


def test_everything_comes_back(body, camera, tmp_path):
    write_body(body, camera, tmp_path / "body.npz")
    again, seen_by = read_body(tmp_path / "body.npz")
    for name in ("vertices", "joints", "canonical", "faces", "parts"):
        torch.testing.assert_close(getattr(again, name), getattr(body, name), atol=0, rtol=0)
    assert again.model == "anny"
    assert again.parameters is not None
    assert again.parameters.keys() == body.parameters.keys()
    torch.testing.assert_close(again.parameters["rotations"], body.parameters["rotations"])
    torch.testing.assert_close(seen_by.Ks, camera.Ks)
    assert (seen_by.width, seen_by.height) == (64, 48)


def test_the_documented_arrays_are_in_the_file(body, camera, tmp_path):
    write_body(body, camera, tmp_path / "body.npz")
    with np.load(tmp_path / "body.npz", allow_pickle=False) as file:
        assert file["vertices"].shape == (5, 3)
        assert file["joints"].shape == (2, 3)
        assert file["viewmat"].shape == (4, 4)
        assert file["vertices"].dtype == np.float32


def test_the_same_body_gives_the_same_bytes(body, camera, tmp_path):
    write_body(body, camera, tmp_path / "a.npz")
    write_body(body, camera, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_template_gives_what_a_data_set_leaves_out(body, camera, tmp_path):
    write_body(body, camera, tmp_path / "body.npz", constants=False)
    again, _ = read_body(tmp_path / "body.npz", template=body)
    torch.testing.assert_close(again.faces, body.faces)
    with pytest.raises(UserError, match="without its faces"):
        read_body(tmp_path / "body.npz")


def test_a_body_may_lack_parameters(body, camera, tmp_path):
    bare = PosedBody(
        vertices=body.vertices, joints=body.joints, canonical=body.canonical, faces=body.faces, parts=body.parts
    )
    write_body(bare, camera, tmp_path / "body.npz")
    assert read_body(tmp_path / "body.npz")[0].parameters is None


def test_a_body_of_the_smpl_family_can_be_posed_again(smpl_folder, camera, tmp_path, rng):
    model = load_body_model("smplx", folder=smpl_folder, gender="male")
    posed = model.pose({name: torch.randn(shape, generator=rng) / 4 for name, shape in model.parameter_shapes.items()})
    for constants in (True, False):
        write_body(posed, camera, tmp_path / "body.npz", constants=constants)
        again, _ = read_body(tmp_path / "body.npz", template=model.pose({}))
        assert (again.model, again.gender) == ("smplx", "male")
        assert again.parameters.keys() == model.parameter_shapes.keys()
        same = load_body_model(again.model, folder=smpl_folder, gender=again.gender).pose(again.parameters)
        torch.testing.assert_close(same.vertices, posed.vertices, atol=1e-5, rtol=0)
    other = load_body_model("smplx", folder=smpl_folder, gender="female")
    with pytest.raises(UserError, match="without its faces"):
        read_body(tmp_path / "body.npz", template=other.pose({}))


def test_parameters_cannot_take_the_name_of_another_array(body, camera, tmp_path):
    clash = PosedBody(
        vertices=body.vertices,
        joints=body.joints,
        canonical=body.canonical,
        faces=body.faces,
        parts=body.parts,
        parameters={"joints": torch.zeros(3)},
    )
    with pytest.raises(ValueError, match="cannot be called joints"):
        write_body(clash, camera, tmp_path / "body.npz")


def test_batches_are_refused(body, camera, tmp_path):
    many = Cameras(viewmats=torch.eye(4)[None], Ks=camera.Ks[None], width=64, height=48)
    with pytest.raises(ValueError, match="one body and one camera"):
        write_body(body, many, tmp_path / "body.npz")


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken"])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "body.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a body file"):
        read_body(tmp_path / "body.npz")


def test_a_lone_array_and_pickles_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    np.savez(tmp_path / "b.npz", vertices=np.array([{"a": 1}], dtype=object))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(UserError, match="not a body file"):
            read_body(tmp_path / name)


def test_missing_files_and_arrays_are_named(tmp_path):
    with pytest.raises(UserError, match="no such body file"):
        read_body(tmp_path / "body.npz")
    np.savez(tmp_path / "body.npz", vertices=np.zeros((3, 3)))
    with pytest.raises(UserError, match="lacks K, height, joints"):
        read_body(tmp_path / "body.npz")
