"""PyTorch's zip archives (`torch.save` since 1.6, TorchScript): a pickle, and a member a storage."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import IO, Any

from bncheck.facts.errors import Malformed, TooLarge, Unsupported
from bncheck.sources.files import RangedFile, opened
from bncheck.sources.pytorch.pickles import read_pickle
from bncheck.sources.pytorch.tensors import StoredBytes, read_all
from bncheck.sources.zips import check_directory, checked_member, member_start, reading_zip

PICKLE = "data.pkl"
_MAX_PICKLE = 1 << 28
_MAX_MEMBERS = 1 << 20
_LONGEST_ORDER = 16
_NO_CRC = 0
"""What is recorded instead of a CRC-32 where the writer was told to compute none."""


def read_archive(path: Path) -> tuple[Any, dict[str, StoredBytes]]:
    """(the object that was saved, where each storage lies). Raises Malformed, TooLarge, BadChecksum, Unsupported."""
    with opened(path) as (file, _), reading_zip(path, "the archive"), zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise TooLarge(path, f"{len(members):,} members")
        check_directory(path, file, archive)
        if any(is_program(member.filename) for member in members):
            raise Unsupported(
                path,
                "a program of torch.export, which is not read",
                hint='save the weights of its model: torch.save(model.state_dict(), "model.pt")',
            )
        (pickled,) = (member for member in members if is_pickle(member.filename))
        folder = pickled.filename.removesuffix(PICKLE)
        if pickled.file_size > _MAX_PICKLE:
            raise TooLarge(path, f"its pickle has {pickled.file_size:,} bytes", offset=pickled.header_offset)
        ranges = RangedFile(path)
        content = _content(ranges, file, pickled)
        big_endian = _is_big_endian(ranges, file, archive, folder)
        places = {}
        for member in members:
            key = member.filename.removeprefix(f"{folder}data/")
            if key == member.filename:
                continue
            places[key] = _place(ranges, file, member, big_endian=big_endian)
    return read_pickle(io.BytesIO(content), path, base=pickled.header_offset).value, places


def _place(ranges: RangedFile, file: IO[bytes], member: zipfile.ZipInfo, *, big_endian: bool) -> StoredBytes:
    """Where a member's bytes lie. Raises Unsupported where they are compressed."""
    checked_member(ranges.path, member)
    if member.compress_type != zipfile.ZIP_STORED:
        reason = f"{member.filename} is compressed, which PyTorch does not do"
        raise Unsupported(ranges.path, reason, offset=member.header_offset, hint="save it anew with torch.save")
    crc32 = None if member.CRC == _NO_CRC else member.CRC
    return StoredBytes(ranges, member_start(file, member), member.file_size, crc32, big_endian)


def _content(ranges: RangedFile, file: IO[bytes], member: zipfile.ZipInfo) -> bytes:
    return read_all(_place(ranges, file, member, big_endian=False), member.filename)


def _is_big_endian(ranges: RangedFile, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> bool:
    """What the archive says of its byte order; without a word, as before PyTorch 2.1, it is little endian."""
    if f"{folder}byteorder" not in archive.NameToInfo:
        return False
    member = archive.getinfo(f"{folder}byteorder")
    told = _content(ranges, file, member) if member.file_size < _LONGEST_ORDER else b"?"
    if told not in (b"little", b"big"):
        raise Malformed(ranges.path, f"its byte order is {told!r}", offset=member.header_offset)
    return told == b"big"


def is_pickle(member: str) -> bool:
    """Whether a member is the pickle of an archive: `data.pkl`, in one folder."""
    return member.rpartition("/")[2] == PICKLE and member.count("/") == 1


def is_program(member: str) -> bool:
    """Whether a member tells the version of a `torch.export` archive (`.pt2`)."""
    return member.rpartition("/")[2] in ("archive_format", "serialized_exported_program.json")
