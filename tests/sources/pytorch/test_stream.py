"""PyTorch's files before 1.6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytorch_writer import batch_norm, pickled, state_of, write_stream

from bncheck.facts.errors import ReadError, Unsupported
from bncheck.sources.pytorch.pytorch import matches, read_pytorch
from bncheck.sources.pytorch.stream import is_stream

ARRAYS = batch_norm("bn")


def stored(order: str = "<") -> dict[str, Any]:
    """(elements, bytes) of every array under its key."""
    return {
        str(place): (array.size, array.astype(array.dtype.newbyteorder(order)).tobytes())
        for place, array in enumerate(ARRAYS.values())
    }


def values_of(path: Path) -> list[Any]:
    """Every tensor, read."""
    return [tensor.read() for tensor in read_pytorch(path).tensors.values()]


@pytest.mark.parametrize("little", [True, False])
def test_reads_back(tmp_path: Path, *, little: bool) -> None:
    """In both byte orders."""
    path = write_stream(tmp_path / "m.pth", state_of(ARRAYS), stored("<" if little else ">"), little=little)
    assert matches(path, path.read_bytes()[:64])
    found = read_pytorch(path).tensors
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name].read(), array)


def test_other_pickles_are_none(tmp_path: Path) -> None:
    """Only the magic number tells."""
    assert not is_stream(pickled({"a": 1})[:16])
    (tmp_path / "m.pth").write_bytes(pickled(0x1950A86A20F9469CFC6C) + pickled(1002) + pickled({}) * 2 + pickled([]))
    with pytest.raises(Unsupported, match="version 1002"):
        read_pytorch(tmp_path / "m.pth")


def test_truncated_anywhere(tmp_path: Path) -> None:
    """A named error, wherever the file ends; in the last storage when it is read."""
    whole = write_stream(tmp_path / "m.pth", state_of(ARRAYS), stored()).read_bytes()
    for length in range(16, len(whole) - 1, 41):
        (tmp_path / "cut.pth").write_bytes(whole[:length])
        with pytest.raises(ReadError, match=r"cut\.pth"):
            values_of(tmp_path / "cut.pth")


def test_a_count_that_lies(tmp_path: Path) -> None:
    """No memory is taken for what is not there."""
    state = state_of(ARRAYS)
    storages = stored()
    storages["0"] = (1 << 60, storages["0"][1])
    with pytest.raises(ReadError, match=r"m\.pth"):
        read_pytorch(write_stream(tmp_path / "m.pth", state, storages))
