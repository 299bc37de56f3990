"""Which files a project's `.gitignore` leaves out, by git's own pattern language (pathspec)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from bncheck.sources.files import is_file

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

NAME = ".gitignore"
_LONGEST = 1 << 20
"""Bytes; a longer file is no list of patterns, and is not read."""


def ignored_by(folder: Path) -> Callable[[Path], bool]:
    """A function that tells whether a path below `folder` is ignored.

    The files that count are those of the repository that `folder` lies in, from its root down; without one, those from
    `folder` down. A deeper file has the last word, as in git. Where `folder` itself is ignored nothing below it is:
    whoever names it wants it.
    """
    start = folder.absolute()
    root = next((place for place in (start, *start.parents) if (place / ".git").exists()), start)
    specs = lru_cache(maxsize=None)(_spec)

    def ignored(path: Path) -> bool:
        whole = path.absolute()
        for place in whole.parents:
            spec = specs(place)
            if spec is not None:
                relative = whole.relative_to(place).as_posix() + ("/" if path.is_dir() else "")
                found = spec.check_file(relative).include
                if found is not None:
                    return bool(found)
            if place == root:
                break
        return False

    if start != root and any(ignored(p) for p in (start, *start.parents) if root in p.parents):
        return lambda _path: False
    return ignored


def _spec(place: Path) -> GitIgnoreSpec | None:
    file = place / NAME
    if not is_file(file) or file.stat().st_size > _LONGEST:
        return None
    from pathspec import GitIgnoreSpec  # noqa: PLC0415 - only folders that hold such a file pay for it

    return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8", errors="replace").splitlines())
