import collections
import json
import pickle
import zlib

import numpy as np
import pytest
import torch

from humansplat.errors import UserError
from humansplat.io.body_files.values import read_values


@pytest.fixture
def contents():
    return {
        "array": np.arange(6.0).reshape(2, 3).T,
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "tensor": torch.arange(6.0).reshape(2, 3).T,
        "nested": [np.float32(2), {"whole": np.arange(3, dtype=">i4")}],
        "objects": np.array([{"a": 1}, None], dtype=object),
        "ordered": collections.OrderedDict(ids=torch.arange(3)),
        "empty": np.zeros((0, 3)),
        "gender": np.array("male"),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_arrays_and_tensors_are_read_in_every_protocol(contents, protocol, tmp_path):
    path = tmp_path / "body.pkl"
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    values = read_values(path)
    for name in ("array", "columns"):
        np.testing.assert_array_equal(values[name], contents[name])
    np.testing.assert_array_equal(values["tensor"], contents["tensor"].numpy())
    assert values["nested"][0] == 2
    np.testing.assert_array_equal(values["nested"][1]["whole"], [0, 1, 2])
    assert values["objects"] == [{"a": 1}, None]
    np.testing.assert_array_equal(values["ordered"]["ids"], [0, 1, 2])
    assert values["empty"].shape == (0, 3)
    assert values["gender"] == "male"


class Hostile:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.target}",)


def test_a_hostile_pickle_is_refused_and_does_nothing(tmp_path):
    path, trace = tmp_path / "body.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"body_pose": Hostile(trace)}))
    with pytest.raises(UserError, match=r"would run \w+\.system when read"):
        read_values(path)
    torch.save({"body_pose": Hostile(trace)}, tmp_path / "body.pt")
    with pytest.raises(UserError, match="holds more than tensors"):
        read_values(tmp_path / "body.pt")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"cnumpy\nndarray\n(I1000000000000\ntR.",  # an array that nothing fills
        b"cnumpy\ndtype\nN}X\x05\x00\x00\x00state\x4b\x01s\x86b.",  # a state for a maker itself
        b"cnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntcnumpy\ndtype\n(X\x02\x00\x00\x00O8tRI00\nC\x01atb.",
        pickle.dumps(np.zeros(3))[:-8] + b".",
    ],
)
def test_broken_pickles_are_refused(content, tmp_path):
    path = tmp_path / "body.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a pickle that can be read"):
        read_values(path)


def test_joblib_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "body.pkl"
    path.write_bytes(zlib.compress(pickle.dumps({"betas": np.zeros(10)})))
    with pytest.raises(UserError, match=r"written by joblib.*joblib\.load"):
        read_values(path)
    path.write_bytes(b"cjoblib.numpy_pickle\nNumpyArrayWrapper\n.")
    with pytest.raises(UserError, match="written by joblib"):
        read_values(path)


def test_torch_files_and_json_are_read(tmp_path):
    torch.save({"betas": torch.ones(10)}, tmp_path / "body.pt")
    torch.save([torch.ones(10)], tmp_path / "body.pkl")
    (tmp_path / "body.json").write_text(json.dumps([{"betas": [1, 2], "gender": "female"}]))
    np.testing.assert_array_equal(read_values(tmp_path / "body.pt")["betas"], np.ones(10))
    np.testing.assert_array_equal(read_values(tmp_path / "body.pkl")[0], np.ones(10))
    assert read_values(tmp_path / "body.json") == [{"betas": [1, 2], "gender": "female"}]


def test_objects_among_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "body.npz", params=np.array({"betas": np.zeros(10)}, dtype=object))
    with pytest.raises(UserError, match="holds pickled objects among its arrays"):
        read_values(tmp_path / "body.npz")


@pytest.mark.parametrize("name", ["body.npz", "body.npy", "body.json", "body.pt"])
def test_files_that_are_not_what_they_say_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x00\x01nothing")
    with pytest.raises(UserError, match=name):
        read_values(tmp_path / name)


def test_missing_and_unknown_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such body file"):
        read_values(tmp_path / "body.npz")
    (tmp_path / "body.txt").write_text("x")
    with pytest.raises(UserError, match=r"\.txt is none"):
        read_values(tmp_path / "body.txt")
