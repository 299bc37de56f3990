"""How findings become a verdict: what the user has to say about it."""

from __future__ import annotations

from datetime import date
from enum import Enum

from bncheck.facts.record import Record


class FailOn(Enum):
    """Severity from which a finding makes the verdict fail."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


class Ignore(Record):
    """Findings that a project has decided to live with, and why."""

    layer: str
    """Glob over layer names, case-sensitive ("head/*"); "*" also takes findings about the whole model."""
    codes: tuple[str, ...]
    """Codes or prefixes ("BN107", "BN4")."""
    reason: str
    expires: date | None = None
    """Last day on which it holds."""


class Known(Record):
    """A finding of an earlier model, which a later one may have as well (`--against`)."""

    code: str
    severity: str
    layers: frozenset[str]
    location: str = ""


class Settings(Record):
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


def split_codes(values: tuple[str, ...]) -> tuple[str, ...]:
    """Codes and prefixes of repeated, comma-separated options, in capitals: ("bn1, BN201",) -> ("BN1", "BN201")."""
    return tuple(code.strip().upper() for value in values for code in value.split(",") if code.strip())
