"""The contents of npz, npy, json, pickle and torch files as plain values, without running what they hold.

A pickle is a program: it names the functions that rebuild its objects. The reader here knows the handful that
rebuild numpy arrays, torch tensors and plain containers, and refuses a file that names any other.
"""

import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from humansplat.errors import UserError

if TYPE_CHECKING:
    Value: TypeAlias = "None | bool | int | float | str | np.ndarray | list[Value] | dict[str, Value]"
    """What a file holds: numbers, texts, arrays, and lists and dictionaries of them."""
else:
    Value = object  # the tests' checker of annotations knows no recursive types

DAMAGED = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, RuntimeError, ArithmeticError, NameError,
    OSError, EOFError, MemoryError, ImportError, pickle.UnpicklingError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What numpy, torch, pickle and trimesh raise over damaged files, as random damage showed."""

_PICKLES = {".pkl", ".pk", ".pickle", ".p"}
_TORCH = {".pt", ".pth", ".ckpt"}
# First bytes of zlib, gzip, bzip2, xz and lz4 streams: what joblib's compress= writes.
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x04\x22M\x18")
_BY_JOBLIB = (
    "was written by joblib, which can be read only by running it; where you trust it, convert it with "
    "python -c \"import joblib, pickle; pickle.dump(joblib.load('IN'), open('OUT.pkl', 'wb'))\""
)


def read_values(path: Path) -> Value:
    """Read a file by its suffix.

    Raises:
        UserError: If there is no such file, it is of no such format, or it holds objects other than arrays,
            tensors, numbers, texts, lists and dictionaries.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such body file")
    suffix = path.suffix.lower()
    if suffix in {".npz", ".npy"}:
        return _plain(_read_numpy(path), path)
    if suffix == ".json":
        return _plain(_read_json(path), path)
    if suffix in _TORCH or (suffix in _PICKLES and zipfile.is_zipfile(path)):
        return _plain(_read_torch(path), path)
    if suffix in _PICKLES:
        return _plain(_read_pickle(path), path)
    raise UserError(f"{path}: body files end in .npz, .json, .pkl, .pt, .obj or .ply; {suffix or 'no suffix'} is none")


def _read_numpy(path: Path) -> object:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return content
        with content:
            return dict(content)
    except DAMAGED as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled objects among its arrays; save numbers only, one array a name"
            ) from error
        raise UserError(f"{path}: not a file of arrays that can be read") from error


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file that can be read") from error


def _read_torch(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGED as error:
        raise UserError(
            f"{path} holds more than tensors, numbers and containers of them; save only those with torch.save"
        ) from error


def _read_pickle(path: Path) -> object:
    content = path.read_bytes()
    if content.startswith(_COMPRESSED):
        raise UserError(f"{path} {_BY_JOBLIB}")
    try:
        return _Unpickler(io.BytesIO(content), path).load()
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"{path}: not a pickle that can be read") from error


class _Shell:
    """What stands for an object of a pickle: which maker it names, with what arguments, and its state."""

    __slots__ = ("arguments", "maker", "state")

    def __init__(self, maker: str, arguments: tuple[object, ...]) -> None:
        self.maker, self.arguments = maker, arguments
        self.state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Maker:
    """A name that a pickle may call: it makes a shell, and does nothing else."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: object) -> object:
        return OrderedDict() if self.name == "OrderedDict" else _Shell(self.name, arguments)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"a state for {self.name} itself")


_MAKERS = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
    ("__builtin__", "bytes"),
    ("torch.storage", "_load_from_bytes"), ("torch._utils", "_rebuild_tensor_v2"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
}  # fmt: skip
_DTYPE = re.compile(r"[biufcSU]\d+|\?|O8?")


def _opened(shell: _Shell) -> object:
    """The array, tensor, number or list that a shell stands for.

    Raises:
        ValueError: If its arguments are not those that numpy and torch write.
    """
    given, state = shell.arguments, shell.state
    match shell.maker, given, state:
        case "_reconstruct", _, (_, tuple() as shape, _Shell() as dtype, by_columns, content):
            return _array(content, dtype, shape, by_columns)
        case "_frombuffer", (content, _Shell() as dtype, tuple() as shape, order), _:
            return _array(content, dtype, shape, order == "F")
        case "scalar", (_Shell() as dtype, content), _:
            return _array(content, dtype, (), False)
        case "encode", (str() as text, "latin1"), _:  # how old protocols spell bytes
            return text.encode("latin1")
        case "bytes", (), _:
            return b""
        case "_rebuild_tensor_v2", (_Shell() as storage, int() as offset, tuple() as size, tuple() as stride, *_), _:
            content = storage.arguments[0]
            raw = _opened(content) if isinstance(content, _Shell) else content
            if not isinstance(raw, bytes):
                raise ValueError("a tensor without its bytes")
            flat = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
            return torch.empty(0, dtype=flat.dtype).set_(flat._untyped_storage, offset, size, stride).clone()
    raise ValueError(f"{shell.maker} with arguments that numpy and torch do not write")


def _array(content: object, dtype: _Shell, shape: tuple[int, ...], by_columns: object) -> object:
    code, order = dtype.arguments[0], dtype.state[1] if isinstance(dtype.state, tuple) else "="
    if not isinstance(code, str) or not _DTYPE.fullmatch(code) or order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array of {code!r}")
    if code.startswith("O"):
        if not isinstance(content, list):
            raise ValueError("an array of objects that is no list")
        return content[0] if shape == () else content
    if isinstance(content, _Shell):
        content = _opened(content)
    raw = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("an array without its bytes")
    return np.frombuffer(raw, np.dtype(f"{order}{code}")).reshape(shape, order="F" if by_columns else "C")


class _Unpickler(pickle.Unpickler):
    """Makes plain containers and shells, and nothing else."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self.path = path

    def find_class(self, module: str, name: str) -> _Maker:
        if (module, name) in _MAKERS:
            return _Maker(name)
        if module.split(".")[0] == "joblib":
            raise UserError(f"{self.path} {_BY_JOBLIB}")
        raise UserError(
            f"{self.path} would run {module}.{name} when read; save numpy arrays in dictionaries and lists only"
        )

    def persistent_load(self, pid: object) -> object:
        raise UserError(f"{self.path} was written by torch.save in its old form; write it anew with a recent torch")


def _plain(value: object, path: Path) -> Value:
    """Containers and scalars as Python's own, tensors as arrays."""
    if isinstance(value, _Shell):
        try:
            return _plain(_opened(value), path)
        except DAMAGED as error:
            raise UserError(f"{path}: not a pickle that can be read ({error})") from error
    if isinstance(value, Tensor):
        return value.detach().cpu().float().numpy() if value.is_floating_point() else value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return _plain(value.tolist(), path)
        if value.dtype.kind in "US":
            return str(value.astype(str)) if value.ndim == 0 else [str(text) for text in value.astype(str).ravel()]
        return value
    if isinstance(value, np.generic):
        return _plain(np.asarray(value), path)
    if isinstance(value, bytes):
        return value.decode("latin1")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(item, path) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path) for item in value]
    raise UserError(f"{path} holds an object of type {type(value).__name__}; save arrays in dictionaries and lists")
