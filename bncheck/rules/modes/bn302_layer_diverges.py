"""BN302 layer-diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Comparison, LayerDifference
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.divergence import diverging, each_layer, inheriting, layer_limit
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.data_mismatch import if_data_fit, unlike_training
from bncheck.rules.shared.lag import SETTLE, lag
from bncheck.rules.shared.layer_told import how_off, off
from bncheck.rules.shared.modes import (
    CAUSES,
    MEASURED,
    accuracies,
    borne_by_labels,
    eval_is_better,
    in_doubt,
    judged_output,
    labels_tell,
    too_few,
    torn,
)
from bncheck.testing import classes_compared, compared, difference


@rule(
    "BN302",
    "layer-diverges",
    severity=Severity.ERROR,
    needs=Needs.COMPARISON,
    explained_by=(*CAUSES, "BN305", "BN304"),
    meaning=Meaning.LAYER_DIFFERS,
    sees="B06 B13 C06 C09 C20 E04 E05",
    sees_too="C13 C21 E09 G06",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A layer's stored statistics are not those of the data it gets.

    What it detects
    ---------------
    Layers that by themselves change their output when they switch from batch to stored statistics, in forward order:
    the first is where the modes diverge. Later layers that are off only because their input is are counted apart.

    Why it matters
    --------------
    The layer normalises with numbers that do not describe its input, and the errors of several layers multiply.

    How it decides
    --------------
    By the local error: the part of the layer's output energy that it loses on its own, its input being that of train
    mode, in closed form from the moments over all samples. The limit is 0.01 (20 dB), 3 over the number of images, or 3
    times what the batches differ by among themselves over their number, whichever is most. A healthy MobileNetV2 stays
    below 0.0035; scaling one variance by 1.5 gives 0.03. ERROR where the output is junk for it (BN301), else WARNING;
    a note where labels tell that eval mode is as good or better. Where most layers drift though decay, length and
    wiring are in order, the averages trail weights that still moved fast.
    A layer that stands in several places is judged by what reaches all of them together; that they differ among
    themselves is a note, and an ERROR where the output is junk and nothing else explains it.
    Where no layer passes the limit and the output is junk all the same, many small errors in one direction add up (5 %
    more variance in all of 52 layers cost 4.5 points).

    Not detected
    ------------
    A mean that is off by less than a tenth of a deviation. Anything on synthetic data.

    Fix
    ---
    Re-estimate the statistics:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    arXiv 1905.09746, keras#6977, tensorflow#24660. Failure modes B06, B13, C06, C09, C13, C20, C21, E04, E05, E09.
    """
    comparison = model.comparison
    if comparison is None or comparison.data.synthetic or too_few(comparison):
        return
    output = judged_output(comparison)
    junk = output is not None and output.junk
    wrong = diverging(comparison)
    apart = torn(comparison)
    if apart and not wrong:
        yield _shared(comparison, apart, junk=junk)
        return
    if not wrong and not junk:
        return
    unlike = unlike_training(model)
    if unlike is not None and unlike.excuses:
        return
    if eval_is_better(comparison) or borne_by_labels(comparison):
        yield _note(comparison, wrong)
        return
    trailing = lag(model)
    unclear = output is not None and junk and in_doubt(comparison, output)
    doubtful = unclear or (unlike is not None and unlike.decides)
    certain = junk and labels_tell(comparison)
    told = wrong or sorted(each_layer(comparison), key=lambda layer: -layer.local_nmse)
    yield Evidence(
        layers=tuple(layer.layer for layer in wrong),
        message=f"{_message(comparison, wrong, drift=bool(trailing)) if wrong else _sum_of_small(told)}{trailing}",
        severity=Severity.ERROR if junk and not doubtful else Severity.WARNING,
        confidence=Confidence.LOW if doubtful else Confidence.HIGH if certain else Confidence.MEDIUM,
        fix=if_data_fit(
            unlike, fixes.training_code_and_repair(model, SETTLE) if trailing else fixes.this_checkpoint(model)
        ),
        measurements=_measured(comparison, told),
    )


def _measured(comparison: Comparison, layers: list[LayerDifference]) -> tuple[Measurement, ...]:
    return tuple(
        Measurement(name=f"local NMSE, {layer.layer}", value=layer.local_nmse, limit=layer_limit(comparison, layer))
        for layer in layers[:MEASURED]
    )


def _note(comparison: Comparison, apart: list[LayerDifference]) -> Evidence:
    """Statistics that are not those of these data, and serve the model as well as these would or better."""
    most = max(apart, key=lambda layer: layer.local_nmse)
    better = eval_is_better(comparison)
    reading = "better" if better else "as good"
    return Evidence(
        layers=tuple(layer.layer for layer in apart),
        message=f"The data's statistics differ from the stored ones in {len(apart)} of "
        f"{many(len(each_layer(comparison)), 'layer')}, most in {most.layer}, yet eval mode is {reading}: "
        f"{accuracies(comparison)}.",
        severity=Severity.INFO,
        confidence=Confidence.HIGH,
        fix="None needed: the weights were trained with the stored statistics."
        if better
        else "None needed: accuracy does not suffer.",
        why="Data of another kind, or batches mixed differently, have other statistics; accuracy shows whether "
        "that matters.",
        measurements=_measured(comparison, apart),
    )


def _message(comparison: Comparison, wrong: list[LayerDifference], *, drift: bool) -> str:
    first = wrong[0]
    floor = f" (batch noise alone: {percent(first.local_floor)})" if math.isfinite(first.local_floor) else ""
    count, among = len(wrong), len(each_layer(comparison))
    go = "drift" if drift else "diverge"
    others = f" the first of {many(count, 'layer')} that {go}" if count > 1 else " where the modes diverge"
    if count == 1 and among > 1:
        others = " the only layer that diverges by itself"
    inherit = len(inheriting(comparison, {layer.layer for layer in wrong}))
    behind = f" {many(inherit, 'later layer')} only inherit{'s' if inherit == 1 else ''} the error." if inherit else ""
    return f"{first.layer} is{others}: its output {off(first.local_nmse)}{floor}.{how_off(first)}{behind}"


def _shared(comparison: Comparison, apart: Mapping[str, list[LayerDifference]], *, junk: bool) -> Evidence:
    """Layers whose places get different data, which no one set of statistics fits; a note where the output bears it."""
    name, places = next(iter(apart.items()))
    used = sum(place.layer == name for place in comparison.layers)
    others = f", like {many(len(apart) - 1, 'more layer')}" if len(apart) > 1 else ""
    worst = max(places, key=lambda place: place.local_nmse)
    return Evidence(
        layers=tuple(apart),
        message=f"{name} serves {used} places whose data differ{others}: its statistics fit them all together, but the "
        f"output of the worst place {off(worst.local_nmse)}."
        + (" One set of statistics cannot fit them all." if junk else " The model's output is unaffected."),
        severity=Severity.ERROR if junk else Severity.INFO,
        confidence=Confidence.MEDIUM,
        fix="Give each place its own batch norm (convolutions can stay shared), or bring the data of all places into "
        "one range."
        if junk
        else "None needed.",
        measurements=tuple(
            Measurement(name=f"local NMSE, {place.layer}", value=place.local_nmse, limit=layer_limit(comparison, place))
            for place in [place for each in apart.values() for place in each][:MEASURED]
        ),
    )


def _sum_of_small(layers: list[LayerDifference]) -> str:
    if len(layers) == 1:
        return (
            f"In {layers[0].layer}, the only layer, the output {off(layers[0].local_nmse)}: little, yet enough to "
            f"make the model's output junk.{how_off(layers[0])}"
        )
    names = listing([f"{layer.layer} ({percent(layer.local_nmse)})" for layer in layers])
    return f"No layer diverges by itself: small errors of {many(len(layers), 'layer')} add up, most in {names}."


def clean() -> tuple[Facts, ...]:
    """Healthy layers; more noise where images are few; synthetic data; input in another range, which BN304 tells."""
    return (
        compared(difference("a"), difference("b", local=0.0035)),
        compared(difference("a", local=0.04), samples=64),
        compared(difference("a", local=0.5), synthetic=True),
        compared(
            difference("a", local=0.6, log_variance_ratio=np.full(4, np.log(48.5)), mean_shift=np.full(4, 2.0)),
            output=classes_compared(0.2),
            accuracy=(0.95, 0.1),
        ),
    )


def broken() -> tuple[Facts, ...]:
    """One layer whose output the rest makes good; the first of two, junk behind; only small errors, or one; NaN."""
    inherits = difference("c", cumulative_nmse=0.8)
    return (
        compared(difference("a"), difference("b", local=0.25), difference("c")),
        compared(
            difference("a"),
            difference("b", local=0.25, log_variance_ratio=np.full(4, -1.39), mean_shift=np.full(4, 1.0)),
            inherits,
            output=classes_compared(0.5),
            accuracy=(0.95, 0.5),
        ),
        compared(difference("a", local=0.007), difference("b", local=0.006), accuracy=(0.95, 0.8)),
        compared(difference("a", local=0.009), accuracy=(0.85, 0.55)),
        compared(difference("a"), difference("b", local=float("nan"), log_variance_ratio=np.full(4, np.nan))),
    )
