"""Output that is either whole or not there: written apart, beside its place, and given its name at the very end."""

from __future__ import annotations

import filecmp
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bncheck.facts.errors import BncheckError, UsageError

_COPY_BYTES = 1 << 22


@contextmanager
def workshop(beside: Path) -> Iterator[Path]:
    """A hidden directory `.<name>.bncheck-*` on the same file system as `beside`; it is gone afterwards.

    A process that is killed outright leaves it behind, to be deleted by hand: nothing reads it.
    Raises UsageError where the directory of `beside` does not exist or cannot be written to, BncheckError where that
    ends in the middle.
    """
    folder = beside.parent / f".{beside.name}.bncheck-{secrets.token_hex(8)}"
    try:
        # within, so that an interrupt right after it is made takes it away too
        _make(folder)
        yield folder
    except OSError as error:
        # a full disk: what was read has its own errors
        raise BncheckError(f"{beside}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise UsageError(f"{folder.parent}: cannot write there: {error.strerror}") from error


def publish(written: Sequence[tuple[Path, Path]]) -> None:
    """Gives finished files their names, in this order; the last is the one without which the others mean nothing.

    A name that exists is never replaced: linking fails where renaming would overwrite. One that has these very bytes,
    from a run that was ended in the middle, stands for the file. All bytes reach the disk before the first name exists.
    Raises UsageError where a name is taken.
    """
    for source, _ in written:
        _to_disk(source)
    done: list[Path] = []
    for source, target in written:
        try:
            _name(source, target)
        except FileExistsError:
            if _same(source, target):
                continue
            for named in done:
                named.unlink(missing_ok=True)
            raise taken(target) from None
        done.append(target)
    _to_disk(written[-1][1].parent)


def publish_directory(source: Path, target: Path) -> None:
    """Gives a finished directory its name, in one step. Raises UsageError where the name is taken."""
    for folder, _, files in os.walk(source):
        for name in files:
            _to_disk(Path(folder) / name)
        _to_disk(Path(folder))
    if os.path.lexists(target):
        raise taken(target)
    source.rename(target)
    _to_disk(target.parent)


def taken(target: Path) -> UsageError:
    """The error for an output that exists."""
    return UsageError(f"{target} already exists and is not overwritten: choose another name, or delete it")


def copy(source: Path, target: Path) -> None:
    """The bytes of a file under another name, whatever its size; a link is followed."""
    with source.open("rb") as reading, target.open("wb") as writing:
        shutil.copyfileobj(reading, writing, _COPY_BYTES)


def _name(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(target) from None
        source.rename(target)


def _same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes."""
    return other.is_file() and not other.is_symlink() and filecmp.cmp(one, other, shallow=False)


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
