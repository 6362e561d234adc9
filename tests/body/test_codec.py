import numpy as np
import pytest

from humansplat.body.codec import decode_planes, encode_planes


def test_integers_survive_the_planes():
    values = np.random.default_rng(0).integers(-(2**23), 2**23, size=(4, 50), dtype=np.int32)
    values[0, :4] = 0, -1, 2**23 - 1, -(2**23)
    planes = encode_planes(values)
    assert planes.shape == (3, 4, 50)
    np.testing.assert_array_equal(decode_planes(planes), values)


def test_small_numbers_leave_the_high_planes_empty():
    assert not encode_planes(np.arange(-100, 100, dtype=np.int32))[1:].any()


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="24 bits"):
        encode_planes(np.array([2**23], dtype=np.int32))
