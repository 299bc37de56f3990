"""What trains and what saves in a graph."""

from __future__ import annotations

from bncheck.facts.record import Record


class TrainOp(Record):
    """An op whose run trains."""

    name: str
    found_by: str
    """"collection", "sink", "--train-op"."""
    variables: tuple[str, ...] = ()
    """Variables its optimizer writes."""


class Saver(Record):
    """What one SaveV2 op writes."""

    name: str
    keys: frozenset[str]
    variables: frozenset[str]
