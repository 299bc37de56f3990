"""NumPy archives (`.npz`) of named arrays: weights as people hand them on, "<layer>/<weight>" -> array."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BadChecksum, Malformed, TooLarge
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.bundle.entry import possible
from bncheck.sources.files import opened
from bncheck.sources.raw import RawModel, RawTensor

_ZIP = b"PK\x03\x04"
_MEMBER = ".npy"
_MAX_MEMBER = 1 << 32
_MAX_MEMBERS = 1 << 20
_MAX_RANK = 32
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def matches(path: Path, head: bytes) -> bool:
    """Whether a file is a zip archive of nothing but `.npy` files."""
    if not head.startswith(_ZIP):
        return False
    try:
        with opened(path) as (file, _), zipfile.ZipFile(file) as archive:
            listed = archive.namelist()
    except zipfile.BadZipFile:
        return False
    return bool(listed) and all(name.endswith(_MEMBER) for name in listed)


def read_arrays(path: Path) -> RawModel:
    """The arrays of a `.npz`: their headers are read, their data on demand. Raises Malformed, TooLarge, BadChecksum."""
    tensors: dict[str, RawTensor] = {}
    with _damaged(path, "the archive"), opened(path) as (file, _), zipfile.ZipFile(file) as archive:
        if len(archive.infolist()) > _MAX_MEMBERS:
            raise TooLarge(path, f"{len(archive.infolist()):,} members")
        for member in archive.infolist():
            name = member.filename.removesuffix(_MEMBER)
            with archive.open(member) as content:
                shape, _, dtype = _header(path, name, member, content)
            tensors[name] = RawTensor(
                name=name, dtype=dtype.name, shape=shape, read=partial(_read, path, member.filename, name)
            )
    return RawModel(path=path, format=Format(FileKind.ARRAYS), tensors=tensors)


@contextmanager
def _damaged(path: Path, what: str) -> Iterator[None]:
    """Turns what zipfile and numpy say of damaged bytes into a sentence of ours."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise BadChecksum(path, f"{what} is damaged: {error}") from None


def _header(
    path: Path, name: str, member: zipfile.ZipInfo, content: IO[bytes]
) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether in Fortran's order, dtype), once they agree with the size of the member."""
    offset = member.header_offset
    try:
        version = np.lib.format.read_magic(content)
        shape, fortran, dtype = _HEADERS[version](content)
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
        raise Malformed(path, f"{name} is no NumPy array: {error}", offset=offset) from None
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise Malformed(path, f"{name} holds Python objects or records, not numbers", offset=offset)
    if not possible(shape) or len(shape) > _MAX_RANK:
        raise Malformed(path, f"{name} has the impossible shape {list(shape)}", offset=offset)
    size = dtype.itemsize * math.prod(shape)
    if size != member.file_size - content.tell():
        reason = f"{name} has {member.file_size - content.tell():,} bytes; {list(shape)} of {dtype.name} has not"
        raise Malformed(path, reason, offset=offset)
    if size > _MAX_MEMBER:
        raise TooLarge(path, f"{name} has {size:,} bytes", offset=offset)
    return shape, fortran, dtype


def _read(path: Path, member: str, name: str) -> NDArray[Any]:
    with _damaged(path, name), opened(path) as (file, _), zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
        with archive.open(info) as content:
            shape, fortran, dtype = _header(path, name, info, content)
            data = content.read()
    values: NDArray[Any] = np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    values = values.astype(dtype.newbyteorder("="))
    values.setflags(write=False)
    return values
