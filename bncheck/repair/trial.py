"""New statistics on trial: what eval mode would answer with them, on samples that did not make them, before they are
written.

The samples fall into two halves, and each half's statistics are judged by the samples of the other (two-fold
cross-validation, repeated), so that none vouches for what it was estimated from and none is lost to the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import Batch
from bncheck.compare.data.summary import InputTotals
from bncheck.compare.outputs import Kind, OutputTotals, apart_from_labels, as_scores, labels_belong
from bncheck.facts.inputs import InputSummary
from bncheck.facts.repairs import Trial
from bncheck.numerics import metrics
from bncheck.numerics.moments import Moments
from bncheck.repair.splits import Split
from bncheck.repair.statistics import NewStatistics
from bncheck.repair.trial_twins import Statistics, TrialTwins

MOST_SAMPLES = 2048
"""Samples that are judged by at most: agreement is then known to a point."""
_SEED = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """Statistics to be tried."""

    stored: Statistics | None
    """As they are; None where some are missing, so that there is no eval mode."""
    new: Statistics
    splits: Sequence[Split] = ()


def candidates(new: Sequence[NewStatistics], cut: Sequence[Split], stored: Statistics | None) -> Candidates:
    """What an estimate offers beside what is stored."""
    return Candidates(stored=stored, new={one.layer: (one.mean, one.variance) for one in new}, splits=cut)


def _statistics(half: Mapping[str, Moments], layers: Statistics) -> Statistics:
    return {layer: (part.mean, part.variance) for layer, part in half.items() if layer in layers}


@dataclass(kw_only=True, eq=False)
class _TrialTotals:
    """Sums over the batches, of one output."""

    kind: Kind
    stored: OutputTotals = field(default_factory=OutputTotals)
    """Train mode against eval mode as it is stored."""
    new: OutputTotals = field(default_factory=OutputTotals)
    """Train mode against eval mode with the new statistics."""
    unseen: OutputTotals = field(default_factory=OutputTotals)
    """Train mode against eval mode with the statistics of the half that the sample is not in, once a split."""
    halves: OutputTotals = field(default_factory=OutputTotals)
    """One half's statistics against the other's, both in eval mode, once a split."""
    lost: list[NDArray[np.float64]] = field(default_factory=list)
    """(splits, samples) of each batch: `metrics.lost_confidence` between the halves."""
    entropy: float = 0.0
    scrambled_entropy: float = 0.0

    @property
    def all(self) -> tuple[OutputTotals, ...]:
        """Every comparison."""
        return self.stored, self.new, self.unseen, self.halves


def try_out(
    twins: TrialTwins,
    found: Candidates,
    batches: Iterable[Batch],
    kinds: Sequence[Kind],
    *,
    declared: str | None,
    labels_output: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Trial:
    """Runs up to MOST_SAMPLES through train mode and eval mode with each candidate.

    `kinds` say what the graph knows of each output, `declared` the range of the input by the user's word,
    `labels_output` the place of the output that the labels belong to, where the user says it. Raises BncheckError where
    the model refuses.
    """
    totals: list[_TrialTotals] = [_TrialTotals(kind=kind) for kind in kinds]
    seen, samples = InputTotals(), 0
    random = np.random.default_rng(_SEED)
    halves = [tuple(_statistics(half, found.new) for half in (one.first, one.second)) for one in found.splits]
    for images, labels in batches:
        if samples >= MOST_SAMPLES:
            break
        train = twins.train(images)
        if labels is not None and not samples:
            known = apart_from_labels(train, [total.kind for total in totals], labels)
            for total, kind in zip(totals, known, strict=True):
                total.kind = kind
        if not samples:
            for total in totals:
                for one in total.all:
                    one.kind = total.kind
        stored = None if found.stored is None else twins.stored(images, found.stored)
        new = twins.with_statistics(images, found.new)
        cut = [tuple(twins.with_statistics(images, half) for half in pair) for pair in halves]
        noise = twins.train(_scrambled(images, random))
        for place, total in enumerate(totals):
            total.new.add(train[place], new[place], len(images), labels)
            if stored is not None:
                total.stored.add(train[place], stored[place], len(images), labels)
            for split, (first, second) in zip(found.splits, cut, strict=True):
                unseen = _unseen(first[place], second[place], split.in_second[samples : samples + len(images)])
                total.unseen.add(train[place], unseen, len(images), labels)
                total.halves.add(first[place], second[place], len(images))
            _add_lost(total, [(first[place], second[place]) for first, second in cut])
            _add_entropies(total, train[place], noise[place])
        seen.add(images)
        samples += len(images)
        progress(samples)
    judged = totals[labels_output] if labels_output is not None else _judged(totals)
    return _trial(judged, seen.summary(declared=declared), found)


def _unseen(first: NDArray[Any], second: NDArray[Any], in_second: NDArray[np.bool_]) -> NDArray[Any]:
    """For each sample the answer of the half that it is not in; one that made neither is judged by the first."""
    if not first.ndim or len(in_second) > len(first):
        return first
    own = np.pad(in_second, (0, len(first) - len(in_second)), constant_values=True)
    return np.where(own.reshape(-1, *[1] * (first.ndim - 1)), first, second)


def _scrambled(images: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    """The batch's own pixels, dealt anew over all its samples: what a model sees that sees nothing.

    Within a sample alone they would keep its colours, by which photographs are told as well.
    """
    if images.dtype.names is not None:
        found: NDArray[Any] = images.copy()
        for name in images.dtype.names:
            found[name] = _scrambled(images[name], random)
        return found
    pixels = images.reshape(-1, images.shape[-1] if images.ndim > 1 else 1)
    return np.asarray(pixels[random.permutation(len(pixels))].reshape(images.shape))


def _add_lost(total: _TrialTotals, cut: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    how = total.halves.scores
    if total.halves.top.rows and how is not None:
        pairs = [[np.asarray(as_scores(half, how), np.float64) for half in pair] for pair in cut]
        total.lost.append(np.stack([metrics.lost_confidence(one, other) for one, other in pairs]))


def _lost(batches: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """(mean, its standard error) over samples and splits: what few samples, and few ways to cut them, leave open."""
    lost = np.concatenate(batches, axis=1)
    of_samples, of_splits = lost.mean(axis=0), lost.mean(axis=1)
    between = float(np.var(of_splits, ddof=1)) / len(of_splits) if len(of_splits) > 1 else 0.0
    return float(lost.mean()), math.sqrt(float(np.mean(of_samples**2)) / len(of_samples) + between)


def _add_entropies(total: _TrialTotals, train: NDArray[Any], noise: NDArray[Any]) -> None:
    how = total.new.scores
    if not total.new.top.rows or how is None:
        return
    total.entropy += metrics.entropy(np.asarray(as_scores(train, how), np.float64))
    total.scrambled_entropy += metrics.entropy(np.asarray(as_scores(noise, how), np.float64))


def _judged(totals: Sequence[_TrialTotals]) -> _TrialTotals:
    """The output that the labels are of, else the first that is scores of classes, else the first."""
    theirs = labels_belong([total.new for total in totals])
    fitting = [total for total in totals if total.new is theirs] or [total for total in totals if total.new.top.rows]
    return (fitting or list(totals))[0]


def _trial(judged: _TrialTotals, seen: InputSummary, found: Candidates) -> Trial:
    has_stored, halved = found.stored is not None, bool(found.splits)
    new, stored, unseen, halves = (total.top for total in (judged.new, judged.stored, judged.unseen, judged.halves))
    rows, labelled = new.rows, new.labelled
    lost, lost_error = _lost(judged.lost) if judged.lost else (None, None)

    def accuracy(right: int, times: int = 1) -> float | None:
        return right / labelled / times if labelled else None

    return Trial(
        samples=seen.samples,
        input=seen,
        labelled=labelled,
        classes=judged.new.classes if rows else None,
        labels_seen=len(judged.new.asked),
        answers=len(judged.new.answers),
        commonest=max(judged.new.answers.values()) / rows if rows else None,
        accuracy_train=accuracy(new.right[0]),
        accuracy_before=accuracy(stored.right[1]) if has_stored else None,
        accuracy_after=accuracy(unseen.right[1], len(found.splits)) if halved else None,
        agreement_before=stored.agreeing / rows if rows and has_stored else None,
        agreement_after=new.agreeing / rows if rows else None,
        error_after=judged.new.errors.nmse,
        halves_agreement=halves.agreeing / halves.rows if rows and halves.rows else None,
        halves_loss=lost,
        halves_loss_error=lost_error,
        splits=len(found.splits),
        halves_error=judged.halves.errors.nmse if halved else None,
        entropy=judged.entropy / rows if rows else None,
        scrambled_entropy=judged.scrambled_entropy / rows if rows else None,
    )
