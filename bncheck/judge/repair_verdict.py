"""What the evidence makes of a repair: a pass is earned by samples that had no part in it, or there is none."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bncheck.facts.findings import Report, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.ratios import informed_accuracy
from bncheck.facts.repairs import RepairJudgement, RepairVerdict, Trial
from bncheck.facts.training import has_statistics, trained_on_batches, trainers
from bncheck.facts.wording import many, percent
from bncheck.numerics.settled import expected_error, expected_loss, samples_needed

MOST_LOST = 0.05
"""Accuracy that a pass may cost against a repair from all training data, and so the disagreement to be expected."""
MOST_ERROR = 0.03
"""NMSE to be expected of an output that is no classes: 15 dB, as far above the 10 dB that count as a fault as below the
20 dB of a healthy int8 model (METRICS)."""
GAP = 0.035
"""Accuracy between train and eval mode that is no fault, as in the comparison of both."""
ERRORS_ALLOWED = 2.0
"""Standard errors by which a difference must lie above 0."""
NOISE = 0.1
"""Correlation of neighbouring pixels below which images are noise: photographs have 0.8 to 0.99, digits 0.9, text and
checkerboards at least 0.3 in size. A guess between."""
SURER = 0.5
"""Entropy on the data over that on the same pixels dealt anew over the samples, from which the model recognises little.
Digits: 0.04; inverted digits, which it was not trained on, 0.94. Photographs in a net that gets 78 % right: 0.46; their
negatives 0.55."""
OTHER_RANGE, DOUBTED_RANGE = 1.6, 1.25
"""Factor of the input's range that is another range, for 2 is the least that conventions differ by; and that is more
than photographs of the same kind differ by: a guess."""
ENOUGH_TO_REFUSE = 8
"""Samples that are no accident of brightness: a guess."""
SAMPLES_A_CLASS = 4
"""Samples for each class from which one that never comes is missing: by chance e**-4 = 2 % of classes do."""


def refusal(trial: Trial) -> str:
    """Why the new statistics must not be written, as a sentence; empty where nothing speaks against them."""
    seen = trial.input
    if seen.constant:
        return f"Every value of the data is {seen.low:g}: a constant has no statistics."
    if seen.neighbours is not None and abs(seen.neighbours) < NOISE:
        return (
            f"The images are noise: neighbouring pixels correlate at {seen.neighbours:.2f}, those of photographs at "
            "0.8 or more. Statistics of noise are not those of the data that the model is used on."
        )
    if _worse(trial):
        assert trial.accuracy_before is not None
        assert trial.accuracy_after is not None
        return (
            f"Eval mode meets {percent(trial.accuracy_before)} of the labels as it is, and would meet "
            f"{percent(trial.accuracy_after)} with statistics of these data: the stored statistics belong to these "
            "weights. The model was trained or frozen in eval mode, or these data are of another domain."
        )
    factor = trial.range_factor
    if factor is not None and max(factor, 1 / factor) > OTHER_RANGE and seen.distinct >= ENOUGH_TO_REFUSE:
        return (
            f"The data are {factor:.3g} times as large as those of the training, by what is left of them in the first "
            "layer's statistics: give them in the range that the model was trained on (--preprocess)."
        )
    return ""


JUDGED_BY_NOTHING = RepairJudgement(
    verdict=RepairVerdict.UNVERIFIED,
    reasons=("No data were run, so nothing confirms the new statistics.",),
)
"""Of a repair without data."""


def refused_by_files(report: Report) -> tuple[str, ...]:
    """Why new statistics are no remedy for what the files show, as sentences."""
    found = [f for f in report.findings if f.severity is not Severity.INFO and f.rule.refuses_repair]
    return tuple(f"{f.code} {f.slug}: {f.rule.refuses_repair}." for f in found)


def judge_repair(trial: Trial, facts: Facts, *, doubted: Sequence[str] = ()) -> RepairJudgement:
    """PASS where independent evidence carries it, REFUSED where it speaks against it, else UNVERIFIED.

    `facts` are those of the model before; `doubted` are sentences on why a comparison before the repair could not tell.
    """
    against = refusal(trial)
    if against:
        return RepairJudgement(verdict=RepairVerdict.REFUSED, reasons=(against,))
    unsettled, needed = _unsettled(trial)
    doubts = [*unsettled, *(_by_labels(trial) if trial.labelled else _unlabelled(trial, facts))]
    doubts += [*_few_classes(trial), *_which_range(trial)]
    doubts += doubted
    verdict = RepairVerdict.UNVERIFIED if doubts else RepairVerdict.PASS
    told = (*_carried_by(trial), holds_for(trial))
    assumes = "" if doubts else _assumed_range(trial)
    return RepairJudgement(verdict=verdict, reasons=tuple(doubts), told=told, assumes=assumes, samples_needed=needed)


def with_averages(raw: RepairJudgement, averages: RepairJudgement) -> RepairJudgement:
    """One judgement on both copies of the weights that a checkpoint holds: the worse one, with the reasons of both."""
    worst = max(raw.verdict, averages.verdict, key=_WORSE.index)
    prefix = "Averaged weights: "
    return RepairJudgement(
        verdict=worst,
        reasons=(*raw.reasons, *(prefix + reason for reason in averages.reasons)),
        told=(*raw.told, *(prefix + told for told in averages.told[:-1])),
        assumes=raw.assumes or averages.assumes if worst is RepairVerdict.PASS else "",
        samples_needed=max((n for n in (raw.samples_needed, averages.samples_needed) if n is not None), default=None),
    )


_WORSE = (RepairVerdict.PASS, RepairVerdict.UNVERIFIED, RepairVerdict.REFUSED)


def holds_for(trial: Trial) -> str:
    """For which input the copy holds, as a sentence."""
    seen = trial.input
    answers = "" if trial.classes is None else f"; train mode answers with {trial.answers} of {trial.classes} classes"
    return (
        f"The copy holds for input between {seen.low:.4g} and {seen.high:.4g}, mean {seen.mean:.3g}, deviation "
        f"{seen.deviation:.3g} ({many(seen.distinct, 'different sample')}{answers})."
    )


def _carried_by(trial: Trial) -> list[str]:
    told = []
    if trial.accuracy_after is not None and trial.accuracy_train is not None:
        before = "" if trial.accuracy_before is None else f", {percent(trial.accuracy_before)} before"
        told.append(
            f"Accuracy in eval mode on {many(trial.labelled, 'sample')}, each judged by statistics of the half that it "
            f"is not in: {percent(trial.accuracy_after)}{before}; train mode {percent(trial.accuracy_train)}."
        )
    if trial.halves_agreement is not None:
        told.append(
            f"The two halves of the data make models that agree on {percent(trial.halves_agreement)} of the samples."
        )
    elif trial.halves_error is not None:
        told.append(f"The outputs of the models that the two halves make differ by {trial.halves_error:.2g} (NMSE).")
    return told


def _worse(trial: Trial) -> bool:
    before, after = trial.accuracy_before, trial.accuracy_after
    if before is None or after is None:
        return False
    return before - after > max(0.01, ERRORS_ALLOWED * _error(before - after, trial.labelled))


def _error(differing: float, samples: int) -> float:
    """Standard error of a difference of accuracies on the same samples, of which about `differing` change."""
    return math.sqrt(max(abs(differing), 1 / max(samples, 1)) / max(samples, 1))


def _unsettled(trial: Trial) -> tuple[list[str], int | None]:
    """(doubts, about how many samples would settle them)."""
    if trial.input.distinct < 2 or (trial.halves_agreement is None and trial.halves_error is None):
        few = many(trial.input.distinct, "sample")
        return [f"{few} cannot be split into two halves that confirm each other."], None
    if trial.classes is not None and trial.halves_agreement is not None and trial.halves_loss is not None:
        samples = min(trial.samples, trial.input.distinct)
        expected = expected_loss(
            trial.halves_loss, trial.halves_loss_error or 0.0, samples=samples, splits=trial.splits
        )
        limit, told = MOST_LOST, f"agree on {percent(trial.halves_agreement)} of the samples"
    else:
        assert trial.halves_error is not None
        expected, limit = expected_error(trial.halves_error), MOST_ERROR
        told = f"differ by {trial.halves_error:.2g} (NMSE)"
    if expected <= limit:
        return [], None
    needed = samples_needed(trial.samples, expected, limit) if math.isfinite(expected) else None
    more = "more samples may settle it" if needed is None else f"about {needed:,} samples would settle it"
    return [f"The statistics are not settled: the models that the two halves of the data make {told}; {more}."], needed


def _by_labels(trial: Trial) -> list[str]:
    train, after = trial.accuracy_train, trial.accuracy_after
    if train is None or after is None or trial.classes is None:
        return []
    if train < informed_accuracy(trial.classes):
        told = f"Train mode itself meets only {percent(train)} of the labels"
        return [f"{told}: these are not the data or the labels that the model was trained on."]
    lost = train - after
    if lost > max(GAP, ERRORS_ALLOWED * _error(lost, trial.labelled)):
        return [f"With the new statistics eval mode still loses {100 * lost:.1f} points against train mode."]
    return []


def _unlabelled(trial: Trial, facts: Facts) -> list[str]:
    doubts = []
    trained = [layer for layer in facts.layers if has_statistics(layer) and trainers(layer)]
    if not any(trained_on_batches(layer) for layer in trained) and trial.range_factor is None:
        doubts.append(
            "Nothing in the files says that the model was trained with batch statistics, and without labels running it "
            "does not tell: give --labels."
        )
    if trial.entropy is None or trial.scrambled_entropy is None:
        if trial.range_factor is None:
            doubts.append("Without labels nothing tells whether these are data of the kind that the model knows.")
    elif trial.entropy > SURER * trial.scrambled_entropy:
        doubts.append(
            f"The model recognises little in these data: the entropy of its answers is {trial.entropy:.2f}, and "
            f"{trial.scrambled_entropy:.2f} where the pixels are dealt anew."
        )
    return doubts


def _few_classes(trial: Trial) -> list[str]:
    classes = trial.classes
    if classes is None:
        return []
    seen, what = (trial.labels_seen, "labels") if trial.labelled else (trial.answers, "answers")
    possible = min(classes, trial.input.distinct)
    if seen == 1 or (trial.samples >= SAMPLES_A_CLASS * classes and seen < classes / 2) or seen < possible / 4:
        return [f"All {what} fall into {seen} of {classes} classes: statistics of a part are not those of all."]
    return []


def _which_range(trial: Trial) -> list[str]:
    """Where the first layer's variance does not tell, the files hold nothing of the training's input."""
    factor = trial.range_factor
    if factor is not None:
        near = max(factor, 1 / factor) <= DOUBTED_RANGE
        return [] if near else [f"The data are {factor:.3g} times as large as those that the stored statistics are of."]
    if trial.input.declared or (trial.input.declared is None and trial.input.centred):
        return []
    lies = f"The input lies between {trial.input.low:g} and {trial.input.high:g}"
    if trial.input.declared is False:
        return [f"{lies}, which is not the range that --preprocess names; floating-point arrays are taken as they are."]
    told = (
        f"{lies}. Nothing in the files tells whether that "
        "is the range of the training: train mode works in any range, eval mode only in that of its statistics. If it "
        "is, say so with --preprocess (images), or accept the copy with --allow-unverified."
    )
    return [told]


def _assumed_range(trial: Trial) -> str:
    """The range of the training, where the data lie around 0 and no evidence tells it; empty where some does.

    A rule of thumb: data are seldom given around 0 to a model that was trained on others.
    """
    seen = trial.input
    if trial.range_factor is not None or seen.declared:
        return ""
    named = "" if seen.neighbours is None else "; where --preprocess names it, nothing is assumed"
    return (
        f"the model was trained on input between {seen.low:.4g} and {seen.high:.4g}. The first layer's statistics do "
        f"not tell, and train mode works in any range{named}."
    )
