"""What plain numbers come to, without arrays: errors in decibels, and from where an accuracy counts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Answer(Protocol):
    """An output of a model, as far as labels concern it."""

    @property
    def classes(self) -> int | None:
        """Number of classes where it is scores of some, else None."""

    @property
    def labelled(self) -> bool:
        """Whether the labels belong to it."""


_Answer = TypeVar("_Answer", bound=Answer)


def sqnr_db(nmse: float) -> float:
    """`-10 log10(NMSE)` decibels, the reference being the signal: higher is better. No error is +inf."""
    if nmse == 0:
        return math.inf
    return -10 * math.log10(nmse) if nmse > 0 else math.nan


def informed_accuracy(classes: int, commonest: float | None = None) -> float:
    """Accuracy (0 to 1) from which labels have to do with predictions: twice chance, or 15 points above where less.

    Chance is to name the most common label always, where its share `commonest` is known; of what is missing to 1 then,
    three tenths.
    """
    chance = max(1 / classes, commonest or 0.0)
    return min(2 * chance, chance + min(0.15, 0.3 * (1 - chance)))


def scores_of(outputs: Sequence[_Answer]) -> _Answer | None:
    """The output by whose classes a model is judged: the one that the labels belong to, else the first."""
    classes = [output for output in outputs if output.classes]
    return next((output for output in classes if output.labelled), classes[0] if classes else None)
