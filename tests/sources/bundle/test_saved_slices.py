"""V1 checkpoints, made by hand: what is damaged is named, and nothing crashes or takes memory for what is not there."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import chunk, number, table
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.facts.errors import Malformed, ReadError, Unsupported
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.bundle.entry import slice_key

ALL = ((0, -1),)


def declared(name: str, size: int, *extents: bytes, dtype: int = 1) -> bytes:
    """A SavedSliceMeta of a vector."""
    shape = chunk(2, number(1, size))
    return chunk(1, name.encode()) + chunk(2, shape) + number(3, dtype) + b"".join(chunk(4, e) for e in extents)


def values(*floats: float) -> bytes:
    """A SavedTensorSlices with these numbers."""
    return chunk(2, chunk(3, chunk(5, struct.pack(f"<{len(floats)}f", *floats))))


def part(start: int, length: int) -> bytes:
    """A TensorSliceProto of a vector."""
    return chunk(1, number(1, start) + number(2, length))


def write(folder: Path, header: bytes, stored: dict[bytes, bytes]) -> Path:
    """A V1 checkpoint of one file."""
    path = folder / "m.ckpt"
    path.write_bytes(table([(b"", chunk(1, header)), *sorted(stored.items())]))
    return path


def test_slices_are_put_together(tmp_path: Path) -> None:
    """A partitioned variable has a key for each part."""
    header = chunk(1, declared("v", 3, part(0, 2), part(2, 1)))
    stored = {slice_key("v", ((0, 2),)): values(1, 2), slice_key("v", ((2, 1),)): values(3)}
    assert read_checkpoint(write(tmp_path, header, stored)).tensors["v"].read().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("header", "stored", "says"),
    [
        (declared("v", 2, chunk(1, b"")), {}, "a slice of v is not in the file"),
        (declared("v", 2, chunk(1, b"")), {slice_key("v", ALL): values(1)}, "lists 1 values"),
        (declared("v", 2, part(0, 1)), {slice_key("v", ((0, 1),)): values(1)}, "do not cover"),
        (declared("v", 1 << 40, chunk(1, b"")), {slice_key("v", ALL): values(1)}, "lists 1 values"),
        (declared("v", 1 << 40), {}, "do not cover"),
        (declared("v", 2, chunk(1, b"")), {slice_key("v", ALL): chunk(2, b"")}, "has no values"),
        (declared("v", 2, chunk(1, b"")), {slice_key("v", ALL): chunk(2, chunk(3, b"\x2a\x7f"))}, "no tensor"),
    ],
)
def test_damaged(tmp_path: Path, header: bytes, stored: dict[bytes, bytes], says: str) -> None:
    """What does not fit is told by the tensor's name."""
    with pytest.raises(Malformed, match=says):
        read_checkpoint(write(tmp_path, chunk(1, header), stored)).tensors["v"].read()


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (declared("v", 2, dtype=99), "unknown data type 99"),
        (declared("v", 2, part(1, 5)), "lies outside of the shape"),
        (declared("v", -1), "a dimension of -1"),
    ],
)
def test_damaged_header(tmp_path: Path, header: bytes, says: str) -> None:
    """The header is checked before anything is read."""
    with pytest.raises(Malformed, match=says):
        read_checkpoint(write(tmp_path, chunk(1, header), {}))


def test_types_that_are_not_read(tmp_path: Path) -> None:
    """Complex numbers are listed and refused."""
    tensor = read_checkpoint(write(tmp_path, chunk(1, declared("v", 2, dtype=8)), {})).tensors["v"]
    assert tensor.unavailable is not None
    with pytest.raises(Unsupported, match="complex64"):
        tensor.read()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
def test_fuzz(changes: list[tuple[int, int]], in_header: bool) -> None:  # noqa: FBT001 - drawn
    """Damage with valid checksums: a named error, or arrays of the declared shapes."""
    header = chunk(1, declared("v", 3, part(0, 2), part(2, 1))) + chunk(1, declared("w", 2, chunk(1, b"")))
    stored = {
        slice_key("v", ((0, 2),)): values(1, 2),
        slice_key("v", ((2, 1),)): values(3),
        slice_key("w", ALL): values(4, 5),
    }

    def damaged(data: bytes) -> bytes:
        changed = bytearray(data)
        for at, flip in changes:
            changed[at % len(changed)] ^= flip
        return bytes(changed)

    if in_header:
        header = damaged(header)
    else:
        stored = {key: damaged(value) for key, value in stored.items()}
    with tempfile.TemporaryDirectory() as folder:
        try:
            for tensor in read_checkpoint(write(Path(folder), header, stored)).tensors.values():
                assert np.shape(tensor.read()) == tensor.shape
        except ReadError:
            pass
