"""Settings of a check, and `[tool.bncheck]` in pyproject.toml or bncheck.toml: every key is known or an error."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

from bncheck.facts.errors import ConfigError
from bncheck.settings.amounts import MEGABYTES, SECONDS, amount
from bncheck.settings.schemes import PLACEHOLDER, SCHEMES, unknown

FILE_NAME = "bncheck.toml"
LARGEST_FILE = 64 << 20
"""Bytes; a configuration or baseline above it is no such file."""


class FailOn(Enum):
    """Severity from which a finding makes the verdict fail."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Ignore:
    """Findings that a project has decided to live with, and why."""

    layer: str
    """Glob over layer names, case-sensitive ("head/*"); "*" also takes findings about the whole model."""
    codes: tuple[str, ...]
    """Codes or prefixes ("BN107", "BN4")."""
    reason: str
    expires: date | None = None
    """Last day on which it holds."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A finding of an earlier model, which a later one may have as well (`--against`)."""

    code: str
    severity: str
    layers: frozenset[str]
    location: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How findings become a verdict."""

    fail_on: FailOn = FailOn.ERROR
    select: tuple[str, ...] = ()
    """Codes or prefixes to judge; empty: all."""
    ignore: tuple[str, ...] = ()
    """Codes or prefixes to leave out."""
    ignores: tuple[Ignore, ...] = ()
    baseline: frozenset[str] | None = None
    """Fingerprints of findings that were there before."""
    known: tuple[Known, ...] = ()
    """What the earlier model had: the same code, at most as severe, in layers that had it, does not count."""
    allow_empty: bool = False
    """Whether "nothing to judge" ends in exit code 0 instead of 3."""
    today: date | None = None
    """The day at which ignores expire; None: the current one, UTC."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What a configuration file says; None and () where it is silent. Its paths are relative to its own folder."""

    path: Path | None = None
    format: str | None = None
    output: tuple[str, ...] = ()
    fail_on: FailOn | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    ignores: tuple[Ignore, ...] = ()
    baseline: Path | None = None
    allow_empty: bool | None = None
    quiet: bool | None = None
    verbose: bool | None = None
    decay: float | None = None
    train_op: tuple[str, ...] = ()
    reference: Path | None = None
    gate: Mapping[str, Any] = field(default_factory=dict)
    """`[tool.bncheck.gate]`: options of `bncheck.gate`, by their Python names."""


def find_config(start: Path) -> Path | None:
    """The nearest bncheck.toml, or pyproject.toml with a `[tool.bncheck]` table, from `start` upwards."""
    for folder in (start, *start.parents):
        own = folder / FILE_NAME
        if own.is_file():
            return own
        project = folder / "pyproject.toml"
        if project.is_file() and "bncheck" in _read_toml(project).get("tool", {}):
            return project
    return None


def load_config(path: Path) -> Config:
    """Reads a configuration file. Raises ConfigError for anything that is not understood."""
    document = _read_toml(path)
    in_project = path.name == "pyproject.toml" or "bncheck" in _table(document.get("tool", {}))
    table = _table(document.get("tool", {})).get("bncheck", {}) if in_project else document
    if not isinstance(table, Mapping):
        raise ConfigError(f"{path}: [tool.bncheck] must be a table")
    values: dict[str, Any] = {}
    for key, value in table.items():
        parse = _KEYS.get(key)
        if parse is None:
            raise ConfigError(f"{path}: unknown key {key!r}{_near(key, _KEYS)}")
        values[key.replace("-", "_")] = parse(value, _Where(path, key))
    return Config(path=path, **values)


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
        raise ConfigError(f"{path}: a finding of the baseline has no fingerprint; write it anew with --format json")
    return frozenset(str(mark) for mark in marks)


@dataclass(frozen=True)
class _Where:
    path: Path
    key: str

    def error(self, wanted: str) -> ConfigError:
        return ConfigError(f"{self.path}: {self.key} must be {wanted}")


def _read_text(path: Path, what: str) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
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


def _near(word: str, words: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(word, words, n=1)
    return f" (did you mean {near[0]!r}?)" if near else f" (known: {', '.join(words)})"


def _text(value: object, where: _Where) -> str:
    if not isinstance(value, str) or not value:
        raise where.error("a text that is not empty")
    return value


def _texts(value: object, where: _Where) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise where.error("a list of texts")
    return tuple(_text(v, where) for v in values)


def _codes(value: object, where: _Where) -> tuple[str, ...]:
    return split_codes(_texts(value, where))


def _flag(value: object, where: _Where) -> bool:
    if not isinstance(value, bool):
        raise where.error("true or false")
    return value


def _share(value: object, where: _Where) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise where.error("a number from 0 to 1")
    return float(value)


def _fail_on(value: object, where: _Where) -> FailOn:
    names = [f.value for f in FailOn]
    if value not in names:
        raise where.error(f"one of {', '.join(names)}")
    return FailOn(value)


def _path(value: object, where: _Where) -> Path:
    return where.path.parent / _text(value, where)


def _data(value: object, where: _Where) -> Path | str:
    return "synthetic" if value == "synthetic" else _path(value, where)


def _amount(units: Mapping[str, float], example: str) -> Callable[[object, _Where], float]:
    def read(value: object, where: _Where) -> float:
        try:
            return amount(str(value), units)
        except ValueError:
            raise where.error(f"a number greater than 0, or one with a unit, as {example!r}") from None

    return read


def _count(value: object, where: _Where) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise where.error("a whole number from 1")
    return value


def _size(value: object, where: _Where) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise where.error("[height, width]")
    height, width = (_count(number, where) for number in value)
    return height, width


def _one_of(*names: str) -> Callable[[object, _Where], str]:
    def parse(value: object, where: _Where) -> str:
        if not isinstance(value, str) or value not in names:
            raise where.error(f"one of {', '.join(names)}")
        return value

    return parse


def _scheme(value: object, where: _Where) -> str:
    if not isinstance(value, str) or unknown(value) is not None:
        raise where.error(f"one of {', '.join((*SCHEMES, PLACEHOLDER))}")
    return value


def _gate(value: object, where: _Where) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise where.error("a table")
    found: dict[str, Any] = {}
    for key, entry in value.items():
        parse = _GATE.get(key)
        if parse is None:
            raise ConfigError(f"{where.path}: unknown key {key!r} in gate{_near(key, _GATE)}")
        parsed = parse(entry, _Where(where.path, f"gate.{key}"))
        if key in _SWITCHED_OFF:
            found[_SWITCHED_OFF[key]] = not parsed
        else:
            found[key.replace("-", "_")] = parsed
    return found


def _ignores(value: object, where: _Where) -> tuple[Ignore, ...]:
    if not isinstance(value, list):
        raise where.error("written as [[tool.bncheck.ignores]] tables")
    return tuple(_ignore(entry, _Where(where.path, f"ignores[{number}]")) for number, entry in enumerate(value))


def _ignore(entry: object, where: _Where) -> Ignore:
    if not isinstance(entry, Mapping):
        raise where.error("a table")
    known = {"layer": "", "codes": "", "reason": "", "expires": ""}
    for key in entry:
        if key not in known:
            raise ConfigError(f"{where.path}: unknown key {key!r} in {where.key}{_near(key, known)}")
    for key in ("layer", "codes", "reason"):
        if key not in entry:
            raise ConfigError(f"{where.path}: {where.key} has no {key!r}: say which layer, which codes, and why")
    reason = _text(entry["reason"], _Where(where.path, f"{where.key}.reason"))
    if not reason.strip():
        raise ConfigError(f"{where.path}: {where.key}.reason is blank: say why the finding is accepted")
    return Ignore(
        layer=_text(entry["layer"], _Where(where.path, f"{where.key}.layer")),
        codes=_codes(entry["codes"], _Where(where.path, f"{where.key}.codes")),
        reason=reason,
        expires=_day(entry["expires"], _Where(where.path, f"{where.key}.expires")) if "expires" in entry else None,
    )


def _day(value: object, where: _Where) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise where.error("a day such as 2026-12-31") from None
    if isinstance(value, datetime) or not isinstance(value, date):
        raise where.error("a day such as 2026-12-31")
    return value


def split_codes(values: tuple[str, ...]) -> tuple[str, ...]:
    """Codes and prefixes of repeated, comma-separated options, in capitals: ("bn1, BN201",) -> ("BN1", "BN201")."""
    return tuple(code.strip().upper() for value in values for code in value.split(",") if code.strip())


_KEYS: Mapping[str, Callable[[object, _Where], object]] = {
    "format": _text,
    "output": _texts,
    "fail-on": _fail_on,
    "select": _codes,
    "ignore": _codes,
    "baseline": _path,
    "allow-empty": _flag,
    "quiet": _flag,
    "verbose": _flag,
    "decay": _share,
    "train-op": _texts,
    "reference": _path,
    "ignores": _ignores,
    "gate": _gate,
}

_SWITCHED_OFF = {"all-stages": "early_stop", "no-quantize": "quantize"}
"""Key -> argument of `bncheck.gate` that it makes false."""
_GATE: Mapping[str, Callable[[object, _Where], object]] = {
    "data": _data,
    "quantized": _path,
    "scheme": _scheme,
    "calibration-batches": _count,
    "no-quantize": _flag,
    "labels": _text,
    "preprocess": _text,
    "channel-order": _one_of("rgb", "bgr"),
    "size": _size,
    "batch-size": _count,
    "batches": _count,
    "model": _text,
    "builder": _text,
    "inputs": _text,
    "outputs": _texts,
    "trust-model": _flag,
    "against": _path,
    "max-time": _amount(SECONDS, "10m"),
    "max-memory": _amount(MEGABYTES, "2GB"),
    "all-stages": _flag,
}
