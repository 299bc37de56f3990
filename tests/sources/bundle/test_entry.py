"""Entries that are decoded the short way are those of the walk field by field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.errors import ReadError
from bncheck.sources.bundle import entry as entries
from tests.support.bundle_writer import entry


def test_the_short_way_gives_the_same_or_nothing() -> None:
    """Over thousands of entries, whole, cut and with bits flipped: the same entry, or the long way decides."""
    random = np.random.default_rng(0)
    short = 0
    for _ in range(4000):
        shape = tuple(int(n) for n in random.integers(0, 400, random.integers(0, 5)))
        whole = entry(1, shape, shard=int(random.integers(0, 3)), offset=int(random.integers(0, 1 << 40)), size=77)
        damaged = bytearray(whole[: random.integers(1, len(whole) + 1)] if random.random() < 0.3 else whole)
        if random.random() < 0.5:
            damaged[random.integers(0, len(damaged))] ^= 1 << int(random.integers(0, 8))
        found = entries._usual(bytes(damaged), 5, 3)
        if found is not None:
            short += 1
            assert found == entries._any(Path("x.index"), bytes(damaged), 5, 3)
    assert short > 1000
    with pytest.raises(ReadError, match="runs over its message"):
        entries.decode_entry(Path("x.index"), b"\x12\x7f", 5, shards=3)
