import io
import pickle
import struct
import sys
import types

import pytest

from humansplat.body.models import load_body_model


@pytest.fixture(scope="session")
def body():
    return load_body_model()


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and numpy's functions under their old address."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


@pytest.fixture
def python2_pickle():
    """Pickles as Python 2 did."""
    return write_python2_pickle


def write_python2_pickle(value, protocol=2):
    file = io.BytesIO()
    Python2Pickler(file, protocol).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


@pytest.fixture
def chumpy(monkeypatch):
    """Modules and classes with chumpy's names, only while pickles are written."""
    classes = {}
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering", "chumpy.ch_ops"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for address in ("chumpy.ch.Ch", "chumpy.reordering.Select", "chumpy.reordering.Reshape", "chumpy.ch_ops.add"):
        module_name, _, name = address.rpartition(".")
        classes[name] = type(name, (), {"__module__": module_name})
        setattr(sys.modules[module_name], name, classes[name])

    def make(name, **state):
        value = classes[name]()
        value.__dict__.update(state)
        return value

    return make
