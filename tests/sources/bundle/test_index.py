"""Indexes of one layout: read again by their checksums alone, with the same tensors, and the same errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

from bncheck.facts.errors import ReadError
from bncheck.sources.bundle.checkpoint import Tensors, read_checkpoint
from bncheck.sources.bundle.index import IndexMemory


def _write(prefix: Path, seed: int, *, more: bool = False) -> Path:
    random = np.random.default_rng(seed)
    tensors = {f"layer_{n}/gamma": random.normal(size=5 + n).astype(np.float32) for n in range(30)}
    tensors["global_step"] = np.array(seed, np.int64)
    write_bundle(prefix, {**tensors, "zero": np.zeros(3)} if more else tensors)
    return prefix


def _tensors(path: Path, memory: IndexMemory | None = None) -> Tensors:
    found = read_checkpoint(path, memory).tensors
    assert isinstance(found, Tensors)
    return found


def test_the_same_tensors(tmp_path: Path) -> None:
    """Values, checksums and shapes as without a memory; all at once as one by one."""
    memory = IndexMemory()
    first = _tensors(_write(tmp_path / "a", 1), memory)
    for name, seed in (("b", 2), ("c", 3)):
        path = _write(tmp_path / name, seed)
        again, alone = _tensors(path, memory), _tensors(path)
        assert again.same_layout(first)
        assert not again.same_values(first, ["layer_3/gamma"])
        assert list(again) == list(alone)
        together = again.read_all(list(alone))
        for key, tensor in alone.items():
            assert np.array_equal(again[key].read(), tensor.read())
            assert np.array_equal(together[key], tensor.read())
            assert (again[key].crc32c, again[key].shape) == (tensor.crc32c, tensor.shape)


def test_another_layout(tmp_path: Path) -> None:
    """A key more: read from the beginning."""
    memory = IndexMemory()
    first = _tensors(_write(tmp_path / "a", 1), memory)
    other = _tensors(_write(tmp_path / "b", 2, more=True), memory)
    assert not other.same_layout(first)
    assert np.array_equal(other["zero"].read(), np.zeros(3))


def test_an_absent_data_file(tmp_path: Path) -> None:
    """The same index but for checksums says nothing of the file beside it."""
    memory = IndexMemory()
    first = _tensors(_write(tmp_path / "a", 1), memory)
    assert first["global_step"].unavailable is None
    path = _write(tmp_path / "b", 2)
    path.with_name("b.data-00000-of-00001").unlink()
    other = _tensors(path, memory)
    assert not other.same_layout(first)
    assert other["global_step"].unavailable is not None


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_the_same_errors(tmp_path: Path, suffix: str) -> None:
    """Each damaged byte: the error, or the values, of reading it alone."""
    memory = IndexMemory()
    _tensors(_write(tmp_path / "a", 1), memory)
    path = _write(tmp_path / "b", 2)
    file = path.with_name(f"b{suffix}")
    content = file.read_bytes()
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        assert _told(path, memory) == _told(path, None)
    file.write_bytes(content[:-9])
    assert _told(path, memory) == _told(path, None)


def _told(path: Path, memory: IndexMemory | None) -> str:
    try:
        tensors = _tensors(path, memory)
        return str(
            {key: value.tobytes() for key, value in sorted(tensors.read_all(["global_step", "layer_7/gamma"]).items())}
        )
    except ReadError as error:
        return str(error)
