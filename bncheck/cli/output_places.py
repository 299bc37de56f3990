"""Which files a report may replace: none that the run reads; for a configuration, reports in its own folder alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncheck.facts.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from bncheck.cli.output import Output

_HEAD = 1 << 14
"""Bytes, by which a report is told."""
_REPORT = re.compile(
    rb"""\s*(
        \{\s*"schema":\s*1,\s*"tool":\s*\{\s*"name":\s*"bncheck"          # json
        | \{\s*"\$schema":\s*"[^"]*sarif[^"]*",.*"driver":\s*\{\s*"name":\s*"bncheck"
        | <\?xml[^>]*>\s*<testsuites\ name="bncheck"
        | <!doctype\ html>.*<meta\ name="generator"\ content="bncheck[ ]
        | ::(error|warning|notice)\ file=[^\n]*title=(BN\d{3}|bncheck)    # github
        | (PASS|FAIL|INCONCLUSIVE)(,\ [\w\ ,]+)?\ \ \S                    # text
        | \#\#\ \S+\ (PASS|FAIL|INCONCLUSIVE)(,\ [\w\ ,]+)?\ `           # markdown
        | checkpoint\ +step\ +verdict\ | \|\ checkpoint\ \|\ step\ \|     # the table of a run
        | (WORSE|NOT\ WORSE)\ \ \S                                          # two models compared
        | [^\n]+:\n(PASS|FAIL|INCONCLUSIVE)(,\ [\w\ ,]+)?\ \ \S           # several models
        | $
    )""",
    re.VERBOSE | re.DOTALL,
)
_OF_CHECKPOINTS = re.compile(r"(?P<prefix>.*)\.(index|meta|data-\d+-of-\d+)", re.IGNORECASE)
_SAVED_MODEL = ("saved_model.pb", "saved_model.pbtxt")


def is_report(path: Path) -> bool:
    """Whether a file begins as bncheck's reports do, or is empty."""
    try:
        with path.open("rb") as file:
            return _REPORT.match(file.read(_HEAD)) is not None
    except OSError:
        return False


def refuse_inputs(places: Iterable[Output], models: Sequence[str], given: Iterable[Any]) -> None:
    """Raises UsageError for a report in the place of a file that the run reads.

    `models` are what is judged, `given` the values of all options: those among them that name a file are read too.
    """
    read = [*map(Path, models), *_paths(given)]
    for place in places:
        if place.path is None:
            continue
        taken = next((source for source in read if _belongs(place.path, source)), None)
        if taken is not None:
            raise UsageError(
                f"--output {place.path}: it belongs to {taken}, which this run reads and a report would destroy: "
                "choose another file"
            )


def refuse_foreign(places: Iterable[Output], configuration: Path) -> None:
    """Raises ConfigError for a report that a configuration wants outside its folder, or over what is no report."""
    folder = configuration.parent.resolve()
    for place in places:
        if place.path is None:
            continue
        target = place.path.resolve()
        if not target.is_relative_to(folder):
            raise ConfigError(
                f"{configuration}: output {place.path} lies outside its folder: give it on the command line with "
                "--output"
            )
        if target.exists() and not (target.is_file() and is_report(target)):
            raise ConfigError(
                f"{configuration}: output {place.path} exists and is not a bncheck report: choose another file"
            )


def _paths(given: Iterable[Any]) -> Iterator[Path]:
    for value in given:
        if isinstance(value, Mapping):
            yield from _paths(value.values())
        elif isinstance(value, (str, Path)) and str(value):
            path = Path(value)
            yield from sorted(path.parent.glob(path.name)) if "*" in path.name else (path,)


def _belongs(place: Path, source: Path) -> bool:
    """Whether a place is a file of what `source` names: itself, a part of its checkpoint, or in its folder."""
    if _same(place, source):
        return True
    if source.is_dir() or source.name in _SAVED_MODEL:
        folder = source if source.is_dir() else source.parent
        return place.exists() and place.resolve().is_relative_to(folder.resolve()) and not is_report(place)
    if not _same(place.resolve().parent, source.resolve().parent):
        return False
    part = _OF_CHECKPOINTS.fullmatch(place.resolve().name)
    whole = _OF_CHECKPOINTS.fullmatch(source.name)
    if part is not None:
        return part["prefix"].casefold() == (source.name if whole is None else whole["prefix"]).casefold() or (
            # the graph of a checkpoint may have another name
            place.exists() and not is_report(place)
        )
    shards = source.name.removesuffix(".weights.json")
    return shards != source.name and place.name.startswith(shards) and place.name.endswith(".weights.h5")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return one.resolve() == other.resolve()
