"""Errors that end in one sentence for the user: what is wrong, where (path, offset), what to do."""

from __future__ import annotations

from pathlib import Path


class BncheckError(Exception):
    """Root of all errors a user can cause; the command line turns them into exit code 2."""


class NotJudged(BncheckError):
    """What was asked for is beyond bncheck, with this model: the answer is inconclusive, and says why."""


class UsageError(BncheckError):
    """Arguments that cannot be served together."""


class ConfigError(BncheckError):
    """`[tool.bncheck]`, `bncheck.toml` or a baseline file that cannot be used."""


class ReadError(BncheckError):
    """An input that cannot be read. `offset` is the byte at which reading stopped, None where there is none."""

    def __init__(self, path: str | Path, reason: str, *, offset: int | None = None, hint: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.offset = offset
        self.hint = hint
        super().__init__(path, reason, offset, hint)

    def __str__(self) -> str:
        where = self.path if self.offset is None else f"{self.path}, byte {self.offset:,}"
        return f"{where}: {self.reason}" + (f" ({self.hint})" if self.hint else "")


class NotFound(ReadError):
    """No such file or prefix."""


class Unreadable(ReadError):
    """The operating system refuses: permissions, I/O error."""


class UnknownFormat(ReadError):
    """The content is of no format that bncheck reads."""


class Truncated(ReadError):
    """The file ends before what it declares."""


class BadChecksum(ReadError):
    """A stored checksum does not match the bytes."""


class Malformed(ReadError):
    """The bytes contradict their own format."""


class TooLarge(ReadError):
    """A declared size is above what bncheck is willing to allocate."""


class Unsupported(ReadError):
    """A known format or variant that bncheck does not read; the hint says what to do instead."""


class NoModel(ReadError):
    """A readable place that holds no model: exit code 3."""
