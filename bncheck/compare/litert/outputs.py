"""What two TFLite files put out: sums over the samples, and whether it is scores of classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.output_sums import ClassSums, ErrorSums
from bncheck.compare.outputs import Kind, OutputKind, as_scores, read_as
from bncheck.facts.measurements import OutputDifference
from bncheck.numerics import metrics

_SUM = 1e-3
"""By how much the probabilities of a sample may miss 1 in float, ..."""
_ROUNDED_SUM = 0.1
"""... and at most where they were rounded to integers, half a step each."""


@dataclass(kw_only=True, eq=False)
class OutputSums:
    """Sums of one output over the samples; r float, t quantized."""

    kind: Kind = Kind.UNKNOWN
    """What is known of it from its graph; here only whether a single column is two classes."""
    single: OutputKind = OutputKind.NONE
    """How its single column gives two classes; the first samples decide."""
    step: float = 0.0
    """Of the reference, where it is stored in integers."""
    errors: ErrorSums = field(default_factory=ErrorSums)
    top: ClassSums = field(default_factory=ClassSums)
    width: int = 0
    """Scores of a sample where the shape is that of scores of classes, else 0."""
    flat: bool = False
    """Whether that shape is (N, classes), without axes of one between."""
    negative: bool = False
    """Whether some score was below 0, as no feature behind a ReLU is."""
    whole: bool = True
    """Whether the scores of each sample add up to 1."""
    distance: float = 0.0
    """Sum over samples of `0.5 sum |r - t|`, ..."""
    softmax_distance: float = 0.0
    """... and of the same between the softmax of both."""
    highest: int = 0
    """Label."""

    @property
    def probabilities(self) -> bool:
        """Whether the reference is a distribution for each sample, as far as all samples together tell."""
        return self.width > 0 and self.whole and not self.negative

    @property
    def classes(self) -> int:
        """Number of classes; 0 where it is no scores of classes."""
        if self.kind in {Kind.NUMBERS, Kind.FEATURES}:
            return 0
        scores = self.single is not OutputKind.NONE or self.probabilities
        scores = scores or ((self.flat or self.top.labelled > 0) and self.negative)
        return self.width if scores else 0

    @property
    def fits(self) -> bool:
        """Whether it has a class for every label."""
        return self.top.labelled > 0 and self.classes > self.highest

    def add(self, reference: NDArray[Any], test: NDArray[Any], labels: NDArray[Any] | None) -> None:
        """Adds some samples: both outputs in real numbers, labels (samples,) where there are any."""
        r: NDArray[np.float64] = np.asarray(reference, np.float64)
        t: NDArray[np.float64] = np.asarray(test, np.float64).reshape(reference.shape)
        self.errors.add(r, t)
        if r.ndim and r.size == len(r):
            if not self.width:
                self.single = read_as(r, kind=self.kind, labels=labels)
            if self.single is OutputKind.NONE:
                return
            r, t = as_scores(r, self.single), as_scores(t, self.single)
        if r.ndim < 2 or r.shape[-1] < 2 or any(size != 1 for size in r.shape[1:-1]):
            return
        self.flat = r.ndim == 2
        r, t = (values.reshape(len(values), -1) for values in (r, t))
        self.width = r.shape[1]
        room = max(_SUM, min(_ROUNDED_SUM, self.step * self.width / 2))
        self.negative = self.negative or bool(np.any(r < 0))
        self.whole = self.whole and bool(np.all(np.abs(np.sum(r, axis=1) - 1) <= room))
        self._add_scores(r, t, labels)

    def _add_scores(self, r: NDArray[np.float64], t: NDArray[np.float64], labels: NDArray[Any] | None) -> None:
        self.top.add(r, t, labels)
        with np.errstate(all="ignore"):
            self.distance += float(np.sum(np.abs(r - t)) / 2)
            self.softmax_distance += float(np.sum(np.abs(metrics.softmax(r) - metrics.softmax(t))) / 2)
        if labels is not None:
            self.highest = max(self.highest, int(np.max(labels, initial=0)))

    def difference(self, name: str, *, scores: bool = True) -> OutputDifference:
        """What is told of it; as mere numbers unless `scores`."""
        classes = self.classes if scores else 0
        distance = self.distance if self.probabilities else self.softmax_distance
        return OutputDifference(
            name=name,
            nmse=self.errors.nmse,
            cosine=self.errors.cosine,
            classes=classes or None,
            read_as=(self.single if self.single is not OutputKind.NONE else OutputKind.COLUMNS).value
            if classes
            else "",
            agreement=self.top.agreement if classes else None,
            probability_drift=distance / self.top.rows if classes else None,
        )
