"""Zip archives of whoever wrote them: errors are ReadErrors, sizes come before memory, directories hide nothing."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bncheck.facts.errors import BadChecksum, Malformed, ReadError, TooLarge, Truncated, Unsupported
from bncheck.sources import files

ZIP_MAGIC = b"PK\x03\x04"

MAX_EXPANSION = 1100
"""Unpacked bytes per packed byte; DEFLATE cannot exceed 1032."""

LOCAL_HEADER = 30
"""Bytes before a member's name."""

_ENCRYPTED = 0x1
_ZIP_RAISES = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    IndexError,
    OverflowError,
    MemoryError,
)
"""What `zipfile` raises on damaged archives; NotImplementedError is a RuntimeError, UnicodeDecodeError a ValueError."""


@contextmanager
def reading_zip(path: Path, what: str) -> Iterator[None]:
    """The one place where zipfile's exceptions become ReadError: Unsupported, BadChecksum, Malformed, Truncated."""
    try:
        yield
    except ReadError:
        raise
    except _ZIP_RAISES as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "Bad CRC-32" in reason:
            raise BadChecksum(path, f"{what} does not match its CRC-32", hint="copy the file again") from error
        if isinstance(error, NotImplementedError):
            raise Unsupported(path, f"{what} is packed in a way that Python cannot unpack: {reason}") from error
        if "not a zip file" in reason:
            raise Truncated(path, "the archive ends before its directory", hint="copy the file again") from error
        raise Malformed(path, f"{what} is damaged: {reason}", hint="copy the file again") from error


@contextmanager
def opened_zip(path: Path, what: str = "the archive") -> Iterator[zipfile.ZipFile]:
    """An archive, open for reading. Raises as `reading_zip`."""
    with files.opened(path) as (file, _), reading_zip(path, what), zipfile.ZipFile(file) as archive:
        yield archive


def member_names(path: Path) -> frozenset[str]:
    """Names in the archive; raises ReadError."""
    with opened_zip(path) as archive:
        return frozenset(archive.namelist())


def checked_member(path: Path, info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """The member, once its declared size can be true. Raises Unsupported, TooLarge, Malformed."""
    name = info.filename
    if info.flag_bits & _ENCRYPTED:
        raise Unsupported(path, f"member {name!r} is encrypted", hint="decrypt the archive first")
    packed = info.compress_type != zipfile.ZIP_STORED
    if packed and info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
        raise TooLarge(path, f"member {name!r} declares {info.file_size:,} bytes in {info.compress_size:,} packed ones")
    if not packed and info.file_size != info.compress_size:
        raise Malformed(path, f"member {name!r} is stored, yet its two sizes differ")
    return info


def check_directory(path: Path, file: IO[bytes], archive: zipfile.ZipFile) -> None:
    """Raises Malformed where a member lies in the archive that its directory does not list, or lists twice.

    A damaged directory would otherwise make a model of fewer tensors, which another verdict may be right for.
    """
    listed = archive.infolist()
    names = [info.filename for info in listed]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(path, f"the archive lists {twice!r} twice")
    starts = {info.header_offset for info in listed}
    ends = {0, *(member_start(file, info) + info.compress_size for info in listed)}
    for end in sorted(ends - starts):
        file.seek(end)
        if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC:
            raise Malformed(path, "the archive holds a member that its directory does not list", offset=end)


def member_start(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its local header, whose name and extra field have lengths of their own."""
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return info.header_offset + LOCAL_HEADER + lengths
