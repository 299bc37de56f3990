"""The `.keras` archive: members read by name from the zip, never extracted, each held against its CRC-32."""

from __future__ import annotations

import mmap
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bncheck.facts.errors import BadChecksum, Malformed, NoModel, TooLarge, Truncated, Unsupported
from bncheck.sources import files

ZIP_MAGIC = b"PK\x03\x04"
CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
WEIGHTS_NPZ = "model.weights.npz"

MAX_TEXT_BYTES = 1 << 28
"""Largest configuration; one of 10,000 layers has 10 MB."""

MAX_UNPACKED_BYTES = 1 << 31
"""Largest compressed weights file that is unpacked into memory; Keras stores it uncompressed."""

MAX_EXPANSION = 1100
"""Unpacked bytes per packed byte; DEFLATE cannot exceed 1032."""

_CHUNK = 1 << 20
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30
_ZIP_RAISES = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, IndexError)
"""What `zipfile` raises on damaged archives; NotImplementedError is a RuntimeError."""


def map_file(path: Path) -> memoryview:
    """The whole file, memory mapped; raises NotFound, Unreadable, Truncated for an empty one."""
    with files.opened(path) as (file, size):
        if not size:
            raise Truncated(path, "the file is empty", offset=0)
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


@contextmanager
def reading_zip(path: Path, what: str) -> Iterator[None]:
    """The one place where zipfile's exceptions become ReadError: Unsupported, BadChecksum, Malformed, Truncated."""
    try:
        yield
    except _ZIP_RAISES as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if "Bad CRC-32" in reason:
            raise BadChecksum(path, f"{what} does not match its CRC-32", hint="copy the file again") from error
        if isinstance(error, NotImplementedError):
            raise Unsupported(path, f"{what} is packed in a way that Python cannot unpack: {reason}") from error
        if "not a zip file" in reason:
            raise Truncated(path, "the archive ends before its directory", hint="copy the file again") from error
        raise Malformed(path, f"{what} is damaged: {reason}", hint="copy the file again") from error


def member_names(path: Path) -> frozenset[str]:
    """Names in the archive; raises ReadError."""
    with files.opened(path) as (file, _), reading_zip(path, "the archive"), zipfile.ZipFile(file) as archive:
        return frozenset(archive.namelist())


def read_text(path: Path, name: str) -> bytes:
    """A small member as a whole. Raises NoModel where it is absent, BadChecksum, TooLarge, Malformed."""
    with files.opened(path) as (file, _), reading_zip(path, f"member {name!r}"), zipfile.ZipFile(file) as archive:
        info = _info(path, archive, name, MAX_TEXT_BYTES)
        return archive.read(info)


def member_content(path: Path, name: str) -> memoryview:
    """A member's bytes after its CRC-32 was verified: a window of the file where stored, in memory where packed.

    Raises TooLarge, Truncated, and what `reading_zip` raises.
    """
    content = map_file(path)
    with files.opened(path) as (file, _), reading_zip(path, f"member {name!r}"), zipfile.ZipFile(file) as archive:
        info = _info(path, archive, name, len(content))
        if info.compress_type != zipfile.ZIP_STORED:
            if info.file_size > MAX_UNPACKED_BYTES:
                raise TooLarge(path, f"member {name!r} unpacks to {info.file_size:,} bytes", hint="store it unpacked")
            return memoryview(archive.read(info))
        with archive.open(info) as member:
            while member.read(_CHUNK):  # zipfile compares the CRC at the end
                pass
        start = info.header_offset + _LOCAL_HEADER
        header = bytes(content[info.header_offset : start])
        start += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if start + info.file_size > len(content):
            raise Truncated(path, f"the file ends inside member {name!r}", offset=len(content))
        return content[start : start + info.file_size]


def _info(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == name]
    if not found:
        raise NoModel(path, f"the archive has no {name!r}", hint="expected what `model.save('x.keras')` writes")
    if len(found) > 1:
        raise Malformed(path, f"the archive has {len(found)} members called {name!r}")
    info = found[0]
    if info.flag_bits & _ENCRYPTED:
        raise Unsupported(path, f"member {name!r} is encrypted", hint="decrypt the archive first")
    packed = info.compress_type != zipfile.ZIP_STORED
    if packed and info.file_size > MAX_EXPANSION * max(info.compress_size, 1):
        raise TooLarge(path, f"member {name!r} declares {info.file_size:,} bytes in {info.compress_size:,} packed ones")
    if not packed and info.file_size != info.compress_size:
        raise Malformed(path, f"member {name!r} is stored, yet its two sizes differ")
    if name != WEIGHTS and info.file_size > limit:
        raise TooLarge(path, f"member {name!r} declares {info.file_size:,} bytes; bncheck reads at most {limit:,}")
    return info
