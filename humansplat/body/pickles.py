"""The arrays of the pickles that body models come in.

The official SMPL files need few names: those with which numpy rebuilds arrays, chumpy's and scipy.sparse's classes,
and three of Python's own. They are read as records (``humansplat.io.pickles``), and what the records mean is worked
out here, with every size checked. Neither chumpy nor scipy is needed.
"""

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from io import BufferedIOBase
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from humansplat.errors import UserError
from humansplat.io.pickles import NUMPY_NAMES, Record, RecordUnpickler, numpy_value

_NAMES = re.compile(
    rf"{NUMPY_NAMES}|(copy_reg|copyreg)\._reconstructor|(__builtin__|builtins)\.(object|set)"
    r"|chumpy\.[\w.]+|scipy\.sparse\.[\w.]+"
)
_DTYPE = re.compile(r"b1|[iu][1248]|f[248]")
_LARGEST = 2**31
"""Bytes of the largest array that a file may describe rather than hold; the largest real one has 70 MB."""

_UNREADABLE = (
    pickle.UnpicklingError, struct.error, EOFError, ValueError, TypeError, LookupError, AttributeError, OverflowError,
    MemoryError, RecursionError, ImportError, NotImplementedError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_pickled_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray]:
    """Read those of the named arrays that a pickled dictionary holds; sparse matrices become dense.

    Raises:
        UserError: If the file asks for anything but arrays, or cannot be read.
    """
    with path.open("rb") as file:
        content = _load(file, str(path))
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a body model: it holds no dictionary of arrays")
    return {name: _plain(content[name], f"{name!r} in {path}") for name in names if name in content}


def read_npz_arrays(path: Path, names: Iterable[str]) -> dict[str, NDArray]:
    """Read those of the named arrays that an ``.npz`` file holds.

    Members that are not asked for are never touched: the official SMPL-X files hold pickled
    dictionaries beside the arrays. A member that is asked for and is an object array (a sparse
    matrix, say) is read as the pickles are.

    Raises:
        UserError: If a member asks for anything but arrays, or the file cannot be read.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as stored:
            for name in names:
                if f"{name}.npy" in stored.namelist():
                    arrays[name] = _member(stored, f"{name}.npy", f"{name!r} in {path}")
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a model file that can be read ({type(error).__name__}: {error})") from error
    return arrays


def _member(stored: zipfile.ZipFile, entry: str, name: str) -> NDArray:
    with stored.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        if read_header(file)[2].hasobject:
            return _plain(_load(file, name), name)
    with stored.open(entry) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _load(file: IO[bytes] | BufferedIOBase, name: str) -> object:
    def refusal(origin: str) -> UserError:
        return UserError(
            f"{name} asks for {origin!r} while it is read, which no body model needs: "
            "it was not opened; get the file anew from where the model is published"
        )

    try:
        return RecordUnpickler(file, _NAMES, refusal).load()
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{name} is not a model file that can be read ({type(error).__name__}: {error})") from error


def _plain(value: object, name: str) -> NDArray:
    """The array that a value stands for."""
    try:
        return _array(value)
    except (struct.error, ValueError, TypeError, LookupError, AttributeError, RecursionError, MemoryError) as error:
        raise UserError(f"{name} is not an array that can be read ({error})") from error


def _array(value: object) -> NDArray:
    if not isinstance(value, Record):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"a {type(value).__name__} stands where numbers should")
        return array
    origin, state = value.origin, value.state
    if origin.endswith("._reconstructor"):  # how protocols 0 and 1 write an instance: its class, then its state
        made_of = value.arguments[0]
        if not (isinstance(made_of, type) and issubclass(made_of, Record)):
            raise ValueError("an instance without a class")
        origin = made_of.origin
    if origin.startswith("chumpy."):
        return _of_chumpy(origin, _mapping(state))
    if origin.startswith("scipy.sparse."):
        return _of_scipy(origin, _mapping(state))
    content = numpy_value(value, _DTYPE)
    if isinstance(content, list):  # an array of objects
        if len(content) != 1:
            raise ValueError(f"an array of {len(content)} objects")
        return _array(content[0])
    return content


def _of_chumpy(origin: str, state: Mapping[str, object]) -> NDArray:
    """The value of a chumpy object: an array, or a choice of another's elements, which the official files hold."""
    kind = origin.rpartition(".")[2]
    if kind == "Select":
        chosen = _array(state["a"]).reshape(-1)[_array(state["idxs"])]
        return chosen.reshape(_sizes(state["preferred_shape"])) if "preferred_shape" in state else chosen
    if kind == "Reshape":
        return _array(state["a"]).reshape(_sizes(state["newshape"]))
    if "x" not in state:
        raise ValueError(f"a {origin}, which only chumpy can work out")
    return _array(state["x"])


def _sizes(value: object) -> tuple[int, ...]:
    return tuple(int(size) for size in _array(value).reshape(-1))


def _of_scipy(origin: str, state: Mapping[str, object]) -> NDArray:
    """The dense form of a sparse matrix, by numpy, which checks the indices."""
    kind = origin.rpartition(".")[2][:3]
    rows, columns = _sizes(state["_shape"] if "_shape" in state else state["shape"])
    data = _array(state["data"])
    if rows < 0 or columns < 0 or prod((rows, columns, data.itemsize)) > _LARGEST:
        raise ValueError(f"a sparse matrix of {rows} x {columns}")
    if kind == "coo":
        row, column = (_array(index) for index in _coordinates(state))
    elif kind in ("csc", "csr"):
        row, pointers = _array(state["indices"]), _array(state["indptr"])
        column = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
        if kind == "csr":
            row, column = column, row
    else:
        raise ValueError(f"a {origin}")
    dense = np.zeros((rows, columns), data.dtype)
    np.add.at(dense, (row, column), data)
    return dense


def _coordinates(state: Mapping[str, object]) -> tuple[object, object]:
    if "coords" in state:
        coordinates = state["coords"]
        if not isinstance(coordinates, tuple) or len(coordinates) != 2:
            raise ValueError("a sparse matrix without two axes")
        return coordinates
    return state["row"], state["col"]


def _mapping(state: object) -> Mapping[str, object]:
    if not isinstance(state, dict):
        raise ValueError("an object without its attributes")
    return state
