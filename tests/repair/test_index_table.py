"""The table that repair writes: what TensorFlow's format says, held against bncheck's reader and TensorFlow's."""

from __future__ import annotations

import io
from pathlib import Path

import google_crc32c
import pytest
from bundle_writer import entry
from hypothesis import given
from hypothesis import strategies as st

from bncheck.repair import index_table
from bncheck.repair.index_table import new_entry, with_checksum, write_table
from bncheck.sources.bundle.entry import decode_entry
from bncheck.sources.bundle.sstable import entries, open_table

PAIRS = st.dictionaries(st.binary(max_size=30), st.binary(max_size=60), max_size=80)
HERE = Path("index")


@given(pairs=PAIRS, block_size=st.sampled_from([1, 40, 300, 1 << 18]))
def test_what_is_written_is_read(
    pairs: dict[bytes, bytes], block_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any keys and values come back, in any number of blocks, with all checksums right."""
    path = tmp_path_factory.getbasetemp() / "table"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_table, "BLOCK_SIZE", block_size)
        stream = io.BytesIO()
        write_table(stream, sorted(pairs.items()))
    path.write_bytes(stream.getvalue())
    assert [(found.key, found.value) for found in entries(open_table(path))] == sorted(pairs.items())


@given(
    shape=st.lists(st.integers(0, 300), max_size=3),
    shard=st.integers(0, 5),
    offset=st.integers(0, 1 << 40),
    checksums=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_another_checksum_changes_nothing_else(
    shape: list[int], shard: int, offset: int, checksums: tuple[int, int]
) -> None:
    """The entry keeps type, shape, shard, offset and size, and its length."""
    before = entry(1, shape, shard=shard, offset=offset, size=4, checksum=checksums[0])
    after = with_checksum(before, checksums[1], HERE)
    assert len(after) == len(before)
    old, new = (decode_entry(HERE, value, 0, shards=6) for value in (before, after))
    assert new == old._replace(crc32c=checksums[1])


def test_an_entry_without_checksum_gets_one() -> None:
    """proto3 leaves a checksum of 0 out; it is added where the entry has none."""
    bare = entry(1, (2,), size=8)
    assert decode_entry(HERE, with_checksum(bare, 77, HERE), 0, shards=1).crc32c == 77


def test_new_entries_are_those_of_the_format() -> None:
    """Byte for byte what an independent writer makes of the same tensor."""
    checksum = google_crc32c.value(b"12345678")
    made = new_entry(1, (2,), shard=0, offset=300, size=8, checksum=checksum)
    assert made == entry(1, (2,), shard=0, offset=300, size=8, checksum=checksum)
