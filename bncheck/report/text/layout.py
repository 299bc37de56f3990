"""Lines of styled text: wrapping by terminal cells, and writing them with or without colour."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO, TypeAlias

from bncheck.report.escape import encodable

Span: TypeAlias = tuple[str, str]
"""(text, style); a style is a key of STYLES or empty."""
Line: TypeAlias = Sequence[Span]

STYLES: Mapping[str, str] = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "bold blue",
    "pass": "bold green",
    "inconclusive": "bold magenta",
    "label": "bold",
    "code": "cyan",
    "dim": "dim",
}
"""Meaning -> rich style."""

LABEL = 9
"""Columns of the labels at the left: Effect, Fix, Method, ..."""
_UNITS = frozenset({"%", "dB", "s", "ms", "kB", "MB", "GB"})
NARROWEST, WIDEST = 40, 110
"""Columns between which text is laid out; longer lines of prose are hard to read."""


def columns(stream: TextIO) -> int:
    """Width to lay out for: the terminal's, or COLUMNS, or 80 in a pipe."""
    told = os.environ.get("COLUMNS", "")
    width = int(told[:4]) if told.isascii() and told.isdigit() else 0
    if not width and stream.isatty():
        width = _terminal_columns(stream)
    width = width or 80
    return max(NARROWEST, min(width, WIDEST))


def _terminal_columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 0


def cells(text: str) -> int:
    """Terminal cells that a text takes: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_cell(character) for character in text)


def _cell(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, width: int) -> list[str]:
    """The words of a text in lines of at most `width` cells; a word that is longer is cut where it must.

    A number and its unit are one word.
    """
    lines: list[str] = []
    line = ""
    for word in _words(text):
        rest = word
        if line and cells(line) + 1 + cells(rest) <= width:
            line = f"{line} {rest}"
            continue
        if line:
            lines.append(line)
        while cells(rest) > width:
            head = cut(rest, width)
            lines.append(head)
            rest = rest[len(head) :]
        line = rest
    return [*lines, line] if line or not lines else lines


def _words(text: str) -> list[str]:
    words: list[str] = []
    for word in text.split():
        if words and words[-1][-1].isdigit() and word.rstrip(".,;:)") in _UNITS:
            words[-1] += f" {word}"
        else:
            words.append(word)
    return words


def cut(text: str, width: int) -> str:
    """The longest beginning of a text that takes at most `width` cells, one character at the least."""
    taken = 0
    for number, character in enumerate(text):
        taken += _cell(character)
        if taken > width and number:
            return text[:number]
    return text


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled up with spaces to `width` cells."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def hanging(label: str, text: str, width: int, *, indent: int = 2) -> Iterator[Line]:
    """A label, and its text beside it in as many lines as it takes."""
    for number, line in enumerate(wrap(text, width - indent - LABEL)):
        yield (" " * indent + pad("" if number else label, LABEL), "label"), (line, "")


def indented(text: str, width: int, indent: int) -> Iterator[Line]:
    """A text in as many lines as it takes, each with so many spaces before it."""
    for line in wrap(text, width - indent):
        yield ((" " * indent + line, ""),)


def write_lines(lines: Iterable[Line], stream: TextIO) -> None:
    """Writes lines, in colour where the stream is a terminal (or FORCE_COLOR is set) and NO_COLOR is not."""
    if not _coloured(stream):
        plain = ("".join(text for text, _ in line).rstrip() for line in lines)
        stream.writelines(encodable(line, stream.encoding) + "\n" for line in plain)
        return
    from rich.console import Console  # noqa: PLC0415 - 36 ms that a pipe need not pay
    from rich.text import Text  # noqa: PLC0415 - as above

    console = Console(file=stream, force_terminal=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
    for line in lines:
        spans = ((encodable(text, stream.encoding), STYLES.get(style, "")) for text, style in line)
        console.print(Text.assemble(*spans))


def _coloured(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))
