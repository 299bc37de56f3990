"""The bytes of a file, read by ranges as they are asked for: a file that another process cuts short is an error.

Mapped into memory, such a file would take this process down with SIGBUS at the next page that is no longer there.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TypeAlias

from bncheck.facts.errors import Truncated, Unreadable
from bncheck.sources.files import opened, require_file
from bncheck.sources.remote import RemotePath

Span: TypeAlias = "bytes | memoryview"

WHOLE = 1 << 22
"""Bytes up to which a file is read at once; of a larger one pages are kept for what is small, and tensors are not."""
_PAGE = 1 << 16
_OVERLAP = 16
"""By which a page reaches into the next one, so that no number lies across two."""
_MOST_PAGES = 64


class _OpenFile:
    """A descriptor that is closed with the last tensor that lies in the file."""

    def __init__(self, number: int) -> None:
        self.number = number

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset`."""
        return os.pread(self.number, size, offset)

    def __del__(self) -> None:
        os.close(self.number)


class _RemoteFile:
    """The same of a file on another machine."""

    def __init__(self, path: RemotePath) -> None:
        self._path = path

    def read_at(self, offset: int, size: int) -> bytes:
        return self._path.fetch(offset, offset + size)


class Content:
    """`size` bytes: of memory, or of an open file from `start` on, whose name may be given to another meanwhile."""

    def __init__(
        self,
        path: Path,
        size: int,
        *,
        memory: memoryview | None = None,
        file: _OpenFile | _RemoteFile | None = None,
        start: int = 0,
    ) -> None:
        self.path = path
        self.size = size
        self._memory = memory
        self._file = file
        self._start = start
        self._pages: dict[int, bytes] = {}

    @classmethod
    def of_file(cls, path: Path) -> Content:
        """The file at `path`. Raises NotFound, Unreadable."""
        if isinstance(path, RemotePath):
            content = cls(path, require_file(path).st_size, file=_RemoteFile(path))
        else:
            with opened(path) as (stream, _):
                file = _OpenFile(os.dup(stream.fileno()))
            content = cls(path, os.fstat(file.number).st_size, file=file)
        return content if content.size > WHOLE else cls.over(path, content.read(0, content.size))

    @classmethod
    def over(cls, path: Path, data: Span) -> Content:
        """Bytes at hand; errors name `path`."""
        return cls(path, len(data), memory=memoryview(data))

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, place: slice) -> Span:
        """A slice as of bytes: what lies beyond the end is left out."""
        start, stop, _ = place.indices(self.size)
        return self.read(start, max(stop - start, 0))

    def part(self, start: int, size: int) -> Content:
        """`size` bytes from `start`, which must exist, as content of its own."""
        if self._memory is not None:
            return Content(self.path, size, memory=self._memory[start : start + size])
        return Content(self.path, size, file=self._file, start=self._start + start)

    def read(self, offset: int, size: int) -> Span:
        """`size` bytes from `offset`. Raises Truncated where they are not, or no longer, there; Unreadable."""
        if offset < 0 or size < 0 or offset + size > self.size:
            reason = f"{size:,} bytes from byte {offset:,} are asked for, and the file ends at {self.size:,}"
            raise Truncated(self.path, reason, offset=self.size)
        if self._memory is not None:
            return self._memory[offset : offset + size]
        return self._from_disk(offset, size)

    def unpack(self, layout: struct.Struct, offset: int) -> int:
        """One number. Raises as `read`."""
        if not 0 <= offset <= self.size - layout.size:
            self.read(offset, layout.size)
        if self._memory is not None:
            value: int = layout.unpack_from(self._memory, offset)[0]
            return value
        number, within = divmod(offset, _PAGE)
        if number not in self._pages:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            start = number * _PAGE
            self._pages[number] = self._from_disk(start, min(_PAGE + _OVERLAP, self.size - start))
        found: int = layout.unpack_from(self._pages[number], within)[0]
        return found

    def _from_disk(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        parts, left = [], size
        try:
            while left:
                part = self._file.read_at(self._start + offset + size - left, min(left, 1 << 30))
                if not part:
                    at = self._start + offset + size - left
                    raise Truncated(self.path, "the file became shorter while it was read", offset=at)
                parts.append(part)
                left -= len(part)
        except OSError as error:
            raise Unreadable(self.path, f"system error: {error.strerror}") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)
