"""Records behave as the frozen dataclasses that they stand for."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pytest

from bncheck.facts.record import Record


class Point(Record):
    """Compared by its fields."""

    x: int
    y: int = 2
    labels: Mapping[str, int] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)

    @cached_property
    def total(self) -> int:
        """Kept once it was asked for."""
        return self.x + self.y


class Values(Record, eq=False):
    """Compared by identity."""

    values: Any


class Checked(Record):
    """Refuses what cannot be."""

    share: float

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 0 <= self.share <= 1:
            raise ValueError("no share")


@dataclass(frozen=True, kw_only=True)
class Plain:
    """The same as `Point`, by the standard library."""

    x: int
    y: int = 2
    labels: Mapping[str, int] = field(default_factory=dict)
    note: str = field(default="", repr=False, compare=False)


def test_a_record_is_a_dataclass() -> None:
    """Fields, defaults and text are those of the standard library's decorator."""
    assert is_dataclass(Point)
    assert [(each.name, each.default) for each in fields(Point)] == [(e.name, e.default) for e in fields(Plain)]
    assert repr(Point(x=1, note="n")) == repr(Plain(x=1, note="n")).replace("Plain", "Point")
    assert replace(Point(x=1, y=5), x=3) == Point(x=3, y=5)


def test_defaults_are_not_shared() -> None:
    """Each record has a container of its own."""
    assert Point(x=1).labels is not Point(x=1).labels


def test_equality_is_that_of_fields_or_of_identity() -> None:
    """By fields, those left out that do not count, or, with `eq=False`, of one object with itself alone."""
    one, other = Point(x=1, note="a"), Point(x=1, note="b")
    assert one == other != Point(x=2)
    assert one != Plain(x=1)
    assert hash(Checked(share=0.5)) == hash(Checked(share=0.5))
    array = np.arange(3)
    assert Values(values=array) != Values(values=array)
    assert len({Values(values=array), Values(values=array)}) == 2


def test_a_record_is_frozen() -> None:
    """Nothing is set or deleted; what is derived is kept."""
    point = Point(x=1)
    with pytest.raises(FrozenInstanceError):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del point.x
    assert point.total == point.total == 3
    assert point == Point(x=1)


@pytest.mark.parametrize("given", [{}, {"x": 1, "z": 2}, {"y": 1}])
def test_wrong_names_are_refused(given: dict[str, int]) -> None:
    """A missing and an unknown field are named."""
    with pytest.raises(TypeError, match=r"Point: missing or unknown: [xz]"):
        Point(**given)


def test_a_record_checks_itself() -> None:
    """`__post_init__` is called as by a dataclass, by `replace` too."""
    with pytest.raises(ValueError, match="no share"):
        replace(Checked(share=0.5), share=2.0)


def test_a_record_is_copied_and_pickled() -> None:
    """As processes hand it over."""
    point = Point(x=1, labels={"a": 1})
    assert copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == copy.copy(point) == point  # noqa: S301 - its own
