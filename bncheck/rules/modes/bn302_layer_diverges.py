"""BN302 layer-diverges."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Comparison, LayerDifference
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import finite, median
from bncheck.numerics.divergence import diverging, each_layer, inheriting, layer_limit
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.data_mismatch import unlike_training
from bncheck.rules.shared.modes import CAUSES, MEASURED, in_doubt, judged_output, labels_tell, too_few, torn
from bncheck.testing import classes_compared, compared, difference

SHIFT_TOLD, RATIO_TOLD = 0.1, 0.1
"""Deviations, and logarithms, from which a mean or a variance is told to be off; guesses."""
TEN, MILLION = 10, 1_000_000
"""Factors from which they are told without decimals, and without digits."""


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
    """A layer's stored statistics are not those of the data that reaches it.

    What it detects
    ---------------
    Layers that by themselves change their output when they switch from batch to stored statistics, in forward order:
    the first is where it goes wrong. Layers behind it that are off only because their input is are counted apart.

    Why it matters
    --------------
    The layer normalises by numbers that do not describe its input; errors of several layers multiply.

    How it decides
    --------------
    By the local error: the part of the layer's output energy that it loses on its own, its input being that of train
    mode, in closed form from the moments over all samples. The limit is 0.01 (20 dB), 3 over the number of images, or 3
    times what the batches differ by among themselves over their number, whichever is most. A healthy MobileNetV2 stays
    below 0.0035; scaling one variance by 1.5 gives 0.03. ERROR where the output is junk for it (BN301), else WARNING.
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
    unclear = output is not None and junk and in_doubt(comparison, output)
    doubtful = unclear or (unlike is not None and unlike.decides)
    certain = junk and labels_tell(comparison)
    told = wrong or sorted(each_layer(comparison), key=lambda layer: -layer.local_nmse)
    yield Evidence(
        layers=tuple(layer.layer for layer in wrong),
        message=_message(comparison, wrong) if wrong else _sum_of_small(told),
        severity=Severity.ERROR if junk and not doubtful else Severity.WARNING,
        confidence=Confidence.LOW if doubtful else Confidence.HIGH if certain else Confidence.MEDIUM,
        fix=fixes.this_checkpoint(model),
        measurements=tuple(
            Measurement(name=f"local NMSE, {layer.layer}", value=layer.local_nmse, limit=layer_limit(comparison, layer))
            for layer in told[:MEASURED]
        ),
    )


def _message(comparison: Comparison, wrong: list[LayerDifference]) -> str:
    first = wrong[0]
    times = first.local_nmse / first.local_floor if first.local_floor else math.inf
    floor = f", {_times(times)} what a batch does by chance" if math.isfinite(times) and times >= 2 else ""
    count, among = len(wrong), len(each_layer(comparison))
    others = f" the first of {many(count, 'layer')} that go wrong" if count > 1 else " where it goes wrong"
    if count == 1 and among > 1:
        others = " the only layer that goes wrong by itself"
    inherit = len(inheriting(comparison, {layer.layer for layer in wrong}))
    behind = f" {many(inherit, 'layer')} behind only inherit{'s' if inherit == 1 else ''} it." if inherit else ""
    return f"{first.layer} is{others}: it {_loses(first.local_nmse)}{floor}.{_how(first)}{behind}"


def _shared(comparison: Comparison, apart: Mapping[str, list[LayerDifference]], *, junk: bool) -> Evidence:
    """Layers whose places get different data, which no one set of statistics fits; a note where the output bears it."""
    name, places = next(iter(apart.items()))
    used = sum(place.layer == name for place in comparison.layers)
    others = f", like {many(len(apart) - 1, 'more layer')}" if len(apart) > 1 else ""
    worst = max(places, key=lambda place: place.local_nmse)
    return Evidence(
        layers=tuple(apart),
        message=f"{name} stands in {used} places whose data differ{others}: its statistics are right for all of them "
        f"together, while by itself the worst place {_loses(worst.local_nmse)}."
        + (" One set of statistics cannot fit them all." if junk else " The output bears it."),
        severity=Severity.ERROR if junk else Severity.INFO,
        confidence=Confidence.MEDIUM,
        fix="Give each place a batch norm of its own (the convolutions may stay shared), or bring the data of all "
        "places to one range."
        if junk
        else "Nothing.",
        measurements=tuple(
            Measurement(name=f"local NMSE, {place.layer}", value=place.local_nmse, limit=layer_limit(comparison, place))
            for place in [place for each in apart.values() for place in each][:MEASURED]
        ),
    )


def _loses(nmse: float) -> str:
    if not math.isfinite(nmse):
        return "loses all of its output to NaN"
    if nmse > 1:
        return f"errs by {_times(nmse)} its output's energy"
    return f"loses {percent(nmse)} of its output's energy"


def _times(factor: float) -> str:
    if factor >= MILLION:
        return "more than a million times"
    return f"{factor:.1f} times" if factor < TEN else f"{factor:,.0f} times"


def _how(layer: LayerDifference) -> str:
    """In which way the stored statistics are off."""
    parts = []
    ratios = finite(layer.log_variance_ratio)
    if ratios.size and abs(median(ratios)) >= RATIO_TOLD:
        parts.append(f"its variances are {math.exp(-median(ratios)):.3g} times those of the data (median)")
    shifts = finite(layer.mean_shift)
    shift = float(np.sqrt(np.mean(np.square(shifts)))) if shifts.size else 0.0
    if shift >= SHIFT_TOLD:
        parts.append(f"its means are off by {shift:.2g} of its deviations")
    if ratios.size < layer.log_variance_ratio.size:
        parts.append(f"in {many(layer.log_variance_ratio.size - ratios.size, 'channel')} a variance is no number")
    if not parts and layer.worst_channels:
        parts.append(f"most of it in channels {listing([str(channel) for channel in layer.worst_channels])}")
    text = " and ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""


def _sum_of_small(layers: list[LayerDifference]) -> str:
    if len(layers) == 1:
        return (
            f"{layers[0].layer}, the only layer, {_loses(layers[0].local_nmse)}: little, and yet the output is "
            f"junk for it alone.{_how(layers[0])}"
        )
    names = listing([f"{layer.layer} ({percent(layer.local_nmse)})" for layer in layers])
    return f"No layer goes wrong by itself: small losses of {many(len(layers), 'layer')} add up, most in {names}."


def clean() -> tuple[Facts, ...]:
    """Healthy layers; more noise where images are few; synthetic data."""
    return (
        compared(difference("a"), difference("b", local=0.0035)),
        compared(difference("a", local=0.04), samples=64),
        compared(difference("a", local=0.5), synthetic=True),
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
