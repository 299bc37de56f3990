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
        (b"no array", "is not a NumPy array"),
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


def header(text: str, version: int = 1) -> bytes:
    """A `.npy` whose header is this text, with sixteen bytes of values."""
    content = f"{text}\n".encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + len(content).to_bytes(2 if version == 1 else 4, "little") + content


ODD_HEADERS = (
    "{",
    "{'descr':'<f4'",
    "\\N{",
    "[" * 300 + "]" * 300,
    "-" * 5000 + "1",
    "{[]: 1, 'descr': '<f4', 'fortran_order': False, 'shape': (4,)}",
    "{'descr': None, 'fortran_order': False, 'shape': (4,)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 30},)}}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'9' * 5000},)}}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': (0, {'9' * 18}, 9)}}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 40})}}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1924145348608,)}",
    "{'descr': '|S0', 'fortran_order': False, 'shape': (1924145348608,)}",
    "{'descr': ('<f4', (999999999, 9999999999)), 'fortran_order': False, 'shape': (4,)}",
)


@pytest.mark.parametrize("version", [1, 2, 3, 9])
@pytest.mark.parametrize("text", ODD_HEADERS)
def test_odd_headers(tmp_path: Path, text: str, version: int) -> None:
    """Headers that are no Python literal, nest without end, or declare what is not there are named, as weights."""
    with pytest.raises(Malformed, match=r"a is not a NumPy array|a has 16 bytes") as caught:
        read_arrays(archive(tmp_path / "a.npz", {"a.npy": header(text, version) + bytes(16)}))
    assert len(str(caught.value)) < 600


def test_hidden_members(tmp_path: Path) -> None:
    """An archive whose directory lists fewer members than there are is refused, whichever is missing."""
    values = {name: member(np.ones(4)) for name in ("bn/moving_mean.npy", "bn/moving_variance.npy", "x.npy")}
    for hidden in values:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as file:
            for name, array in values.items():
                file.writestr(name, array)
            file.filelist = [info for info in file.filelist if info.filename != hidden]
        (tmp_path / "a.npz").write_bytes(content.getvalue())
        with pytest.raises(Malformed, match="a member that its directory does not list"):
            read_arrays(tmp_path / "a.npz")


def test_names_listed_twice(tmp_path: Path) -> None:
    """Two members of one name: nothing tells which of them is meant."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.npy", member(np.ones(4)))
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("a.npy", member(np.zeros(4)))
    with pytest.raises(Malformed, match=r"lists 'a.npy' twice"):
        read_arrays(path)


def test_name_that_is_no_text(tmp_path: Path) -> None:
    """A name marked as UTF-8 that is none ends in an error of the archive's, not in one of Python's."""
    path = archive(tmp_path / "a.npz", {"é.npy": member(np.ones(4))})
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    assert matches(path, path.read_bytes()[:64])
    with pytest.raises(ReadError, match="is damaged"):
        read_arrays(path)


def test_appended_archives_are_read(tmp_path: Path) -> None:
    """An archive that was written to twice keeps the first directory between its members: no member is hidden."""
    path = archive(tmp_path / "a.npz", {"a.npy": member(np.ones(4))})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("b.npy", member(np.ones(4)))
    assert set(read_arrays(path).tensors) == {"a", "b"}
