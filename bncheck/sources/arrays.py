"""NumPy archives (`.npz`) of named arrays: weights as people hand them on, "<layer>/<weight>" -> array."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, ReadError, TooLarge
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.files import opened
from bncheck.sources.npy import NpyHeader, npy_values, read_npy_header
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.zips import ZIP_MAGIC, check_directory, checked_member, member_names, opened_zip, reading_zip

MEMBER = ".npy"
"""How the name of every member ends."""
_ARCHIVE = ".npz"
_MAX_MEMBER = 1 << 32
_MAX_MEMBERS = 1 << 20


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is a zip archive of nothing but `.npy` files, or, damaged, is called as one."""
    if not head.startswith(ZIP_MAGIC):
        return False
    try:
        listed = member_names(path)
    except ReadError:
        return path.suffix == _ARCHIVE
    return bool(listed) and all(name.endswith(MEMBER) for name in listed)


def read_arrays(path: Path) -> RawModel:
    """The arrays of a `.npz`: their headers are read, their data on demand. Raises Malformed, TooLarge, BadChecksum."""
    tensors: dict[str, RawTensor] = {}
    with opened(path) as (file, _), reading_zip(path, "the archive"), zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > _MAX_MEMBERS:
            raise TooLarge(path, f"{len(archive.infolist()):,} members")
        check_directory(path, file, archive)
        for member in archive.infolist():
            name = member.filename.removesuffix(MEMBER)
            with archive.open(member) as content:
                header = _header(path, member, content)
            tensors[name] = RawTensor(
                name=name, dtype=header.dtype.name, shape=header.shape, read=partial(_read, path, member.filename)
            )
    return RawModel(path=path, format=Format(FileKind.ARRAYS), tensors=tensors)


def read_member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array of an archive that is open. Raises Malformed, TooLarge, BadChecksum, and KeyError for no such name."""
    info = archive.getinfo(name)
    with reading_zip(path, name.removesuffix(MEMBER)), archive.open(info) as content:
        header = _header(path, info, content)
        return npy_values(header, content.read())


def _header(path: Path, member: zipfile.ZipInfo, content: IO[bytes]) -> NpyHeader:
    """What a member declares, once that agrees with its size."""
    name, offset = member.filename.removesuffix(MEMBER), member.header_offset
    checked_member(path, member)
    try:
        header = read_npy_header(content)
    except ValueError as error:
        raise Malformed(path, f"{name} is not a NumPy array: {error}", offset=offset) from None
    stored = member.file_size - header.offset
    if header.size != stored:
        reason = f"{name} has {stored:,} bytes; {list(header.shape)} of {header.dtype.name} has not"
        raise Malformed(path, reason, offset=offset)
    if header.size > _MAX_MEMBER:
        raise TooLarge(path, f"{name} has {header.size:,} bytes", offset=offset)
    return header


def _read(path: Path, name: str) -> NDArray[Any]:
    with opened_zip(path, name.removesuffix(MEMBER)) as archive:
        return read_member(path, archive, name)
