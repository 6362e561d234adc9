import os
import pickle

import numpy as np
import pytest
import scipy.sparse

from humansplat.body.models import load_body_model
from humansplat.body.smpl_files import find_smpl_files, read_smpl_file
from humansplat.errors import UserError


@pytest.fixture
def smpl(make_smpl_standin):
    return make_smpl_standin("smpl", num_vertices=48)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("smpl", ["smpl/SMPL_NEUTRAL.pkl", "smpl/SMPL_MALE.pkl", "smpl/SMPL_FEMALE.npz"]),
        ("smpl", [f"basicmodel_{gender}_lbs_10_207_0_v1.1.0.pkl" for gender in ("neutral", "m", "f")]),
        ("smpl", ["basicModel_neutral_lbs_10_207_0_v1.0.0.pkl", "smpl/smpl_male.pkl", "smpl/SMPL_FEMALE.PKL"]),
        ("smplh", ["SMPLH_NEUTRAL.npz", "SMPLH_male.pkl", "SMPLH_female.pkl"]),
        ("smplh", ["smplh/neutral/model.npz", "smplh/male/model.npz", "smplh/female/model.npz"]),
        ("smplx", ["smplx/SMPLX_NEUTRAL.npz", "smplx/SMPLX_MALE.npz", "smplx/SMPLX_FEMALE.npz"]),
    ],
)
def test_files_are_found_as_they_come_and_as_smplx_wants_them(name, files, tmp_path):
    touch(tmp_path, *files, "smplx_readme.txt", "mano/MANO_RIGHT.pkl")
    found = find_smpl_files(name, tmp_path)
    assert {found[gender] for gender in ("neutral", "male", "female")} == {tmp_path / file for file in files}


def test_arrays_go_before_pickles_and_models_are_not_mixed_up(tmp_path):
    touch(tmp_path, "smplx/SMPLX_MALE.pkl", "smplx/SMPLX_MALE.npz", "smplx/SMPL_MALE.pkl", "male/model.npz")
    assert find_smpl_files("smplx", tmp_path) == {"male": tmp_path / "smplx" / "SMPLX_MALE.npz"}
    assert find_smpl_files("smpl", tmp_path) == {}
    touch(tmp_path, "smplx_locked_head/female/model.npz")
    assert find_smpl_files("smplx", tmp_path / "smplx_locked_head").keys() == {"female"}
    assert find_smpl_files("smpl", tmp_path / "smplx_locked_head") == {}


def test_a_pickle_and_arrays_of_one_model_are_one_model(smpl, tmp_path):
    np.savez(tmp_path / "SMPL_MALE.npz", **smpl)
    sparse = {**smpl, "J_regressor": scipy.sparse.csc_matrix(smpl["J_regressor"]), "bs_type": "lrotmin"}
    (tmp_path / "SMPL_FEMALE.pkl").write_bytes(pickle.dumps(sparse, protocol=2))
    male, female = (read_smpl_file("smpl", tmp_path, gender) for gender in ("male", "female"))
    assert male.arrays.keys() == female.arrays.keys() == smpl.keys()
    for key in smpl:
        np.testing.assert_array_equal(male.arrays[key], female.arrays[key])
    assert read_smpl_file("smpl", tmp_path / "SMPL_FEMALE.pkl", "female").path == tmp_path / "SMPL_FEMALE.pkl"


def test_an_official_pickle_of_python_2_is_read_without_chumpy(smpl, chumpy, python2_pickle, tmp_path, monkeypatch):
    by_chumpy = {key: chumpy("Ch", x=smpl[key]) for key in ("v_template", "posedirs", "weights")}
    chosen = np.arange(48 * 3 * 10)
    by_chumpy["shapedirs"] = chumpy(
        "Select", a=chumpy("Ch", x=smpl["shapedirs"]), idxs=chosen, preferred_shape=(48, 3, 10)
    )
    sparse = {"J_regressor": scipy.sparse.csc_matrix(smpl["J_regressor"])}
    path = tmp_path / "basicModel_m_lbs_10_207_0_v1.0.0.pkl"
    path.write_bytes(python2_pickle({**smpl, **by_chumpy, **sparse, "bs_style": "lbs"}))
    monkeypatch.undo()  # no chumpy while it is read
    arrays = read_smpl_file("smpl", tmp_path, "male").arrays
    for key in smpl:
        np.testing.assert_array_equal(arrays[key], smpl[key])


def test_a_hostile_model_file_is_refused_in_one_sentence(smpl, tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch '{tmp_path / 'canary'}'",)

    (tmp_path / "SMPL_MALE.pkl").write_bytes(pickle.dumps({**smpl, "note": Hostile()}, protocol=2))
    with pytest.raises(UserError, match=r"SMPL_MALE.pkl asks for '.*\.system' while it is read") as refused:
        load_body_model("smpl", folder=tmp_path, gender="male")
    assert "\n" not in str(refused.value)
    np.savez(tmp_path / "SMPL_FEMALE.npz", **{**smpl, "weights": np.array(Hostile(), dtype=object)})
    with pytest.raises(UserError, match=r"'weights' in .*SMPL_FEMALE.npz asks for '.*\.system'"):
        load_body_model("smpl", folder=tmp_path, gender="female")
    assert not (tmp_path / "canary").exists()


def test_flat_bases_are_unfolded(smpl, tmp_path):
    flat = {**smpl, "shapedirs": smpl["shapedirs"].reshape(144, 10), "posedirs": smpl["posedirs"].reshape(144, 207).T}
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **flat)
    arrays = read_smpl_file("smpl", tmp_path).arrays
    for key in ("shapedirs", "posedirs"):
        np.testing.assert_array_equal(arrays[key], smpl[key])


def test_the_folder_comes_from_the_environment(smpl, tmp_path, monkeypatch):
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **smpl)
    monkeypatch.setenv("HUMANSPLAT_BODY_MODELS", str(tmp_path))
    assert load_body_model("smpl").canonical.shape == (48, 3)
    monkeypatch.delenv("HUMANSPLAT_BODY_MODELS")
    with pytest.raises(UserError, match=r"registration at https://smpl-x.is.tue.mpg.de .*HUMANSPLAT_BODY_MODELS"):
        load_body_model("smplx")


def test_missing_files_are_named_with_where_to_register(smpl, tmp_path):
    with pytest.raises(
        UserError, match="has no smpl/SMPL_NEUTRAL.npz or .pkl, nor any other smpl.*https://smpl.is.tue"
    ):
        load_body_model("smpl", folder=tmp_path)
    np.savez(tmp_path / "SMPL_MALE.npz", **smpl)
    with pytest.raises(UserError, match="SMPL_FEMALE.npz or .pkl, only male; get it after registration"):
        load_body_model("smpl", folder=tmp_path, gender="female")
    with pytest.raises(UserError, match="there is no folder .*nowhere"):
        load_body_model("smpl", folder=tmp_path / "nowhere")
    with pytest.raises(UserError, match="is male by its name, and neutral was asked for"):
        load_body_model("smpl", folder=tmp_path / "SMPL_MALE.npz")
    touch(tmp_path, "body.fbx")
    with pytest.raises(UserError, match="neither .npz nor .pkl"):
        load_body_model("smpl", folder=tmp_path / "body.fbx")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"weights": None}, "it lacks weights"),
        ({"J_regressor": np.zeros((52, 48))}, "52 rows where smpl has 24 joints: it is a smplh model"),
        ({"J_regressor": np.zeros((7, 48))}, "7 rows where smpl has 24 joints$"),
        ({"weights": np.zeros((48, 25))}, r"weights has the shape \(48, 25\) where a smpl model has \(48, 24\)"),
        ({"posedirs": np.zeros((48, 3, 459))}, "posedirs has the shape"),
        ({"v_template": np.full((48, 3), np.nan)}, "v_template holds numbers that are not finite"),
        ({"f": np.array([[0, 1, 48]])}, "f points beyond 48 vertices"),
        ({"kintree_table": np.full((2, 24), 23)}, "kintree_table is not the tree of a body"),
        ({"kintree_table": np.full((2, 24), 77)}, "kintree_table is not the tree of a body"),
    ],
)
def test_broken_models_are_refused(change, complaint, smpl, tmp_path):
    arrays = {key: value for key, value in {**smpl, **change}.items() if value is not None}
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **arrays)
    with pytest.raises(UserError, match=complaint):
        load_body_model("smpl", folder=tmp_path)


def test_shapes_and_expressions_that_cannot_be_told_apart_are_refused(make_smpl_standin, tmp_path):
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **make_smpl_standin("smplx", num_vertices=60, num_shapes=26))
    with pytest.raises(UserError, match="shapedirs has 26 columns; an SMPL-X file has 20"):
        load_body_model("smplx", folder=tmp_path)
