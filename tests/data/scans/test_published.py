"""Bodies that are published with scans: used where they lie in the scan, named and replaced where they do not."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_scans
from numpy.testing import assert_allclose
from scipy.spatial import cKDTree

from humansplat.body.models import load_body_model
from humansplat.data.prepare import prepare
from humansplat.geometry.rotations import axis_angle_to_matrix
from humansplat.render.mesh_kernels import vertex_normals

SMALL = {"size": 32, "ring_cameras": 1, "samples": 1, "progress": False, "workers": 0}
SCALE = 1.25
TURN = np.array([[0.0, 1.1, 0.0]])
SHIFT = np.array([[0.2, -0.4, 0.1]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, make_smpl_standin: Callable[..., dict]) -> Path:
    """The default body's surface in a file of SMPL-X's form; its joints bend it badly, so it only stands."""
    arrays = make_smpl_standin("smplx", num_vertices=60)
    points = toy_scans.model().canonical.numpy() - [0.0, 0.95, 0.0]
    joints = arrays["J_regressor"] @ arrays["v_template"]
    near = cKDTree(points).query(joints, k=8)[1]
    regressor = np.zeros((len(joints), len(points)))
    np.put_along_axis(regressor, near, 1 / 8, axis=1)
    arrays |= {
        "v_template": points,
        "f": toy_scans.model().faces.numpy().astype(np.uint32),
        "shapedirs": np.zeros((len(points), 3, 20), np.float32),
        "posedirs": np.zeros((len(points), 3, 486), np.float32),
        "J_regressor": regressor,
        "hands_meanl": np.zeros(45),
        "hands_meanr": np.zeros(45),
        "weights": np.eye(len(joints))[cKDTree(joints).query(points)[1]],
    }
    folder = tmp_path_factory.mktemp("models")
    (folder / "smplx").mkdir()
    np.savez_compressed(folder / "smplx" / "SMPLX_MALE.npz", **arrays)
    return folder


def write_scan(root: Path, models: Path, name: str, error: float, **changes: object) -> np.ndarray:
    """A clothed scan of the model, in THuman2.0's layout, and a published body that is off by ``error`` metres."""
    body = load_body_model("smplx", folder=models, gender="male").pose(
        {"global_orient": torch.from_numpy(TURN[0]).float(), "transl": torch.zeros(3)}
    )
    skin, faces = body.vertices.numpy(), body.faces.numpy()
    clothed = skin + 0.008 * vertex_normals(skin, faces.astype(np.int32))
    toy_scans.write_obj(root / "scans" / name / f"{name}.obj", SCALE * clothed + SHIFT, faces)
    (root / "scans" / name / "material0.mtl").touch()
    zeros = {"body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "betas": 10, "expression": 10}
    values = {
        **{key: np.zeros((1, width), np.float32) for key, width in zeros.items()},
        "left_hand_pose": np.zeros((1, 12), np.float32),
        "right_hand_pose": np.zeros((1, 12), np.float32),
        "global_orient": TURN.astype(np.float32),
        "transl": np.zeros((1, 3), np.float32),
        "scale": np.array([SCALE], np.float32),
        "translation": (SHIFT + [[SCALE * error, 0, 0]]).astype(np.float32),
        **changes,
    }
    path = root / "smplx" / name / "smplx_param.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(pickle.dumps(values))
    return skin


def test_published_bodies_are_used_only_where_they_fit(models: Path, tmp_path: Path):
    skin = write_scan(tmp_path, models, "0000", 0.0)
    write_scan(tmp_path, models, "0001", 0.3)
    write_scan(tmp_path, models, "0002", 0.0, global_orient=TURN.astype(np.float32) + [[0, np.pi, 0]])
    out = tmp_path / "out"
    options = {**SMALL, "body_model": "smplx", "models": models, "factory": toy_scans.smplx_factory}
    made = prepare(tmp_path / "scans", out, **options)  # type: ignore[arg-type]
    assert made.failed == {}
    metas = {name: json.loads((out / name / "meta.json").read_text()) for name in made.names}
    assert metas["0000"]["fit"]["source"] == "published"
    with np.load(out / "0000" / "body.npz") as body:
        assert (str(body["model"]), str(body["gender"])) == ("smplx", "male")
        turn = axis_angle_to_matrix(torch.tensor([0.0, -metas["0000"]["normalization"]["facing"], 0.0])).numpy()
        expected = skin @ turn.T
        expected += body["vertices"].mean(axis=0) - expected.mean(axis=0)
        assert_allclose(body["vertices"], expected, atol=1e-4)
        assert abs(body["vertices"][:, 1].min()) < 1e-4
    assert metas["0000"]["normalization"]["unit"] == pytest.approx(1 / SCALE)
    for name, named in (("0001", "0.30"), ("0002", "turned by 180")):
        fit = metas[name]["fit"]
        assert fit["source"] == "fitted"
        assert any("outside the scan" in sentence for sentence in fit["published"]), fit
        assert any(named in sentence for sentence in fit["published"]), fit
        assert metas[name]["flags"]  # the toy does not find clothed people good enough, either
    assert made.flagged.keys() == {"0001", "0002"}


def test_the_published_scale_is_used_for_every_body_model(models: Path, tmp_path: Path):
    write_scan(tmp_path, models, "0000", 0.0)
    made = prepare(tmp_path / "scans", tmp_path / "out", factory=toy_scans.factory, **SMALL)  # type: ignore[arg-type]
    meta = json.loads((tmp_path / "out" / "0000" / "meta.json").read_text())
    assert meta["normalization"]["unit"] == pytest.approx(1 / SCALE)
    assert meta["fit"]["source"] == "fitted"
    assert made.failed == {}


def test_published_numbers_that_are_none_are_told(models: Path, tmp_path: Path):
    write_scan(tmp_path, models, "0000", 0.0, scale=np.array([0.0]))
    write_scan(tmp_path, models, "0001", 0.0, translation=np.full((1, 3), np.nan))
    options = {**SMALL, "body_model": "smplx", "models": models, "factory": toy_scans.smplx_factory}
    made = prepare(tmp_path / "scans", tmp_path / "out", **options)  # type: ignore[arg-type]
    assert made.failed.keys() == {"0000", "0001"}
    assert all("smplx_param.pkl" in reason for reason in made.failed.values())
