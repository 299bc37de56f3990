"""Damaged and hostile checkpoints: a named error or the same values, never a crash or a hang."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_writer import BFloat16, Partitioned, masked, write_bundle
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.facts.errors import ReadError
from bncheck.recognise.named.by_name import recognise_names
from bncheck.settings.options import Options
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.bundle.crc32c import crc32c
from bncheck.sources.bundle.sstable import open_table

BUNDLE: dict[str, Any] = {
    "bn/beta": np.float32([1, 2, 3, 4]),
    "bn/moving_mean": np.zeros(4, np.float32),
    "bn/moving_variance": Partitioned(np.ones((4,), np.float32), 0, (1, 3)),
    "global_step": np.int64(300),
    "half": BFloat16(np.float32([1, 2])),
    "text": np.array([b"a", b"bc" * 40], object),
}
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=4)


def everything(prefix: Path) -> Any:
    """All that is read and recognised, as plain data."""
    model = read_checkpoint(prefix)
    tensors = {n: (t.dtype, t.shape, t.crc32c, t.unavailable, t.read().tolist()) for n, t in model.tensors.items()}
    found = recognise_names(model, Options())
    return tensors, [(layer.name, layer.moved, layer.channels) for layer in found.layers], vars(found.run)


def damaged(changes: list[tuple[int, int]], *, seal: bool) -> tuple[Any, Any]:
    """(what the whole bundle holds, what the changed one holds or the error it ends in).

    `seal` repairs the checksums of the index afterwards, as someone with bad intentions would.
    """
    with tempfile.TemporaryDirectory() as folder:
        prefix = Path(folder) / "m"
        index = write_bundle(prefix, BUNDLE, block_size=120)
        shard = prefix.with_name("m.data-00000-of-00001")
        whole = everything(prefix)
        blocks = open_table(index).blocks
        content = [bytearray(index.read_bytes()), bytearray(shard.read_bytes())]
        for place, bits in changes:
            in_index = seal or place % 2 == 0
            size = blocks[-1][0] + blocks[-1][1] if seal else len(content[not in_index])
            content[not in_index][place // 2 % size] ^= bits
        for offset, size in blocks if seal else ():
            end = offset + size
            content[0][end] = 0
            struct.pack_into("<I", content[0], end + 1, masked(crc32c(bytes(content[0][offset : end + 1]))))
        index.write_bytes(bytes(content[0]))
        shard.write_bytes(bytes(content[1]))
        try:
            return whole, everything(prefix)
        except ReadError as error:
            return whole, error


@given(CHANGES)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_damaged(changes: list[tuple[int, int]]) -> None:
    """A few bytes changed anywhere, in index or data: a named error, or the same values."""
    whole, found = damaged(changes, seal=False)
    assert isinstance(found, ReadError) or found == whole


@given(CHANGES)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_hostile(changes: list[tuple[int, int]]) -> None:
    """The same with checksums made right again: a named error, or some other consistent bundle."""
    _, found = damaged(changes, seal=True)
    assert isinstance(found, (ReadError, tuple))


@pytest.mark.slow
@given(CHANGES, st.booleans())
@settings(max_examples=5000, deadline=None, database=None)
def test_five_thousand_mutations(changes: list[tuple[int, int]], seal: bool) -> None:  # noqa: FBT001 - hypothesis's
    """5,000 mutations, other ones every time."""
    whole, found = damaged(changes, seal=seal)
    assert isinstance(found, ReadError) or seal or found == whole
