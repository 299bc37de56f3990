"""Whether a model's files are still those that were read: their sizes, times and inodes, before and after."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import NamedTuple

from bncheck.facts.errors import ReadError
from bncheck.sources.bundle.locate import find
from bncheck.sources.files import names, status

_OF_CHECKPOINT = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})\Z")
_OF_FOLDER = ("saved_model.pb", "saved_model.pbtxt", "config.json", "model.weights.h5")
_VARIABLES = "variables"
_MOMENT = 2_000_000_000
"""Nanoseconds for which a save may rest between two of its files."""


class Stamp(NamedTuple):
    """One file as the system tells of it."""

    path: Path
    size: int
    changed: int
    """Nanoseconds of its last modification."""
    inode: int


Stamps = frozenset[Stamp]


def stamps(path: Path) -> Stamps:
    """Of all files that a model at `path` consists of: a prefix's, a folder's, or the file itself. No error."""
    try:
        files = _files(path)
        found = ((file, status(file)) for file in files)
        return frozenset(Stamp(file, s.st_size, s.st_mtime_ns, s.st_ino) for file, s in found if s is not None)
    except ReadError:
        return frozenset()


def changed(before: Stamps, after: Stamps) -> Path | None:
    """A file that is not what it was, the first by name; None where all are."""
    return min((stamp.path for stamp in before ^ after), default=None)


def saved_now(found: Stamps) -> bool:
    """Whether it is a checkpoint of which a file was written a moment ago: its save may rest between two files."""
    is_checkpoint = any(".data-" in stamp.path.name for stamp in found)
    return is_checkpoint and max(stamp.changed for stamp in found) > time.time_ns() - _MOMENT


def _files(path: Path) -> list[Path]:
    folder = path if path.is_dir() else path.parent
    if any((folder / name).is_file() for name in _OF_FOLDER):
        inside = folder / _VARIABLES
        own = [folder / name for name in _OF_FOLDER] if folder == path or path.name in _OF_FOLDER else [path]
        return [*own, *([inside / name for name in names(inside)] if inside.is_dir() else [])]
    place = None
    try:
        place = find(path)
    except ReadError:
        if path.is_file():
            return [path]
        raise
    if place is None:
        return [path]
    beside = names(place.directory, f"{place.stem}.")
    return [place.directory / name for name in beside if _OF_CHECKPOINT.fullmatch(name, len(place.stem))]
