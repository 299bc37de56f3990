"""What the rules on a comparison share: is there enough to judge, is the output junk, which layers diverge.

Calibrated on MobileNetV2 0.35 trained on digits, its statistics damaged by degrees (share of the initial value, noise,
scale; all layers or one), 352 test images in batches of 32. Healthy: no layer above 0.0035 local NMSE, accuracy in eval
mode 1.7 points above train mode, agreement 0.02 below that of train mode with itself. One layer's variance scaled by
1.5, its statistics shifted by half a deviation, permuted or set to 0 and 1: local NMSE 0.02 to 1.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncheck.facts.findings import Meaning
from bncheck.facts.ratios import informed_accuracy, scores_of
from bncheck.facts.record import Record
from bncheck.facts.wording import many, many_are, percent
from bncheck.numerics.divergence import diverging, layer_limit

if TYPE_CHECKING:
    from bncheck.facts.measurements import Comparison, LayerDifference, OutputDifference

CAUSES = (Meaning.WIRING_FAULT, Meaning.VALUES_FAULT)
"""Faults of the files that make modes differ: told together with what they did."""

ACCURACY_GAP = 0.035
"""Between 2 points, which a healthy model may lose in eval mode or quantized, and 5, which none may; within that a
guess."""
AGREEMENT_GAP = 0.085
"""Below train mode's agreement with itself: an accuracy gap of 3.7 points went with 0.088, one of 1.7 with 0.060."""
TIED = 0.03
"""Drift of the probabilities below which classes change places only where they are tied, as in a net that learned
nothing: its error is judged instead; a guess."""
OUTPUT_NMSE, TIMES_FLOOR = 0.3, 4.0
"""Of an output that is no classes: 5 dB, and well above what batch noise alone does; both guesses."""
PLAIN_NMSE, PLAIN_TIMES = 0.1, 20.0
"""Or 10 dB, where batch noise does next to nothing: a U-Net at 6 dB had five times the error of train mode;
between that and healthy nets a guess."""
LOPSIDED = 0.75
"""Share of one class from which neither labels met nor classes kept tell enough, so that the output's error is judged
too; a guess."""
CLEAR = 2.0
"""Times the limit from which an output is junk without labels, and without a layer that is off by itself: where the
network was that `in_doubt` tells of."""
HEALTHY_LOSS = 0.02
"""Accuracy that a healthy model may lose in eval mode: one measured lost 1.7 points; a guess."""
ERRORS_ALLOWED = 2.0
"""Standard errors by which a gap or a loss must lie above 0: chance alone does that one time in 44."""

MEASURED = 5
"""Layers or operators whose figures a finding lists."""
FEWEST_SAMPLES = 32
"""Below, neither moments nor agreement nor accuracy tell more than a complete collapse; a guess."""
FEWEST_VALUES = 16
"""Values a channel and batch, in the layer that has fewest: 1.5 / 16 is a tenth of the signal (METRICS, noise
floor)."""
AGREES_WITH_ITSELF = 0.7
"""Agreement of train mode with itself, in other batches, below which it is no reference; a guess."""
NOISE_FLOOR = 0.5
"""NMSE of train mode with itself from which it is no reference; a guess."""


class Junk(Record):
    """How far an output is off, by the best measure available."""

    told: str
    """The numbers, as the rest of a sentence."""
    name: str
    value: float
    limit: float
    borne: bool = False
    """By another measure it is well, whatever this one says."""

    @property
    def junk(self) -> bool:
        """Whether it is too far off, or no number."""
        return not self.borne and not self.value <= self.limit


def torn(comparison: Comparison) -> dict[str, list[LayerDifference]]:
    """Shared layers whose statistics fit all places together and yet some place not by itself: name -> such places."""
    wrong = {layer.layer for layer in diverging(comparison)}
    alone: dict[str, list[LayerDifference]] = {}
    for place in comparison.layers:
        among = place.layer not in wrong and any(layer.layer == place.layer for layer in comparison.shared)
        if among and not place.local_nmse <= layer_limit(comparison, place):
            alone.setdefault(place.layer, []).append(place)
    return alone


def labels_tell(comparison: Comparison) -> bool:
    """Whether accuracy says something: labels are there, and one mode meets them more often than chance would."""
    accuracy, classes = comparison.accuracy, _classes(comparison)
    if accuracy.train is None or accuracy.eval is None:
        return False
    return classes is None or max(accuracy.train, accuracy.eval) >= informed_accuracy(classes, accuracy.commonest)


def labels_strange(comparison: Comparison) -> bool:
    """Whether labels are there, and neither mode meets more of them than guessing would."""
    accuracy, classes = comparison.accuracy, _classes(comparison)
    if accuracy.train is None or accuracy.eval is None or classes is None:
        return False
    return max(accuracy.train, accuracy.eval) < informed_accuracy(classes)


def train_meets_labels(comparison: Comparison) -> bool:
    """Whether train mode by itself meets more labels than guessing would: its weights were trained."""
    train, classes = comparison.accuracy.train, _classes(comparison)
    if train is None or classes is None:
        return False
    return train >= informed_accuracy(classes, comparison.accuracy.commonest)


def eval_is_better(comparison: Comparison | None) -> bool:
    """Whether by labels the stored statistics serve the model better than those of the batch.

    Beyond chance, and beyond naming the most common label always. The weights were trained with these statistics then,
    in eval mode, or the data are of another domain: new ones would make the model worse.
    """
    accuracy = None if comparison is None else comparison.accuracy
    if comparison is None or accuracy is None or accuracy.train is None or accuracy.eval is None:
        return False
    samples, classes = comparison.data.samples, _classes(comparison)
    guessed = max(1 / classes if classes else 0.0, accuracy.commonest or 0.0)
    knows = accuracy.eval - guessed > ERRORS_ALLOWED * math.sqrt(guessed * (1 - guessed) / max(samples, 1))
    return knows and accuracy.eval - accuracy.train > beyond_chance(ACCURACY_GAP, _differing(comparison), samples)


def borne_by_labels(comparison: Comparison) -> bool:
    """Whether eval mode meets as many labels as train mode, so that whatever layers differ by does no harm."""
    train, stored = comparison.accuracy.train, comparison.accuracy.eval
    if train is None or stored is None or not labels_tell(comparison):
        return False
    output = judged_output(comparison)
    return train - stored <= HEALTHY_LOSS and output is not None and not output.junk


def accuracies(comparison: Comparison) -> str:
    """Both in half a sentence, where both are known: `accuracy is 10.3 % in eval mode and 90.9 % in train mode`."""
    train, stored = comparison.accuracy.train or 0.0, comparison.accuracy.eval or 0.0
    return f"accuracy is {percent(stored)} in eval mode and {percent(train)} in train mode"


def _differing(comparison: Comparison) -> float:
    """Share of the samples whose class is another in the other mode."""
    output = scores_of(comparison.outputs)
    return 1 - ((None if output is None else output.agreement) or 0.0)


def _classes(comparison: Comparison) -> int | None:
    output = scores_of(comparison.outputs)
    return None if output is None else output.classes


def too_small(comparison: Comparison) -> str:
    """Why train mode is no reference at the output, as the start of a sentence; empty where it is."""
    return too_few(comparison) or _too_noisy(comparison)


def too_few(comparison: Comparison) -> str:
    """Why the moments of the batches tell nothing of any layer; empty where they do."""
    data = comparison.data
    fewest = min((layer.samples for layer in comparison.layers), default=FEWEST_VALUES)
    if data.samples < FEWEST_SAMPLES:
        return f"{many_are(data.samples, 'sample')} too few: at least {FEWEST_SAMPLES} are needed"
    if fewest < FEWEST_VALUES:
        name = next(layer.layer for layer in comparison.layers if layer.samples == fewest)
        return (
            f"Batches of {data.batch_size} give {name} {many(fewest, 'value')} per channel, too few for a mean and "
            f"variance: at least {FEWEST_VALUES} are needed"
        )
    return ""


def _too_noisy(comparison: Comparison) -> str:
    data = comparison.data
    if labels_tell(comparison):
        return ""
    for output in comparison.outputs:
        noise = _noise(output)
        if noise:
            return f"Train mode, the reference, is too noisy in batches of {data.batch_size}: {noise}"
    if all(_floor(output) is None for output in comparison.outputs):
        if data.batches > 1:
            return "No output has one row per sample, so batch noise cannot be measured"
        return f"One batch of {data.batch_size} without labels does not show batch noise: at least 2 are needed"
    return ""


def _noise(output: OutputDifference) -> str:
    if output.agreement_floor is not None:
        low = output.agreement_floor < AGREES_WITH_ITSELF
        return f"it agrees with itself on {percent(output.agreement_floor)} of the samples" if low else ""
    if output.floor is None or output.floor <= NOISE_FLOOR:
        return ""
    return f"{output.name} differs by {percent(output.floor)} between batches"


def _floor(output: OutputDifference) -> float | None:
    return output.agreement_floor if output.classes else output.floor


def judged_output(comparison: Comparison) -> Junk | None:
    """The output that is furthest off, by accuracy, else agreement, else error; None where it cannot be judged."""
    if comparison.data.synthetic or too_small(comparison):
        return None
    found: list[Junk | None] = []
    if eval_is_better(comparison):
        return _by_accuracy(comparison)
    if labels_tell(comparison):
        found = [_by_accuracy(comparison)]
        scores = scores_of(comparison.outputs)
        found += [_by_error(scores)] if scores is not None and _lopsided(scores) else []
    else:
        for output in comparison.outputs:
            agreeing = _by_agreement(comparison, output) if output.classes else None
            found += [agreeing] if agreeing is not None else []
            found += [_by_error(output)] if agreeing is None or _lopsided(output) else []
    known = [junk for junk in found if junk is not None]
    return next((junk for junk in known if junk.junk), known[0] if known else None)


def in_doubt(comparison: Comparison, output: Junk) -> bool:
    """Whether an output that differs may be as good: no labels tell, no layer is off, and it is near the limit.

    A network that learned little changes its mind at every breath: one that met 44 % of the labels in train mode met
    43 % in eval mode, and agreed with itself on 63 % of the samples, against 80 % of train mode in other batches.
    """
    return not labels_tell(comparison) and not diverging(comparison) and output.value <= CLEAR * output.limit


def _lopsided(output: OutputDifference) -> bool:
    """Whether nearly all samples are of one class, so that a model which names it always seems nearly as good."""
    return output.commonest is not None and output.commonest >= LOPSIDED


def beyond_chance(gap: float, differing: float, samples: int) -> float:
    """The gap, or more where so few samples leave it to chance: `ERRORS_ALLOWED` standard errors of a share.

    Between two answers to the same samples only those tell that differ, a share 0 to 1 of them (McNemar's test).
    """
    return max(gap, ERRORS_ALLOWED * math.sqrt(differing / max(samples, 1)))


def _by_accuracy(comparison: Comparison) -> Junk | None:
    train, stored = comparison.accuracy.train, comparison.accuracy.eval
    if train is None or stored is None:
        return None
    limit = beyond_chance(ACCURACY_GAP, _differing(comparison), comparison.data.samples)
    return Junk(
        told=accuracies(comparison),
        name="accuracy lost in eval mode",
        value=train - stored,
        limit=limit,
    )


def _by_agreement(comparison: Comparison, output: OutputDifference) -> Junk | None:
    if output.agreement is None or output.agreement_floor is None:
        return None
    if output.probability_drift is not None and output.probability_drift <= TIED:
        return None
    differing = 1 - output.agreement
    gap = output.agreement_floor - output.agreement
    limit = beyond_chance(AGREEMENT_GAP, differing, comparison.data.samples)
    return Junk(
        told=f"eval mode agrees with train mode on {percent(output.agreement)} of the samples (train mode with itself: "
        f"{percent(output.agreement_floor)})",
        name=f"agreement lost at {output.name}",
        value=gap,
        limit=limit,
    )


def _by_error(output: OutputDifference) -> Junk | None:
    if output.floor is None:
        return None
    limit = min(max(OUTPUT_NMSE, TIMES_FLOOR * output.floor), max(PLAIN_NMSE, PLAIN_TIMES * output.floor))
    return Junk(
        told=f"{output.name} in eval mode is off by {percent(output.nmse)} (batch noise alone: "
        f"{percent(output.floor)}; cosine {output.cosine:.3f})",
        name=f"NMSE of {output.name}",
        value=output.nmse,
        limit=limit,
    )
