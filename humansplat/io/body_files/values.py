"""The contents of npz, npy, json, pickle and torch files as plain values, without running what they hold.

Pickles are read as records (``humansplat.io.pickles``) of the handful of names that rebuild numpy arrays, torch
tensors and plain containers; a file that names any other is refused.
"""

import io
import json
import pickle
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from humansplat.errors import UserError
from humansplat.io.pickles import NUMPY_NAMES, ORDERED, PERSISTENT, Record, RecordUnpickler, numpy_value, raw_bytes

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
        return RecordUnpickler(io.BytesIO(content), _NAMES, lambda origin: _refusal(origin, path)).load()
    except UserError:
        raise
    except DAMAGED as error:
        raise UserError(f"{path}: not a pickle that can be read") from error


_NAMES = re.compile(
    rf"{NUMPY_NAMES}|{re.escape(ORDERED)}|__builtin__\.bytes|torch\.storage\._load_from_bytes|torch\._utils\._rebuild_tensor_v2"
)
_DTYPE = re.compile(r"[biufcSU]\d+|\?")


def _refusal(origin: str, path: Path) -> UserError:
    if origin == PERSISTENT:
        return UserError(f"{path} was written by torch.save in its old form; write it anew with a recent torch")
    if origin.startswith("joblib."):
        return UserError(f"{path} {_BY_JOBLIB}")
    return UserError(f"{path} would run {origin} when read; save numpy arrays in dictionaries and lists only")


def _opened(record: Record) -> object:
    """The array, tensor, number or list that a record stands for.

    Raises:
        ValueError: If its arguments are not those that numpy and torch write.
    """
    match record.origin, record.arguments:
        case "_codecs.encode", (str(), "latin1"):
            return raw_bytes(record)
        case "__builtin__.bytes", ():
            return b""
        case (
            "torch._utils._rebuild_tensor_v2",
            (Record() as storage, int() as offset, tuple() as size, tuple() as stride, *_),
        ):
            raw = bytes(raw_bytes(storage.arguments[0]))
            flat = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
            return torch.empty(0, dtype=flat.dtype).set_(flat._untyped_storage, offset, size, stride).clone()
    content = numpy_value(record, _DTYPE)
    return content[0] if isinstance(content, list) and len(content) == 1 and _is_scalar(record) else content


def _is_scalar(record: Record) -> bool:
    return isinstance(record.state, tuple) and record.state[-4] == ()


def _plain(value: object, path: Path) -> Value:
    """Containers and scalars as Python's own, tensors as arrays."""
    if isinstance(value, Record):
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
