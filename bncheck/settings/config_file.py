"""`[tool.bncheck]` in pyproject.toml or bncheck.toml: every key is known or an error."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, field
from datetime import date, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from bncheck.facts.errors import ConfigError
from bncheck.facts.record import Record
from bncheck.settings import kinds
from bncheck.settings.config import FailOn, Ignore, Settings
from bncheck.settings.kinds import ValueKind, Where
from bncheck.settings.options import CommandName, ConfigTable, Options, listed, option, turned

FILE_NAME = "bncheck.toml"
LARGEST_FILE = 64 << 20
"""Bytes; a configuration or baseline above it is no such file."""


_of_reports = partial(option, heading="Report", table=ConfigTable.TOP)


class Config(Record):
    """What a configuration file says, and the options that all reports share; None and () where both are silent.

    Its paths are relative to its own folder.
    """

    format: str | None = _of_reports(
        None,
        kinds.FORMAT,
        "Format on standard output: text, json, sarif, junit, github, markdown, html or model-explorer [text].",
        helps={CommandName.DIFF: "Format on standard output: text or json [text]."},
        metavar="FORMAT",
    )
    output: tuple[str, ...] = _of_reports(
        (),
        kinds.TEXTS,
        "Write a report to FILE too; its suffix tells the format (.json, .sarif, .xml, .html, .md). - is standard "
        "output. Repeatable.",
        helps={CommandName.DIFF: "Write a report to FILE too (.json, .txt). - is standard output. Repeatable."},
        metavar="[FORMAT=]FILE",
    )
    fail_on: FailOn | None = _of_reports(None, kinds.FAIL_ON, "Lowest severity that makes the exit code 1 [error].")
    select: tuple[str, ...] = _of_reports(
        (), kinds.CODES, "Judge only these rules, by code or prefix: BN1,BN201.", metavar="CODES"
    )
    ignore: tuple[str, ...] = _of_reports((), kinds.CODES, "Leave out these rules, by code or prefix.", metavar="CODES")
    baseline: Path | None = _of_reports(None, kinds.PATH, "Earlier JSON report; findings that it holds are accepted.")
    path: Path | None = _of_reports(
        None,
        kinds.PATH,
        "Configuration file, instead of the nearest bncheck.toml or pyproject.toml with [tool.bncheck].",
        flag="--config",
        table=ConfigTable.NONE,
    )
    allow_empty: bool | None = _of_reports(None, kinds.FLAG, "Exit with 0, not 3, if there is nothing to judge.")
    quiet: bool | None = _of_reports(None, kinds.FLAG, "Print the verdict and a line for each finding.", short="-q")
    verbose: bool | None = _of_reports(None, kinds.FLAG, "Print all layers, all numbers and whole fixes.", short="-v")
    ignores: tuple[Ignore, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of several commands, by their Python names."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """`[tool.bncheck.gate]`: options of `bncheck.gate`, likewise."""

    def of_command(self, command: CommandName) -> dict[str, Any]:
        """What is configured of the options that a command takes, by their Python names."""
        taken = {each.name for each, _, _ in listed(Options, command)}
        found = {**self.options, **(self.gate if command is CommandName.GATE else {})}
        return {name: value for name, value in found.items() if name in taken}


def find_config(start: Path) -> Path | None:
    """The nearest bncheck.toml, or pyproject.toml with a `[tool.bncheck]` table, from `start` upwards.

    The search ends at the root of the repository (`.git`), at the home folder, and below a folder that everybody may
    write to, as /tmp: what lies above is not the project's. Raises ConfigError for a pyproject.toml of the project that
    is not TOML; one above that says nothing of bncheck is not bncheck's to judge.
    """
    folders, in_repository = _searched(start)
    for folder in folders:
        own = folder / FILE_NAME
        if own.is_file():
            return own
        project = folder / "pyproject.toml"
        if project.is_file() and _speaks_of_bncheck(project, ours=in_repository or folder == start):
            return project
    return None


def _searched(start: Path) -> tuple[list[Path], bool]:
    """The folders from `start` upwards in which a configuration may lie, and whether they are of one repository."""
    found: list[Path] = []
    for folder in (start, *start.parents):
        if found and _open_to_all(folder):
            break
        found.append(folder)
        if (folder / ".git").exists():
            return found, True
        if folder == _home():
            break
    return found, False


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # nobody's process has none
        return None


def _open_to_all(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IWOTH)
    except OSError:
        return True


def _speaks_of_bncheck(project: Path, *, ours: bool) -> bool:
    """Whether a pyproject.toml has a table for bncheck. Raises ConfigError for a damaged one that should."""
    try:
        return "bncheck" in _table(_read_toml(project).get("tool", {}))
    except ConfigError:
        if ours or "[tool.bncheck" in _text_or_nothing(project):
            raise
        return False


def _text_or_nothing(path: Path) -> str:
    try:
        return _read_text(path, "configuration")
    except ConfigError:
        return ""


def load_config(path: Path) -> Config:
    """Reads a configuration file. Raises ConfigError for anything that is not understood."""
    document = _read_toml(path)
    in_project = path.name == "pyproject.toml" or "bncheck" in _table(document.get("tool", {}))
    table = _table(document.get("tool", {})).get("bncheck", {}) if in_project else document
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: [tool.bncheck] must be a table")
    of_reports, of_commands = known_keys(Config, ConfigTable.TOP), known_keys(Options, ConfigTable.TOP)
    found = dict[str, Any](_values(table, {**of_reports, **of_commands}, Where(path, ""), others=("ignores", "gate")))
    options = {name: found.pop(name) for name in [each.name for each, _ in of_commands.values()] if name in found}
    if "ignores" in table:
        found["ignores"] = _ignores(table["ignores"], Where(path, "ignores"))
    return Config(path=path, options=options, gate=_gate(table.get("gate", {}), Where(path, "gate")), **found)


def known_keys(table: type, of: ConfigTable) -> dict[str, tuple[Field[Any], ValueKind]]:
    """Key -> the field that it sets, for a table of the configuration file."""
    return {flag.removeprefix("--"): (each, how.kind) for each, how, flag in listed(table) if how.table is of}


def _values(
    table: Mapping[str, Any], keys: Mapping[str, tuple[Field[Any], ValueKind]], where: Where, others: Iterable[str] = ()
) -> Iterator[tuple[str, object]]:
    """(field, value) of each key; raises ConfigError for one that is neither known nor one of the others."""
    prefix, inside = (f"{where.key}.", f" in {where.key}") if where.key else ("", "")
    for key, value in table.items():
        if key in others:
            continue
        if key not in keys:
            if f"--{key}" in {flag for _, _, flag in listed(Options)}:
                raise ConfigError(f"{where.path}: {key}{inside} is given on the command line alone, as --{key}")
            raise ConfigError(f"{where.path}: unknown key {key!r}{inside}{_near(key, [*keys, *others])}")
        each, kind = keys[key]
        yield each.name, turned(each, kind.configured(value, Where(where.path, prefix + key)))


def _gate(value: object, where: Where) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise where.error("a table")
    return dict(_values(value, known_keys(Options, ConfigTable.GATE), where))


def settings_of(config: Config) -> Settings:
    """How findings become a verdict, as a configuration says. Raises ConfigError where its baseline is none."""
    return Settings(
        fail_on=config.fail_on or FailOn.ERROR,
        select=config.select,
        ignore=config.ignore,
        ignores=config.ignores,
        baseline=None if config.baseline is None else read_baseline(config.baseline),
        allow_empty=bool(config.allow_empty),
    )


def read_baseline(path: Path) -> frozenset[str]:
    """Fingerprints of an earlier `--format json` report, its suppressed findings included. Raises ConfigError."""
    import json  # noqa: PLC0415 - only where there is a baseline, start-up counts

    try:
        document = json.loads(_read_text(path, "baseline"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: the baseline is not JSON ({error}); give an earlier --format json report") from None
    reports = document.get("reports", [document]) if isinstance(document, dict) else None
    if not isinstance(reports, list) or not all(isinstance(r, dict) and r.get("schema") == 1 for r in reports):
        raise ConfigError(f"{path}: the baseline is no bncheck report, version 1; give an earlier --format json report")
    found = [f for r in reports for key in ("findings", "suppressed") for f in _list(r.get(key))]
    marks = [f.get("fingerprint") if isinstance(f, dict) else None for f in found]
    if not all(isinstance(mark, str) for mark in marks):
        raise ConfigError(f"{path}: a finding of the baseline has no fingerprint; write it again with --format json")
    return frozenset(str(mark) for mark in marks)


def _read_text(path: Path, what: str) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a FIFO would wait for a writer
            raise ConfigError(f"{path}: cannot read the {what}: no regular file")
        if found.st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: too large for a {what}")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the {what}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}, byte {error.start:,}: the {what} is not UTF-8 text") from None


def _read_toml(path: Path) -> Mapping[str, Any]:
    text = _read_text(path, "configuration")
    toml = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document: Mapping[str, Any] = toml.loads(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return document


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _near(word: str, words: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - start-up

    near = difflib.get_close_matches(word, list(words), n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(words)})"


def _ignores(value: object, where: Where) -> tuple[Ignore, ...]:
    if not isinstance(value, list):
        raise where.error("written as [[tool.bncheck.ignores]] tables")
    return tuple(_ignore(entry, Where(where.path, f"ignores[{number}]")) for number, entry in enumerate(value))


def _ignore(entry: object, where: Where) -> Ignore:
    if not isinstance(entry, Mapping):
        raise where.error("a table")
    known = {"layer": "", "codes": "", "reason": "", "expires": ""}
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where.path}: unknown key {key!r} in {where.key}{_near(key, known)}")
    for key in ("layer", "codes", "reason"):
        if key not in entry:
            raise ConfigError(f"{where.path}: {where.key} has no {key!r}: say which layer, which codes, and why")
    reason = kinds.text(entry["reason"], Where(where.path, f"{where.key}.reason"))
    if not reason.strip():
        raise ConfigError(f"{where.path}: {where.key}.reason is blank: say why the finding is accepted")
    return Ignore(
        layer=kinds.text(entry["layer"], Where(where.path, f"{where.key}.layer")),
        codes=kinds.codes(entry["codes"], Where(where.path, f"{where.key}.codes")),
        reason=reason,
        expires=_day(entry["expires"], Where(where.path, f"{where.key}.expires")) if "expires" in entry else None,
    )


def _day(value: object, where: Where) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise where.error("a day such as 2026-12-31") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise where.error("a day such as 2026-12-31")
    return value
