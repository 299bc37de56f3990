"""Opening what a user names: regular files only, operating system errors as sentences, sizes before memory."""

from __future__ import annotations

import errno
import os
import stat
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice, takewhile
from pathlib import Path
from typing import BinaryIO
from weakref import finalize

from bncheck.facts.errors import NotFound, TooLarge, Truncated, UnknownFormat, Unreadable
from bncheck.sources.remote import RemotePath

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS has not fetched yet."""

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def status(path: Path) -> os.stat_result | None:
    """What the path names, links followed; None where nothing is there. Raises NotFound for a dangling link."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise NotFound(path, f"a symbolic link to {path.readlink()}, which does not exist") from None
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotFound(path, "a symbolic link that leads back to itself") from None
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise Unreadable(path, f"system error: {error.strerror}") from None
    except ValueError as error:
        raise NotFound(repr(str(path)), f"no path: {error}") from None


def is_file(path: Path) -> bool:
    """Whether a regular file is there."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def names(directory: Path, start: str = "") -> list[str]:
    """Names in a directory that begin with `start`, sorted. Raises Unreadable."""
    try:
        found = sorted(directory.names()) if isinstance(directory, RemotePath) else _listed(directory)
    except OSError as error:
        raise Unreadable(directory, f"the directory cannot be listed: {error.strerror}") from None
    first = bisect_left(found, start)
    return list(takewhile(lambda name: name.startswith(start), islice(found, first, None))) if start else list(found)


_RESTED = 2_000_000_000
"""Nanoseconds for which a directory was left alone before its listing is kept: some systems tell times no finer."""


def _listed(directory: Path) -> Sequence[str]:
    """Sorted; for many checkpoints in one directory that nobody changes it is listed once in a second.

    No longer, for some file systems in user space do not tell when a directory changed.
    """
    found = directory.stat()
    if abs(time.time_ns() - found.st_mtime_ns) > _RESTED:
        told = (found.st_dev, found.st_ino, found.st_mtime_ns, int(time.monotonic()))
        return _listing(os.fspath(directory.absolute()), told)
    return sorted(os.listdir(directory))  # noqa: PTH208 - pathlib's takes ten times as long


@lru_cache(maxsize=4)
def _listing(directory: str, _told: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(directory)))  # noqa: PTH208 - as above


def require_file(path: Path) -> os.stat_result:
    """The status of a regular file, links followed. Raises NotFound, and Unreadable for anything else.

    To open a FIFO would wait for a writer, and a device may have no end.
    """
    found = status(path)
    if found is None:
        raise NotFound(path, "no such file")
    for of_kind, kind in _KINDS:
        if of_kind(found.st_mode):
            raise Unreadable(path, f"{kind}, not a file")
    return found


def require_inside(path: Path, folder: Path) -> None:
    """As `require_file`, for a file found in a folder: raises Unreadable too for a link that leads out of it."""
    require_file(path)
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise Unreadable(path, f"a link that leads out of {folder}", hint="replace it with a copy of the file")


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A regular file, open for reading, and its size in bytes. Raises NotFound, Unreadable."""
    size = require_file(path).st_size
    with _refusals(path), path.open("rb") as file:
        yield file, size


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Errors of the operating system as sentences."""
    try:
        yield
    except OSError as error:
        raise Unreadable(path, f"system error: {error.strerror}") from None


def read_head(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file, fewer where it is shorter."""
    with opened(path) as (file, _):
        return file.read(size)


def read_tail(path: Path, size: int) -> bytes:
    """The last bytes of a file, fewer where it is shorter."""
    with opened(path) as (file, length):
        file.seek(max(0, length - size))
        return file.read(size)


def read_whole(path: Path, *, limit: int) -> bytes:
    """The whole file. Raises TooLarge above `limit` bytes, UnknownFormat for an unfetched Git LFS pointer."""
    with opened(path) as (file, length):
        if length > limit:
            raise TooLarge(path, f"{length:,} bytes; bncheck reads at most {limit:,} of such a file")
        data = file.read(min(length, limit) + 1)  # as many bytes are taken of memory
    if data.startswith(LFS_POINTER):
        raise not_fetched(path)
    return data


_AHEAD = 1 << 16
"""Bytes that are read at once where less is asked for: the statistics of neighbouring layers lie side by side."""


_AHEAD_OF_REMOTE = 1 << 14
"""The same over a network: 200 statistics that lie apart take 3 MB."""


def _ahead(path: Path) -> int:
    return _AHEAD_OF_REMOTE if isinstance(path, RemotePath) else _AHEAD


class RangedFile:
    """A regular file of which many small ranges are read: opened once, closed with the last reference to it."""

    def __init__(self, path: Path) -> None:
        """Raises NotFound, Unreadable."""
        require_file(path)
        self.path = path
        with _refusals(path):
            self._file = path.open("rb", buffering=_ahead(path))
        finalize(self, self._file.close)

    def read(self, offset: int, size: int, *, what: str) -> bytes:
        """`size` bytes from `offset`; the file's length is checked before memory is taken. Raises Truncated.

        Read, not mapped: a mapped file that another process cuts short would take this one down with SIGBUS.
        """
        path, file = self.path, self._file
        if size <= _ahead(path):
            with _refusals(path):
                file.seek(offset)
                data = file.read(size)
            if len(data) == size:
                return data
        with _refusals(path):
            length = self._length()
            if offset + size > length:
                file.seek(0)
                if file.read(len(LFS_POINTER)) == LFS_POINTER:
                    raise not_fetched(path)
                reason = f"the file ends before {what}, which needs {size:,} bytes from byte {offset:,}"
                raise Truncated(path, reason, offset=length, hint="copy the file again")
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise Truncated(path, f"the file became shorter while {what} was read", offset=offset + len(data))
        return data

    def read_some(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, fewer where the file ends before. Raises Unreadable."""
        with _refusals(self.path):
            size = max(0, min(stop, self._length()) - start)
            if not isinstance(self.path, RemotePath) and hasattr(os, "pread"):
                return os.pread(self._file.fileno(), size, start)  # no more than is asked for
            self._file.seek(start)
            return self._file.read(size)

    def _length(self) -> int:
        remote = isinstance(self.path, RemotePath)
        return self.path.stat().st_size if remote else os.fstat(self._file.fileno()).st_size


def not_fetched(path: Path) -> UnknownFormat:
    """The error for a Git LFS pointer in place of the file."""
    return UnknownFormat(path, "a Git LFS pointer, not the file itself", hint="run `git lfs pull`")
