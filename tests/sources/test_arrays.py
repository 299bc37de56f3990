"""NumPy archives as weight files."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.errors import Malformed, ReadError
from bncheck.sources.arrays import matches, read_arrays


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """A zip archive of these members."""
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def member(array: np.ndarray) -> bytes:
    """One `.npy` file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_back(tmp_path: Path, save: Any) -> None:
    """Arrays of any layout come back, under their names with slashes."""
    weights = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    save(tmp_path / "w.npz", **{"conv/kernel": weights, "bn/gamma": np.arange(3, dtype=">f8")})
    model = read_arrays(tmp_path / "w.npz")
    assert model.format.label == "NumPy archive"
    assert {name: tensor.shape for name, tensor in model.tensors.items()} == {"conv/kernel": (2, 3), "bn/gamma": (3,)}
    np.testing.assert_array_equal(model.tensors["conv/kernel"].read(), weights)
    assert model.tensors["bn/gamma"].read().tolist() == [0, 1, 2]
    assert not model.tensors["bn/gamma"].read().flags.writeable


def test_matches(tmp_path: Path) -> None:
    """Only an archive of nothing but arrays is one."""
    good = archive(tmp_path / "a.npz", {"a.npy": member(np.ones(2))})
    other = archive(tmp_path / "b.zip", {"a.npy": member(np.ones(2)), "config.json": b"{}"})
    assert matches(good, good.read_bytes()[:64])
    assert not matches(other, other.read_bytes()[:64])
    (tmp_path / "c").write_bytes(b"PK\x03\x04 and no more")
    assert not matches(tmp_path / "c", b"PK\x03\x04 and no more")
    assert not matches(tmp_path / "c", b"\x89HDF\r\n\x1a\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no array", "is no NumPy array"),
        (member(np.ones(4))[:-8], "has 24 bytes"),
        (member(np.array([{}], object)), "Python objects"),
        (member(np.zeros(2, [("a", "f4")])), "records"),
    ],
)
def test_malformed(tmp_path: Path, content: bytes, says: str) -> None:
    """Members that are no plain arrays are refused; nothing is unpickled."""
    with pytest.raises(Malformed, match=says):
        read_arrays(archive(tmp_path / "a.npz", {"a.npy": content}))


def test_every_flipped_byte(tmp_path: Path) -> None:
    """Damaged anywhere, the archive ends in a named error or in the same values under some name."""
    path = archive(tmp_path / "a.npz", {"a.npy": member(np.float32([1, 2, 3]))})
    whole = path.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(bytes(flipped))
        try:
            found = [tensor.read().tolist() for tensor in read_arrays(path).tensors.values()]
        except ReadError:
            continue
        assert found in ([[1, 2, 3]], [])


def test_truncated(tmp_path: Path) -> None:
    """Cut at any byte, the archive ends in a named error."""
    path = archive(tmp_path / "a.npz", {"a.npy": member(np.float32([1, 2, 3]))})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError):
            read_arrays(path)
