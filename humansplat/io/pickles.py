"""Pickles read without running anything that they ask for.

A pickle is a program: it names functions of any module and has them called. Here each name that a kind of file needs
stands for a :class:`Record`, which keeps what it was called with and does nothing; every other name refuses the file.
What the records mean is worked out afterwards, by :func:`numpy_value` for numpy's and by the callers for their own.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from io import BufferedIOBase
from typing import IO

import numpy as np
from numpy.typing import NDArray

from humansplat.errors import UserError

NUMPY_NAMES = (
    r"numpy\.(ndarray|dtype|(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer))|_codecs\.encode"
)
"""What numpy's arrays and numbers name, in every version and protocol; a part of a regular expression."""
ORDERED = "collections.OrderedDict"
PERSISTENT = "a persistent object"
"""What a file asks for whose objects lie elsewhere, as torch's old files do."""


class Record:
    """Something that a pickle named: what it was called with, and what it was told to become."""

    origin = ""
    """Module and name."""
    arguments: tuple[object, ...]
    state: object

    def __new__(cls, *arguments: object) -> "Record":
        record = object.__new__(cls)
        record.arguments, record.state = arguments, None
        return record

    def __setstate__(self, state: object) -> None:
        self.state = state


class RecordUnpickler(pickle.Unpickler):
    """Makes plain containers and records, and nothing else.

    Args:
        file: Open at the pickle's beginning.
        names: What may be named, ``module.name``; ``collections.OrderedDict`` among them is made as it is.
        refusal: The error for any other name, or for :data:`PERSISTENT`.
    """

    def __init__(
        self, file: IO[bytes] | BufferedIOBase, names: re.Pattern[str], refusal: Callable[[str], UserError]
    ) -> None:
        super().__init__(file, encoding="latin1")  # Python 2 wrote many of these files
        self._names, self._refusal = names, refusal

    def find_class(self, module_name: str, global_name: str, /) -> type:
        origin = f"{module_name}.{global_name}"
        if not self._names.fullmatch(origin):
            raise self._refusal(origin)
        return OrderedDict if origin == ORDERED else type("_Named", (Record,), {"origin": origin})

    def persistent_load(self, pid: object) -> object:
        raise self._refusal(PERSISTENT)


def numpy_value(record: Record, codes: re.Pattern[str]) -> NDArray | list:
    """What a record of one of numpy's names stands for; an array of objects is a list of them.

    Args:
        record: Not of another name.
        codes: Types of arrays that are read, as numpy abbreviates them.

    Raises:
        ValueError: If its arguments are not those that numpy writes.
    """
    origin, state = record.origin, record.state
    if origin.endswith("._frombuffer"):
        content, dtype, shape, order = record.arguments
        return _array(content, dtype, shape, order == "F", codes)
    if origin.endswith(".scalar"):
        dtype, content = record.arguments
        return _array(content, dtype, (), False, codes)
    if origin.endswith("._reconstruct") and isinstance(state, tuple):
        shape, dtype, columns_first, content = state[-4:]
        return content if isinstance(content, list) else _array(content, dtype, shape, bool(columns_first), codes)
    raise ValueError(f"a {origin} stands where numbers should")


def raw_bytes(content: object) -> bytes | bytearray:
    """Bytes, in whatever way the protocols spell them.

    Raises:
        ValueError: If they are none.
    """
    if isinstance(content, Record) and content.origin == "_codecs.encode":  # how Python 3 writes them for Python 2
        content = content.arguments[0]
    elif isinstance(content, Record) and content.origin == "__builtin__.bytes" and not content.arguments:
        content = b""
    raw = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(raw, bytes | bytearray):
        raise ValueError("an array without its numbers")
    return raw


def _array(content: object, dtype: object, shape: object, columns_first: bool, codes: re.Pattern[str]) -> NDArray:
    raw = raw_bytes(content)
    if not isinstance(shape, tuple):
        raise ValueError("an array without its shape")
    return np.frombuffer(raw, _dtype(dtype, codes)).reshape(shape, order="F" if columns_first else "C")


def _dtype(value: object, codes: re.Pattern[str]) -> np.dtype:
    if not isinstance(value, Record) or value.origin != "numpy.dtype":
        raise ValueError("an array without a type")
    code, order = value.arguments[0], value.state[1] if isinstance(value.state, tuple) else "="
    if not (isinstance(code, str) and codes.fullmatch(code) and order in ("<", ">", "=", "|")):
        raise ValueError(f"an array of {code!r}")
    return np.dtype(f"{order}{code}")
