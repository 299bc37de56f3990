"""PyTorch's zip archives."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from pytorch_writer import batch_norm, state_of, write_archive

from bncheck.facts.errors import BadChecksum, Malformed, ReadError, Unsupported
from bncheck.sources import open_model
from bncheck.sources.pytorch.archive import is_pickle, read_archive
from bncheck.sources.pytorch.pytorch import read_pytorch

ARRAYS = batch_norm("bn")


def stored() -> dict[str, bytes]:
    """The bytes of every array under its key."""
    return {str(place): array.tobytes() for place, array in enumerate(ARRAYS.values())}


def test_places_are_where_the_bytes_lie(tmp_path: Path) -> None:
    """Each storage's own, with its checksum."""
    _, places = read_archive(write_archive(tmp_path / "m.pt", state_of(ARRAYS), stored()))
    for key, content in stored().items():
        place = places[key]
        assert place.file.read(place.start, place.size, what=key) == content
        assert place.crc32 is not None
        assert not place.big_endian


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    """By the CRC-32 of the member, when the tensor is read."""
    path = write_archive(tmp_path / "m.pt", state_of(ARRAYS), stored())
    place = read_archive(path)[1]["2"]
    data = bytearray(path.read_bytes())
    data[place.start] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadChecksum, match=r"bn\.running_mean does not match"):
        read_pytorch(path).tensors["bn.running_mean"].read()


def test_big_endian(tmp_path: Path) -> None:
    """Told by a member of its own."""
    path = tmp_path / "m.pt"
    written = write_archive(
        path,
        state_of(ARRAYS),
        {k: v.astype(v.dtype.newbyteorder(">")).tobytes() for k, v in zip(stored(), ARRAYS.values(), strict=True)},
    )
    data = written.read_bytes()
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    members["archive/byteorder"] = b"big"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read_pytorch(path).tensors[name].read(), array)


def test_without_a_checksum(tmp_path: Path) -> None:
    """`torch.serialization.set_crc32_options(False)` writes 0 instead."""
    path = write_archive(tmp_path / "m.pt", state_of(ARRAYS), stored())
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            data = data.replace(info.CRC.to_bytes(4, "little"), bytes(4))
    path.write_bytes(data)
    np.testing.assert_array_equal(read_pytorch(path).tensors["bn.weight"].read(), ARRAYS["bn.weight"])


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    """PyTorch writes none, and a storage is read by ranges."""
    path = tmp_path / "m.pt"
    write_archive(path, state_of(ARRAYS), stored())
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(Unsupported, match="is compressed"):
        read_archive(path)


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    """An error with the tensor's name."""
    kept = {key: content for key, content in stored().items() if key != "3"}
    with pytest.raises(Malformed, match=r"bn\.running_var lies in storage '3'"):
        read_pytorch(write_archive(tmp_path / "m.pt", state_of(ARRAYS), kept))


def test_truncated_anywhere(tmp_path: Path) -> None:
    """A named error, wherever the file ends."""
    whole = write_archive(tmp_path / "m.pt", state_of(ARRAYS), stored()).read_bytes()
    for length in range(64, len(whole) - 1, 97):
        (tmp_path / "cut.pt").write_bytes(whole[:length])
        with pytest.raises(ReadError, match=r"cut\.pt"):
            read_pytorch(tmp_path / "cut.pt")


def test_its_pickle() -> None:
    """In one folder, of any name."""
    assert is_pickle("archive/data.pkl")
    assert not is_pickle("data.pkl")
    assert not is_pickle("archive/code/data.pkl")


@pytest.mark.parametrize("member", ["m/archive_format", "serialized_exported_program.json"])
def test_programs_of_export_are_named(tmp_path: Path, member: str) -> None:
    """With what to save instead."""
    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, "pt2")
        archive.writestr("m/data/weights/weight_0", bytes(8))
    with pytest.raises(Unsupported, match=r"a program of torch\.export") as caught:
        open_model(path)
    assert "state_dict" in caught.value.hint


def test_folders_of_distributed_are_named(tmp_path: Path) -> None:
    """With the command that makes one file of them."""
    (tmp_path / "__0_0.distcp").write_bytes(bytes(8))
    with pytest.raises(Unsupported, match=r"torch\.distributed") as caught:
        open_model(tmp_path)
    assert "dcp_to_torch" in caught.value.hint
