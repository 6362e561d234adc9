"""What the callers' own tests do not reach: tests/body/test_pickles.py and tests/io/body_files/test_values.py."""

import pickle
import re
from collections import OrderedDict
from io import BytesIO

import numpy as np
import pytest

from humansplat.errors import UserError
from humansplat.io.pickles import NUMPY_NAMES, ORDERED, PERSISTENT, Record, RecordUnpickler, numpy_value

NAMES = re.compile(rf"{NUMPY_NAMES}|{re.escape(ORDERED)}")
FLOATS = re.compile(r"f[48]")


def unpickled(content: bytes) -> object:
    return RecordUnpickler(BytesIO(content), NAMES, lambda origin: UserError(f"asks for {origin}")).load()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_records_become_arrays_only_when_asked_to(protocol):
    array = np.arange(6.0).reshape(2, 3)
    content = unpickled(pickle.dumps(OrderedDict(points=array, turned=np.asfortranarray(array)), protocol))
    assert isinstance(content, OrderedDict)
    for record in content.values():
        assert isinstance(record, Record)
        np.testing.assert_array_equal(numpy_value(record, FLOATS), array)
    with pytest.raises(ValueError, match="an array of 'f8'"):
        numpy_value(content["points"], re.compile("i4"))


def test_other_names_and_objects_elsewhere_are_refused():
    class Elsewhere(pickle.Pickler):
        def persistent_id(self, value: object) -> object:
            return "key" if isinstance(value, float) else None

    file = BytesIO()
    Elsewhere(file).dump([1.5])
    with pytest.raises(UserError, match=f"asks for {PERSISTENT}"):
        unpickled(file.getvalue())
    with pytest.raises(UserError, match=r"asks for builtins\.print"):
        unpickled(pickle.dumps(print))
    with pytest.raises(UserError, match=r"asks for numpy\.load"):
        unpickled(b"cnumpy\nload\n.")


def test_calling_records_does_nothing():
    """The way in which pickles usually run things: a function, its arguments, and the order to call it."""
    record = unpickled(b"cnumpy\nndarray\n(S'rm'\ntR.")
    assert isinstance(record, Record)
    assert (record.origin, record.arguments) == ("numpy.ndarray", ("rm",))
    with pytest.raises(ValueError, match=r"numpy\.ndarray stands where numbers should"):
        numpy_value(record, FLOATS)
