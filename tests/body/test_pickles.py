"""Pickles as the official files are, made without chumpy and by hand where Python 3 cannot; and hostile ones."""

import collections
import os
import pickle

import numpy as np
import pytest
import scipy.sparse

from humansplat.body.pickles import read_npz_arrays, read_pickled_arrays
from humansplat.errors import UserError


def read(tmp_path, content, *names):
    path = tmp_path / "model.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=2))
    return read_pickled_arrays(path, names)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<u4", "|i1", "|b1"])
def test_arrays_of_every_protocol_come_back(protocol, dtype, tmp_path):
    arrays = {"a": np.arange(24).reshape(2, 3, 4).astype(dtype), "b": np.asfortranarray(np.eye(3, 5).astype(dtype))}
    again = read(tmp_path, pickle.dumps({**arrays, "note": "lbs", "other": None}, protocol=protocol), "a", "b", "c")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype


def test_numbers_and_lists_are_arrays_too(tmp_path):
    again = read(tmp_path, {"list": [[1, 2], [3, 4]], "scalar": np.float64(0.25)}, "list", "scalar")
    assert again["list"].tolist() == [[1, 2], [3, 4]]
    assert again["scalar"] == 0.25


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_a_file_of_python_2_with_chumpy_and_a_sparse_matrix(protocol, chumpy, python2_pickle, tmp_path):
    random = np.random.default_rng(0)
    template, shapes = random.normal(size=(7, 3)), random.normal(size=(7, 3, 20))
    regressor = scipy.sparse.random(5, 7, 0.4, format="csc", random_state=0)
    chosen = np.arange(420).reshape(7, 3, 20)[..., :10].ravel()
    content = {
        "v_template": chumpy("Ch", x=template, _dirty_vars=set(), _itr=None),
        "shapedirs": chumpy("Select", a=chumpy("Ch", x=shapes), idxs=chosen, preferred_shape=(7, 3, 10)),
        "posedirs": chumpy("Reshape", a=shapes, newshape=(21, -1)),
        "J_regressor": regressor,
        "bs_style": "lbs",
    }
    written = python2_pickle(content, protocol).replace(b"scipy.sparse._csc", b"scipy.sparse.csc")
    assert b"numpy.core.multiarray" in written
    assert b"chumpy.reordering" in written
    assert b"scipy.sparse.csc\n" in written
    again = read(tmp_path, written, "v_template", "shapedirs", "posedirs", "J_regressor")
    np.testing.assert_array_equal(again["v_template"], template)
    np.testing.assert_array_equal(again["shapedirs"], shapes[..., :10])
    np.testing.assert_array_equal(again["posedirs"], shapes.reshape(21, 20))
    np.testing.assert_array_equal(again["J_regressor"], regressor.toarray())


def test_what_only_chumpy_can_work_out_is_refused_where_it_is_needed(chumpy, tmp_path):
    content = {"J": chumpy("add", a=np.ones(2), b=np.ones(2)), "f": np.ones(3)}
    assert read(tmp_path, content, "f")["f"].sum() == 3
    with pytest.raises(UserError, match=r"'J' in .*chumpy.ch_ops.add, which only chumpy can work out"):
        read(tmp_path, content, "J")


@pytest.mark.parametrize("make", ["csc_matrix", "csr_matrix", "coo_matrix", "csr_array"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_sparse_matrices_become_dense(make, protocol, tmp_path):
    dense = np.random.default_rng(0).integers(0, 3, (4, 6)).astype(float)
    content = pickle.dumps({"m": getattr(scipy.sparse, make)(dense)}, protocol=protocol)
    np.testing.assert_array_equal(read(tmp_path, content, "m")["m"], dense)


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (np.load, "load"), (collections.OrderedDict, "Ord")],
)
def test_a_pickle_that_would_run_something_is_refused(function, name, protocol, tmp_path):
    canary = tmp_path / "canary"
    hostile = Runs(function, f"open({str(canary)!r}, 'w')" if function is eval else f"touch '{canary}'")
    content = pickle.dumps({"v_template": np.ones(3), "note": hostile}, protocol=protocol)
    with pytest.raises(UserError, match=f"model.pkl asks for '.*{name}.*no body model needs") as refused:
        read(tmp_path, content, "v_template")
    assert "\n" not in str(refused.value)
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cchumpy\nos.system\n(S'touch canary'\ntR.",  # a dotted name inside an allowed package
        b"cscipy.sparse\nsys.modules\n(tR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I9\ntcnumpy\ndtype\n(S'f8'\ntRI00\nS'a'\ntb.",
        b"cnumpy\nndarray\n}S'__setstate__'\nI1\nsb.",  # an attempt to change the stand-in itself
        b"cnumpy\nndarray\n(NS'x'\ntb.",
        b"P1\n.",
        b"",
        b"nonsense",
    ],
)
def test_nothing_else_gets_through(content, tmp_path):
    with pytest.raises(UserError):
        read(tmp_path, b"(S'v'\n" + content[:-1] + b"d.", "v")


@pytest.mark.parametrize(
    "change",
    [
        {"indices": [0, 9, 1]},
        {"indptr": [0, 5, 3]},
        {"indptr": [0, 1, 2]},
        {"_shape": (10**6, 10**6)},
        {"data": "abc"},
    ],
)
def test_a_sparse_matrix_that_points_outside_is_refused(change, tmp_path):
    state = {"_shape": (3, 2), "indices": [0, 2, 1], "indptr": [0, 2, 3], "data": [1.0, 2.0, 3.0], **change}
    matrix = scipy.sparse.csc_matrix((3, 2))
    matrix.__dict__.update(state)
    matrix.__dict__.pop("_shape" if "shape" in change else "none", None)
    with pytest.raises(UserError, match="not an array that can be read"):
        read(tmp_path, {"m": matrix}, "m")


def test_npz_members_that_are_pickled_are_read_the_same_way(tmp_path):
    regressor, canary = scipy.sparse.eye(4, format="csc"), tmp_path / "canary"
    hostile = np.array({"a": Runs(os.system, f"touch '{canary}'")}, dtype=object)
    np.savez(tmp_path / "model.npz", J_regressor=np.array(regressor, dtype=object), f=np.arange(3), joint2num=hostile)
    again = read_npz_arrays(tmp_path / "model.npz", ["J_regressor", "f", "weights"])
    np.testing.assert_array_equal(again["J_regressor"], np.eye(4))
    assert again["f"].tolist() == [0, 1, 2]
    with pytest.raises(UserError, match=r"'joint2num' in .*model.npz asks for '.*system'"):
        read_npz_arrays(tmp_path / "model.npz", ["joint2num"])
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04broken", pickle.dumps({"f": 1})])
def test_what_is_no_npz_is_refused(content, tmp_path):
    (tmp_path / "model.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a model file that can be read"):
        read_npz_arrays(tmp_path / "model.npz", ["f"])
