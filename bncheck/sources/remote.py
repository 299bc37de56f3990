"""Paths on other machines, as far as sources ask for them: listed by fsspec, and read by ranges alone.

`gs://`, `s3://`, `hf://`, `http://`, `memory://` and whatever else fsspec knows (the extra `remote`). Files of this
machine are not read by that way, nor are chains of protocols ("zip://a::http://b").
"""

from __future__ import annotations

import io
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any, TypeVar, cast

from bncheck.facts.errors import ReadError, Unreadable, UsageError
from bncheck.facts.extras import install

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://.+", re.DOTALL)
_COLLAPSED = re.compile(r"([a-z][a-z0-9+.-]*):/", re.DOTALL)
_LOCAL = ("file", "local")
_MARKS = ("ETag", "etag", "mtime", "LastModified", "updated", "created")
"""By which file systems tell whether a file is still what it was."""

_MOMENT = 2.0
"""Seconds for which an answer holds; what is read of a checkpoint is checksummed besides."""
_MOST_ANSWERS = 10_000
_ANSWERS: dict[tuple[str, str], tuple[float, Any]] = {}

_T = TypeVar("_T")


def located(path: Path | str) -> Path:
    """The path that a user means: of this machine, or, of an address with a protocol, of another one."""
    if isinstance(path, str):
        return RemotePath(path) if is_remote(path) else Path(path)
    return path


def is_remote(path: str) -> bool:
    """Whether this is an address on another machine."""
    found = _URL.fullmatch(path)
    return found is not None and found["protocol"] not in _LOCAL


class RemotePath(PosixPath):
    """A path below an address such as `gs://bucket/run`; it can be listed, and opened to be read."""

    def __str__(self) -> str:
        return _COLLAPSED.sub(r"\1://", super().__str__(), count=1)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:  # noqa: ARG002 - there are none
        """Kind and size; what tells that it changed stands in the time of its last modification.

        Raises FileNotFoundError, Unreadable where it cannot be reached, UsageError where its protocol is not known.
        """
        status: os.stat_result | None = self._remembered("stat", self._status)
        if status is None:
            raise FileNotFoundError(str(self))
        return status

    def names(self) -> list[str]:
        """Names in a folder, in any order. Raises Unreadable."""
        found: list[str] = self._remembered("names", self._listed)
        return found

    def _status(self) -> os.stat_result | None:
        try:
            found: dict[str, Any] = self._asked(lambda system, path: system.info(path))
        except FileNotFoundError:
            return None
        mark = next((found[name] for name in _MARKS if found.get(name) is not None), 0)
        folder = found.get("type") == "directory" or (_is_page(found) and self._asked(_lists_files))
        size = 0 if folder else found.get("size")
        if size is None:
            raise Unreadable(self, "its server does not tell its size, so no part of it can be asked for")
        kind = stat.S_IFDIR | 0o555 if folder else stat.S_IFREG | 0o444
        return os.stat_result((kind, 0, 0, 1, 0, 0, size, 0, 0, 0), {"st_mtime_ns": hash(str(mark))})

    def _listed(self) -> list[str]:
        found = self._asked(lambda system, path: system.ls(path, detail=False))
        inside = {PurePosixPath(str(entry).rstrip("/")).name for entry in found}
        return [name for name in inside if name not in ("", ".", "..") and "?" not in name]

    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to before `stop`, all of which the file must have. Raises Unreadable."""
        if stop <= start:
            return b""
        data: bytes = self._asked(lambda system, path: system.cat_file(path, start=start, end=stop))
        if len(data) != stop - start:
            reason = f"{stop - start:,} bytes from byte {start:,} were asked for, and {len(data):,} came"
            raise Unreadable(self, reason, hint="its server must serve ranges")
        return data

    def open(self, mode: str = "r", buffering: int = -1, **_: Any) -> IO[Any]:  # type: ignore[override]
        """Opens it to be read as bytes, by ranges of `buffering` bytes or as many as are asked for."""
        if mode != "rb":
            raise Unreadable(self, "bncheck writes to this machine only")
        return io.BufferedReader(_Ranges(self), io.DEFAULT_BUFFER_SIZE if buffering < 1 else buffering)

    def is_dir(self, **_: Any) -> bool:
        """Whether a folder is there."""
        return self._is(stat.S_ISDIR)

    def is_file(self, **_: Any) -> bool:
        """Whether a file is there."""
        return self._is(stat.S_ISREG)

    def exists(self, **_: Any) -> bool:
        """Whether anything is there."""
        return self._is(bool)

    def is_symlink(self) -> bool:
        """No link is followed, and none is seen."""
        return False

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002, FBT001, FBT002 - as pathlib has it
        """The path itself."""
        return self

    def absolute(self) -> RemotePath:
        """The path itself."""
        return self

    def _remembered(self, what: str, ask: Callable[[], Any]) -> Any:
        """The answer of a moment ago, for reading a model asks for most things several times."""
        key, now = (what, str(self)), time.monotonic()
        asked, answer = _ANSWERS.get(key, (now - _MOMENT, None))
        if now - asked < _MOMENT:
            return answer
        if len(_ANSWERS) >= _MOST_ANSWERS:
            _ANSWERS.clear()
        answer = ask()
        _ANSWERS[key] = (time.monotonic(), answer)
        return answer

    def _is(self, of_kind: Callable[[int], bool]) -> bool:
        try:
            return of_kind(self.stat().st_mode)
        except FileNotFoundError:
            return False

    def _asked(self, question: Callable[[Any, str], _T]) -> _T:
        """What its file system answers. Raises as `stat`."""
        address = str(self)
        if not is_remote(address) or "::" in address:
            raise UsageError(f"{address}: no address that bncheck reads: give one protocol, such as gs://bucket/folder")
        try:
            from fsspec.core import url_to_fs  # noqa: PLC0415 - optional
        except ImportError:
            raise UsageError(f"{address} is on another machine: reading it needs fsspec: {install('remote')}") from None
        try:
            system, path = cast("Any", url_to_fs)(address)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{address}: {error}") from None
        try:
            return question(system, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            cause = error.__cause__  # some file systems say so of a server that does not answer
            if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                raise Unreadable(self, f"it cannot be reached: {cause}") from None
            raise FileNotFoundError(address) from None
        except ReadError:
            raise
        except Exception as error:  # noqa: BLE001 - each file system has errors of its own
            raise Unreadable(self, f"it cannot be fetched: {error or type(error).__name__}") from None


def _is_page(found: dict[str, Any]) -> bool:
    """Whether a web server answers with a page, as it does for folders that it lists."""
    return str(found.get("name", "")).startswith("http") and str(found.get("mimetype", "")).startswith("text/html")


def _lists_files(system: Any, path: str) -> bool:
    return bool(system.isdir(path.rstrip("/") + "/"))


class _Ranges(io.RawIOBase):
    """A remote file as a stream: each read is one range."""

    def __init__(self, path: RemotePath) -> None:
        super().__init__()
        self._path, self._place = path, 0
        self._size = path.stat().st_size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any) -> int:
        data = self._path.fetch(self._place, min(self._place + len(buffer), self._size))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
