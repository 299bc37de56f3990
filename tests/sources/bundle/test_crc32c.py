"""CRC-32C, masked, and turned back into the number it came from."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from bncheck.sources.bundle.crc32c import crc32c, mask, unmask, word_behind


def test_known_value() -> None:
    """The check value of CRC-32C (RFC 3720, appendix B.4: 32 bytes of zeros)."""
    assert crc32c(bytes(32)) == 0x8A9136AA


@pytest.mark.parametrize("checksum", [0, 1, 0x8A9136AA, 0xFFFFFFFF, 0x80000000])
def test_mask_round_trip(checksum: int) -> None:
    """Unmasking undoes masking, and masking changes every checksum."""
    assert unmask(mask(checksum)) == checksum
    assert mask(checksum) != checksum


def test_mask_of_nothing() -> None:
    """A checksum of 0 is stored as LevelDB's constant."""
    assert mask(0) == 0xA282EAD8


@pytest.mark.parametrize("number", [0, 1, 300, 158_301, 2_000_000, 0xFFFFFFFF])
def test_integers_come_back(number: int) -> None:
    """A counter of 4 or 8 bytes is what its checksum says."""
    assert word_behind(crc32c(struct.pack("<I", number)), size=4) == number
    assert word_behind(crc32c(struct.pack("<Q", number)), size=8) == number


def test_floats_come_back() -> None:
    """Any float32 is what its checksum says, to the bit."""
    for value in np.float32([0.9, 0.999**300, 1e-38, -0.0, np.inf]):
        word = word_behind(crc32c(value.tobytes()), size=4)
        assert struct.pack("<I", word) == value.tobytes()
