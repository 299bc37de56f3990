"""CRC-32C as TensorFlow stores it: masked, and, for a single number, turned back into that number.

Mask: rotate right by 15 bits, add 0xa282ead8 (tensorflow/core/lib/hash/crc32c.h, after LevelDB).
"""

from __future__ import annotations

import google_crc32c
import numpy as np

_DELTA = 0xA282EAD8
_ALL = 0xFFFFFFFF
_POLYNOMIAL = 0x82F63B78
"""Castagnoli's, bits reflected."""


def crc32c(data: bytes) -> int:
    """CRC-32C of the bytes."""
    return int(google_crc32c.value(data))


def unmask(stored: int) -> int:
    """The checksum behind a stored, masked one."""
    rotated = (stored - _DELTA) & _ALL
    return (rotated >> 17 | rotated << 15) & _ALL


def unmask_all(stored: bytes) -> list[int]:
    """The same of many, 4 little-endian bytes each."""
    rotated = np.frombuffer(stored, "<u4") - np.uint32(_DELTA)
    found: list[int] = (rotated >> np.uint32(17) | rotated << np.uint32(15)).tolist()
    return found


def mask(checksum: int) -> int:
    """The form in which files hold a checksum."""
    return ((checksum >> 15 | checksum << 17) + _DELTA) & _ALL


def _row(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
    return index


def word_behind(checksum: int, *, size: int) -> int:
    """The one unsigned 32-bit number whose `size` little-endian bytes (4, or more with zeros on top) have this CRC-32C.

    Four bytes and their CRC-32C determine each other. The register is walked backwards through the zero bytes and the
    word's own four steps; what then differs from its start value is the word.
    """
    rows = [_row(index) for index in range(256)]
    by_top_byte = {row >> 24: index for index, row in enumerate(rows)}
    register = checksum ^ _ALL
    for _ in range(size):
        index = by_top_byte[register >> 24]
        register = (register ^ rows[index]) << 8 & _ALL | index
    return register ^ _ALL
