"""What the value of an option may be: how it is written in a configuration file, on a command line, and told again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncheck.facts.errors import ConfigError
from bncheck.settings.amounts import MEGABYTES, SECONDS, amount
from bncheck.settings.config import FailOn, split_codes
from bncheck.settings.schemes import PLACEHOLDER, SCHEMES, unknown


@dataclass(frozen=True)
class Where:
    """A key of a configuration file."""

    path: Path
    key: str

    def error(self, wanted: str) -> ConfigError:
        """The sentence for a value that is none."""
        return ConfigError(f"{self.path}: {self.key} must be {wanted}")


@dataclass(frozen=True, eq=False)
class ValueKind:
    """One kind of value."""

    configured: Callable[[object, Where], object]
    """Of a TOML value; raises ConfigError."""
    typed: Callable[[Any], object] | None = None
    """Of what was typed, where that is more than a text; raises ValueError."""
    told: Callable[[Any], str] = str
    """As it is typed."""
    choices: tuple[str, ...] = ()
    """All that may be typed; empty: no such list."""


def text(value: object, where: Where) -> str:
    """Any but an empty one."""
    if not isinstance(value, str) or not value:
        raise where.error("a text that is not empty")
    return value


def texts(value: object, where: Where) -> tuple[str, ...]:
    """A list, or one alone."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise where.error("a list of texts")
    return tuple(text(v, where) for v in values)


def codes(value: object, where: Where) -> tuple[str, ...]:
    """Of rules, in capitals."""
    return split_codes(texts(value, where))


def _flag(value: object, where: Where) -> bool:
    if not isinstance(value, bool):
        raise where.error("true or false")
    return value


def _share(value: object, where: Where) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise where.error("a number from 0 to 1")
    return float(value)


def _path(value: object, where: Where) -> Path:
    return where.path.parent / text(value, where)


def _data(value: object, where: Where) -> Path | str:
    return "synthetic" if value == "synthetic" else _path(value, where)


def _count(value: object, where: Where) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise where.error("a whole number from 1")
    return value


def _size(value: object, where: Where) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise where.error("[height, width]")
    height, width = (_count(number, where) for number in value)
    return height, width


def _typed_size(typed: str) -> tuple[int, int]:
    height, _, width = typed.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise ValueError(f"{typed}: HEIGHTxWIDTH is wanted, such as 224x224")
    return int(height), int(width)


def one_of(*names: str, typed: Callable[[Any], object] | None = None) -> ValueKind:
    """One of a few words, and what it stands for."""

    def configured(value: object, where: Where) -> object:
        if not isinstance(value, str) or value not in names:
            raise where.error(f"one of {', '.join(names)}")
        return value if typed is None else typed(value)

    return ValueKind(configured, typed=typed, choices=names)


def _amount(units: Mapping[str, float], example: str) -> ValueKind:
    def configured(value: object, where: Where) -> float:
        try:
            return amount(str(value), units)
        except ValueError:
            raise where.error(f"a number greater than 0, or one with a unit, as {example!r}") from None

    return ValueKind(configured, typed=lambda typed: amount(typed, units))


def _scheme(value: object, where: Where) -> str:
    if not isinstance(value, str) or unknown(value) is not None:
        raise where.error(f"one of {', '.join((*SCHEMES, PLACEHOLDER))}")
    return value


def _typed_scheme(typed: str) -> str:
    sentence = unknown(typed)
    if sentence is not None:
        raise ValueError(sentence)
    return typed


def _nowhere(_value: object, where: Where) -> object:
    raise where.error("given on the command line")


TEXT, TEXTS, PATH, FLAG, COUNT = map(ValueKind, (text, texts, _path, _flag, _count))
PLACE, DATA = ValueKind(_path), ValueKind(_data)
"""Paths whose text counts where it is typed: an empty one is told apart, "synthetic" is none."""
FORMAT = ValueKind(text)
"""Of a report; the command line knows which there are."""
CODES = ValueKind(codes, typed=split_codes)
SHARE = ValueKind(_share, told=lambda value: f"{value:g}")
WHOLE = ValueKind(_nowhere)
"""A whole number."""
SIZE = ValueKind(_size, typed=_typed_size, told=lambda value: "x".join(map(str, value)))
"""(height, width)."""
TIME, MEMORY = _amount(SECONDS, "10m"), _amount(MEGABYTES, "2GB")
SCHEME = ValueKind(_scheme, typed=_typed_scheme)
FAIL_ON = one_of(*(each.value for each in FailOn), typed=FailOn)
