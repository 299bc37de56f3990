"""The `.keras` archive: members read by name from the zip, never extracted, each held against its CRC-32."""

from __future__ import annotations

import zipfile
from pathlib import Path

from bncheck.facts.errors import Malformed, NoModel, TooLarge, Truncated
from bncheck.sources.content import Content
from bncheck.sources.zips import checked_member, member_start, opened_zip

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
WEIGHTS_NPZ = "model.weights.npz"

MAX_TEXT_BYTES = 1 << 27
"""Largest configuration; one of 10,000 layers has 10 MB."""

MAX_UNPACKED_BYTES = 1 << 31
"""Largest compressed weights file that is unpacked; Keras stores it uncompressed."""

SPARE_BYTES, UNPACKED_A_BYTE = 1 << 28, 32
"""Bytes that may be unpacked into memory, and more for each byte of the file: weights are hardly packed at all."""

_CHUNK = 1 << 20


def content_of(path: Path) -> Content:
    """The whole file, read as it is needed; raises NotFound, Unreadable, Truncated for an empty one."""
    content = Content.of_file(path)
    if not content.size:
        raise Truncated(path, "the file is empty", offset=0)
    return content


def read_text(path: Path, name: str) -> bytes:
    """A small member as a whole. Raises NoModel where it is absent, BadChecksum, TooLarge, Malformed."""
    with opened_zip(path, f"member {name!r}") as archive:
        info = _info(path, archive, name, MAX_TEXT_BYTES)
        return archive.read(info)


def member_content(path: Path, name: str) -> Content:
    """A member's bytes after its CRC-32 was verified: a window of the file where stored, in memory where packed.

    Raises TooLarge, Truncated, and what `opened_zip` raises.
    """
    content = content_of(path)
    with opened_zip(path, f"member {name!r}") as archive:
        info = _info(path, archive, name, len(content))
        if info.compress_type != zipfile.ZIP_STORED:
            if info.file_size > min(MAX_UNPACKED_BYTES, SPARE_BYTES + UNPACKED_A_BYTE * len(content)):
                raise TooLarge(path, f"member {name!r} unpacks to {info.file_size:,} bytes", hint="store it unpacked")
            return Content.over(path, archive.read(info))
        with archive.open(info) as member:
            while member.read(_CHUNK):  # zipfile compares the CRC at the end
                pass
        assert archive.fp is not None
        start = member_start(archive.fp, info)
        if start + info.file_size > len(content):
            raise Truncated(path, f"the file ends inside member {name!r}", offset=len(content))
        return content.part(start, info.file_size)


def _info(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> zipfile.ZipInfo:
    found = [info for info in archive.infolist() if info.filename == name]
    if not found:
        raise NoModel(path, f"the archive has no {name!r}", hint="expected what `model.save('x.keras')` writes")
    if len(found) > 1:
        raise Malformed(path, f"the archive has {len(found)} members called {name!r}")
    info = checked_member(path, found[0])
    if name != WEIGHTS and info.file_size > limit:
        raise TooLarge(path, f"member {name!r} declares {info.file_size:,} bytes; bncheck reads at most {limit:,}")
    return info
