"""What a model puts out, train mode against eval mode: sums over the batches, and whether it is scores of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.output_sums import ClassSums, ErrorSums
from bncheck.facts.errors import UsageError
from bncheck.facts.measurements import OutputDifference
from bncheck.facts.ratios import informed_accuracy
from bncheck.numerics import metrics

_ROWS = 8
"""Samples that are made float64 at a time: a segmentation of a whole batch would fill the memory."""


class Kind(Enum):
    """What the graph says of an output."""

    SCORES = "scores"
    """A loss takes it for scores of classes."""
    FEATURES = "features"
    """A rectifier or a batch norm gives it."""
    PROBABILITIES = "probabilities"
    """A sigmoid gives it, or all of it lies between 0 and 1: of a single column the probability of class 1."""
    LOGITS = "logits"
    """A loss takes its sigmoid: of a single column the logit of class 1."""
    NUMBERS = "numbers"
    """A loss takes it for something else, such as boxes."""
    UNKNOWN = "unknown"


class OutputKind(Enum):
    """How an output is read as scores of classes."""

    NONE = "none"
    """Not at all."""
    COLUMNS = "columns"
    """One score a class."""
    PROBABILITY = "probability"
    """The probability of the second of two classes."""
    LOGIT = "logit"
    """Its logit."""


def read_as(output: NDArray[Any], *, kind: Kind = Kind.UNKNOWN, labels: NDArray[Any] | None = None) -> OutputKind:
    """How an output gives one score a class and sample: in columns, or two classes in a single one.

    A single column is two classes where a sigmoid gives it or a loss takes its sigmoid; where the graph leaves it open,
    where the labels are 0 and 1. It is a probability then if all of it lies between 0 and 1.
    """
    if not output.ndim or output.dtype.kind not in "fV" or not len(output) or output.size != len(output):
        return OutputKind.COLUMNS if scores_of_classes(output, kind=kind, labels=labels) else OutputKind.NONE
    if kind is Kind.PROBABILITIES:
        return OutputKind.PROBABILITY
    if kind is Kind.LOGITS:
        return OutputKind.LOGIT
    if kind is not Kind.UNKNOWN or labels is None or not bool(np.all((labels == 0) | (labels == 1))):
        return OutputKind.NONE
    values = np.asarray(output, np.float64)
    return OutputKind.PROBABILITY if bool(np.all((values >= 0) & (values <= 1))) else OutputKind.LOGIT


def as_scores(output: NDArray[Any], how: OutputKind) -> NDArray[Any]:
    """An output of N samples as (N, classes)."""
    rows = output.reshape(len(output), -1)
    if how is OutputKind.PROBABILITY:
        return metrics.two_classes(rows, probability=True)
    return metrics.two_classes(rows, probability=False) if how is OutputKind.LOGIT else rows


def scores_of_classes(output: NDArray[Any], *, kind: Kind = Kind.UNKNOWN, labels: NDArray[Any] | None = None) -> bool:
    """Whether an output is one score a class and sample: (N, classes), or with axes of one between.

    Where the graph leaves it open: probabilities, what labels fit, and (N, classes) that are below 0 somewhere, for
    what never is has been through a ReLU. Features on a single pixel look like scores.
    """
    classes = output.shape[-1] if output.ndim else 0
    if classes < 2 or output.ndim < 2 or any(size != 1 for size in output.shape[1:-1]):
        return False
    if output.dtype.kind not in "fV" or not len(output) or kind is Kind.FEATURES:
        return False
    if kind is Kind.SCORES:
        return True
    if kind is Kind.LOGITS:  # of several labels a sample perhaps
        return labels is not None and _fit(labels, classes)
    rows = np.asarray(output.reshape(len(output), -1), np.float64)
    if metrics.are_probabilities(rows) or (labels is not None and _fit(labels, classes)):
        return True
    return kind is Kind.UNKNOWN and output.ndim == 2 and not bool(np.all(rows >= 0))


def apart_from_labels(outputs: Sequence[NDArray[Any]], kinds: Sequence[Kind], labels: NDArray[Any]) -> list[Kind]:
    """Of several outputs those whose columns are fewer than the labels are numbers, where another has enough of them.

    Four columns of boxes beside ten classes are no scores of four classes; nor beside two classes in a single column,
    if no label is above 1.
    """
    highest = int(np.max(labels, initial=0))
    read = [read_as(output, kind=kind, labels=labels) for output, kind in zip(outputs, kinds, strict=True)]
    single = [how in (OutputKind.PROBABILITY, OutputKind.LOGIT) for how in read]
    if highest < 2 and any(single):
        enough = single
    else:
        enough = [highest < (output.shape[-1] if output.ndim else 0) for output in outputs]
    scores = [how is not OutputKind.NONE for how in read]
    if not any(a and b for a, b in zip(scores, enough, strict=True)):
        return list(kinds)
    return [
        Kind.NUMBERS if kind is Kind.UNKNOWN and score and not fits else kind
        for kind, score, fits in zip(kinds, scores, enough, strict=True)
    ]


def place_of(name: str | None, outputs: Sequence[str], also: Mapping[str, str] = MappingProxyType({})) -> int | None:
    """The place of the output that `--labels-output` names; None where it was not given. Raises UsageError.

    `also` holds other names of theirs: name -> the one among `outputs`.
    """
    if name is None:
        return None
    own = also.get(name, name)
    if own not in outputs:
        named = ", ".join([other for other, known in also.items() if known in outputs] or outputs)
        raise UsageError(f"--labels-output: {name!r} is not an output that is compared: there are {named}")
    return list(outputs).index(own)


def _is_distribution(output: NDArray[Any]) -> bool:
    return metrics.are_probabilities(np.asarray(output.reshape(len(output), -1), np.float64))


def labels_belong(outputs: Sequence[OutputTotals]) -> OutputTotals | None:
    """The output that the labels are of, by what it is and whether it meets them, the first only where nothing tells.

    What a loss takes for scores, or a softmax gives, comes before what may be anything. None where none has labels.
    """
    labelled = [total for total in outputs if total.top.labelled and not total.no_scores]
    named = [total for total in labelled if total.theirs]
    return min(named or labelled, key=lambda total: total.rank, default=None)


def by_sample(output: NDArray[Any], count: int) -> NDArray[Any]:
    """Rows that are parts of samples, as pixels or time steps are for a loss, under the axis of `count` samples."""
    if not output.ndim or len(output) <= count or len(output) % count:
        return output
    return output.reshape(count, -1, *output.shape[1:])


def _fit(labels: NDArray[Any], classes: int) -> bool:
    """Whether labels may count so many classes: none beyond them, and not a tenth of them."""
    highest = int(np.max(labels, initial=0))
    return highest < classes <= 2 * (highest + 1)


@dataclass(kw_only=True, eq=False)
class OutputTotals:
    """Sums of one output over the batches; r train mode, t eval mode."""

    kind: Kind = Kind.UNKNOWN
    scores: OutputKind | None = None
    """How it is read as scores of classes; the first batch decides."""
    errors: ErrorSums = field(default_factory=ErrorSums)
    top: ClassSums = field(default_factory=ClassSums)
    drift: float = 0.0
    classes: int | None = None
    answers: Counter[int] = field(default_factory=Counter)
    """Class -> samples that train mode gives it."""
    asked: Counter[int] = field(default_factory=Counter)
    """Label -> samples that have it."""
    theirs: bool = False
    """Whether the labels belong to it."""
    doubtful: bool = False
    """Whether nothing but its shape says that it is scores: neither the graph, nor that they add up to 1."""
    by_sample: bool = True
    """Whether its first axis is that of the samples, so that they can be dealt to other batches."""

    def add(self, reference: NDArray[Any], test: NDArray[Any], count: int, labels: NDArray[Any] | None = None) -> None:
        """One batch of `count` samples: train mode, eval mode, and labels (count,) where there are any."""
        reference, test = (by_sample(part, count) for part in (reference, test))
        r, t = np.atleast_1d(reference), np.atleast_1d(test)
        for start in range(0, len(r), _ROWS):
            self.errors.add(*(np.asarray(part[start : start + _ROWS], np.float64) for part in (r, t)))
        self.by_sample = self.by_sample and reference.ndim > 0 and len(r) == count
        if self.scores is None:
            self.scores = read_as(reference, kind=self.kind, labels=labels)
            columns = self.kind is Kind.UNKNOWN and self.scores is OutputKind.COLUMNS
            self.doubtful = columns and not _is_distribution(reference)
        if not self.by_sample or self.scores is OutputKind.NONE:
            return
        r, t = (as_scores(part, self.scores) for part in (r, t))
        self.classes = r.shape[1]
        chosen, _ = self.top.add(r, t, labels)
        self.drift += metrics.softmax_drift(r, t) * count
        self.answers.update(chosen.tolist())
        if labels is not None:
            self.asked.update(np.asarray(labels).tolist())

    def alike(self) -> OutputTotals:
        """Of no batch yet, read as this one is."""
        return OutputTotals(kind=self.kind, scores=self.scores, theirs=self.theirs, doubtful=self.doubtful)

    def merge(self, other: OutputTotals) -> None:
        """Adds what other batches told, which were read alike."""
        self.errors.merge(other.errors)
        self.top.merge(other.top)
        self.drift += other.drift
        self.classes = other.classes if self.classes is None else self.classes
        self.answers.update(other.answers)
        self.asked.update(other.asked)
        self.by_sample = self.by_sample and other.by_sample

    @property
    def rank(self) -> tuple[bool, bool, bool, bool]:
        """How much speaks against it that the labels are of this output, the strongest first; it has some.

        Nothing but its shape says that it is scores; it does not meet them; it has other columns than they count; it
        has more than twice as many.
        """
        width, counted = self.classes or 0, max(self.asked) + 1
        met = max(self.top.accuracy or (0.0, 0.0)) >= informed_accuracy(max(width, 2))
        return self.doubtful, not met or width < counted, width != counted, width > 2 * counted

    @property
    def no_scores(self) -> bool:
        """Whether labels refute that it is scores: it has far more columns than they count, and hardly meets them.

        An embedding of 32 beside ten labels; the logits of a thousand classes, given pictures of ten, meet theirs.
        """
        accuracy = self.top.accuracy
        if not self.doubtful or self.classes is None or accuracy is None:
            return False
        counted = max(self.asked) + 1
        return self.classes > 2 * counted and max(accuracy) < informed_accuracy(max(counted, 2))

    def difference(self, name: str, floor: OutputTotals | None) -> OutputDifference:
        """What is told of it; `floor` is train mode against itself."""
        rows = self.top.rows
        if self.no_scores:
            return OutputDifference(
                name=name,
                nmse=self.errors.nmse,
                cosine=self.errors.cosine,
                floor=None if floor is None else floor.errors.nmse,
            )
        return OutputDifference(
            name=name,
            nmse=self.errors.nmse,
            cosine=self.errors.cosine,
            floor=None if floor is None else floor.errors.nmse,
            classes=self.classes,
            labelled=self.theirs and self.top.labelled > 0,
            read_as=self.scores.value if rows and self.scores is not None else "",
            agreement=self.top.agreement,
            agreement_floor=None if floor is None else floor.top.agreement,
            probability_drift=self.drift / rows if rows else None,
            commonest=max(self.answers.values()) / rows if rows else None,
        )
