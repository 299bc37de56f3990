"""Where reports go: `--output [FORMAT=]FILE`, written whole or not at all."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bncheck.cli.process import Nowhere, forget_stdout
from bncheck.facts.errors import UsageError
from bncheck.facts.record import Record
from bncheck.report import FORMATS, lacking

_WORD = re.compile(r"[a-z]+(-[a-z]+)*")


class Output(Record):
    """One report to write; no path is standard output."""

    format: str
    path: Path | None


SUFFIXES: Mapping[str, tuple[str, ...]] = {
    ".json": ("json", "sarif", "model-explorer"),
    ".sarif": ("sarif",),
    ".xml": ("junit",),
    ".html": ("html",),
    ".md": ("markdown",),
    ".txt": ("text",),
}
"""Suffix of a file -> the formats that go by it; the first one where none of them is asked for."""


def outputs(wanted: Sequence[str], asked: str | None, folder: Path | None = None) -> tuple[Output, ...]:
    """What to write where; `asked` is the format that was asked for (None: text), relative FILEs lie in `folder`.

    A FILE that names no format tells it by its suffix, else gets what was asked for. Standard output gets that as well,
    unless `-` or a FILE has taken it. Raises UsageError for a format that is not offered or not installed, a suffix
    that tells none, and where two outputs claim one place.
    """
    default = check_format(asked or "text")
    found = [_output(text, asked, folder) for text in wanted]
    claimed = any(
        o.path is None or (o.format == default and not _names_format(text))
        for o, text in zip(found, wanted, strict=True)
    )
    everything = found if claimed else [Output(format=default, path=None), *found]
    absent = next(filter(None, (lacking(o.format) for o in everything)), "")
    if absent:
        raise UsageError(absent)
    places = [o.path for o in everything]
    twice = next((place for place in places if places.count(place) > 1), "")
    if None in places:
        _check_stdout()  # before anything takes its time
    if twice != "":
        raise UsageError(f"two reports would be written to {twice or 'standard output'}: give each its own --output")
    return tuple(everything)


def check_format(name: str) -> str:
    """The name, if such a format is offered. Raises UsageError."""
    if name in FORMATS:
        return name
    import difflib  # noqa: PLC0415 - start-up

    near = difflib.get_close_matches(name, FORMATS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FORMATS)}"
    raise UsageError(f"there is no format {name!r}: {hint}")


def _names_format(text: str) -> bool:
    name, equals, _ = text.partition("=")
    return bool(equals and _WORD.fullmatch(name))


def _output(text: str, asked: str | None, folder: Path | None) -> Output:
    name, _, file = text.partition("=")
    if _names_format(text):
        check_format(name)
    else:
        name, file = _by_suffix(text, asked), text
    if not file:
        raise UsageError(f"--output {text}: no file is named; use - for standard output")
    return Output(format=name, path=None if file == "-" else (folder or Path()) / file)


def _by_suffix(file: str, asked: str | None) -> str:
    formats = SUFFIXES.get(Path(file).suffix.lower(), ())
    if asked in formats or (asked is not None and not formats):
        return str(asked)
    if formats:
        return formats[0]
    if file == "-":
        return "text"
    raise UsageError(
        f"--output {file}: its suffix names no format; use {', '.join(SUFFIXES)}, or name one of {', '.join(FORMATS)}: "
        f"--output text={file}"
    )


def emit(path: Path | None, write: Callable[[TextIO], None]) -> None:
    """Lets `write` fill a file, which appears whole or not at all, or standard output. Raises UsageError."""
    if path is None:
        _to_stdout(write)
        return
    try:
        with _replacing(path) as stream:
            write(stream)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from None


def _to_stdout(write: Callable[[TextIO], None]) -> None:
    _check_stdout()
    try:
        write(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()  # the reader (`head`) has what it wants
    except OSError as error:
        forget_stdout()
        raise UsageError(f"standard output cannot be written to: {error.strerror or error}") from None


def _check_stdout() -> None:
    if isinstance(sys.stdout, Nowhere):
        raise UsageError("standard output is closed: write the report to a file with --output FILE")


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    target = path.resolve()
    if target.exists() and not target.is_file():
        # a device or pipe is written to, not replaced; a directory is refused by the system
        with target.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:  # an interrupt too must leave nothing half-written
        temporary.unlink(missing_ok=True)
        raise
