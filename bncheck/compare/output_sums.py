"""Two forms of one output, held against each other: what is added up over the batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.numerics import metrics


@dataclass(kw_only=True, eq=False)
class ErrorSums:
    """Squares of the reference r, of the other form t and of what they differ by, over all values."""

    r2: float = 0.0
    t2: float = 0.0
    e2: float = 0.0

    def add(self, r: NDArray[np.float64], t: NDArray[np.float64]) -> None:
        """Adds some values, of one shape."""
        with np.errstate(all="ignore"):
            self.r2 += float(np.sum(r**2))
            self.t2 += float(np.sum(t**2))
            self.e2 += float(np.sum((t - r) ** 2))

    def merge(self, other: ErrorSums) -> None:
        """Adds those of other values."""
        self.r2 += other.r2
        self.t2 += other.t2
        self.e2 += other.e2

    @property
    def nmse(self) -> float:
        """Of all values together."""
        return metrics.nmse(self.r2, self.e2)

    @property
    def cosine(self) -> float:
        """Of all values together."""
        return metrics.cosine(self.r2, self.t2, self.e2)


@dataclass(kw_only=True, eq=False)
class ClassSums:
    """How often both forms name the same class, and how often each names the label's."""

    rows: int = 0
    """Samples with scores of classes."""
    agreeing: int = 0
    labelled: int = 0
    right: tuple[int, int] = (0, 0)
    """(reference, other form)."""
    renumbered: tuple[int, int] = (0, 0)
    """How often the reference names the class before the label's, and the one behind it."""

    def add(
        self, r: NDArray[Any], t: NDArray[Any], labels: NDArray[Any] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Adds the scores (samples, classes) of some samples, with labels (samples,) where there are any.

        Gives the top classes (samples,) of both; a sample with NaN has none (-1), and agrees with nothing.
        """
        first, second = metrics.top_classes(r), metrics.top_classes(t)
        self.rows += len(first)
        self.agreeing += int(np.sum((first == second) & (first >= 0)))
        if labels is not None:
            self.labelled += len(first)
            reference, other = (int(np.sum((top == np.asarray(labels)) & (top >= 0))) for top in (first, second))
            self.right = (self.right[0] + reference, self.right[1] + other)
            before, behind = (int(np.sum((first == np.asarray(labels) + by) & (first >= 0))) for by in (-1, 1))
            self.renumbered = (self.renumbered[0] + before, self.renumbered[1] + behind)
        return first, second

    def merge(self, other: ClassSums) -> None:
        """Adds those of other samples."""
        self.rows += other.rows
        self.agreeing += other.agreeing
        self.labelled += other.labelled
        self.right = (self.right[0] + other.right[0], self.right[1] + other.right[1])
        self.renumbered = (self.renumbered[0] + other.renumbered[0], self.renumbered[1] + other.renumbered[1])

    @property
    def agreement(self) -> float | None:
        """Share of the samples on which both agree; None where none has scores."""
        return self.agreeing / self.rows if self.rows else None

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Shares of the labelled samples that each gets right; None without labels."""
        return (self.right[0] / self.labelled, self.right[1] / self.labelled) if self.labelled else None
