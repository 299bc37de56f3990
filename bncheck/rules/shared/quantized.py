"""What the rules on float against quantized share: is the output junk, which operators lose precision, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Facts
from bncheck.facts.measurements import (
    Attribution,
    Cell,
    CellStatistics,
    Measure,
    OperatorLoss,
    OutputDifference,
    Precision,
    QuantizedComparison,
)
from bncheck.facts.ratios import informed_accuracy, scores_of
from bncheck.facts.wording import percent
from bncheck.numerics.channels import median
from bncheck.rules.shared.modes import ACCURACY_GAP, Junk, beyond_chance, judged_output

DISAGREES = 0.15
"""Share of other top classes: 1 % on digits, 3 % on visual wake words, about 10 % published for ImageNet's 1000."""
NOISY = 0.05
"""NMSE (13 dB) that goes with it: below, the classes that changed were a toss-up before; a guess."""
OUTPUT_NMSE, OUTPUT_JUNK = 0.1, 0.3
"""Of an output that is no classes: 10 dB are a warning, 5 dB an error. A healthy int8 backbone has 15 to 30;
below that a guess."""
ALARM = 0.7
"""Rmse of a local error in units of the output's scale; rounding alone makes 0.289 (METRICS)."""
PRECISE = 0.01
"""Local NMSE (20 dB) below which an operator is good whatever its scale, for int16 steps are finer than 8-bit weights;
a guess."""
IMPRECISE = 0.1
"""Local NMSE (10 dB) above which it is not, also where the output is float or its own range is all rounding; a
guess."""
RULED = 10.0
"""Times that the median channel loses what all of them together do, from which a few channels rule the range; a
guess."""
MOSTLY = 0.5
"""Share of the local loss from which a part is called its cause: at half there can be no larger one."""


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """How much quantization costs at the output, by the best measure available."""

    lost: Junk
    certain: bool
    """Whether labels say so."""
    ruin: bool
    """Whether it is an error; else a warning."""


def broken_before(model: Facts) -> Junk | None:
    """The loss from batch to stored statistics, in float; None where there is none, or it cannot be judged."""
    if model.comparison is None:
        return None
    found = judged_output(model.comparison)
    return found if found is not None and found.junk else None


def judged_quantized(model: Facts) -> Quantized | None:
    """What quantization itself costs; None where that cannot be judged.

    Of a model that was broken before, as far as its re-estimated statistics were quantized too.
    """
    measured = model.quantized
    if measured is None or measured.data.synthetic or not measured.outputs:
        return None
    if broken_before(model) is not None:
        return _repaired(measured)
    if _labels_tell(measured):
        return _by_accuracy(measured)
    found = [_by_agreement(measured, o) if o.classes else _by_error(o) for o in measured.outputs]
    known = [one for one in found if one is not None]
    return next((one for one in known if one.lost.junk), known[0] if known else None)


def _labels_tell(measured: QuantizedComparison) -> bool:
    output = scores_of(measured.outputs)
    stored, classes = measured.accuracy.eval, None if output is None else output.classes
    if stored is None or measured.accuracy.quantized is None:
        return False
    return classes is None or stored >= informed_accuracy(classes)


def _by_accuracy(measured: QuantizedComparison) -> Quantized:
    stored, low = measured.accuracy.eval or 0.0, measured.accuracy.quantized or 0.0
    output = scores_of(measured.outputs)
    differing = 1 - ((None if output is None else output.agreement) or 0.0)
    limit = beyond_chance(ACCURACY_GAP, differing, measured.data.samples)
    lost = Junk(
        told=f"accuracy is {percent(low)} ({percent(stored)} in float, with the same statistics)",
        name="accuracy lost by quantization",
        value=stored - low,
        limit=limit,
    )
    return Quantized(lost=lost, certain=True, ruin=True)


def _by_agreement(measured: QuantizedComparison, output: OutputDifference) -> Quantized | None:
    if output.agreement is None:
        return None
    differing = 1 - output.agreement
    limit = beyond_chance(DISAGREES, differing, measured.data.samples)
    lost = Junk(
        told=f"it agrees with the float model on {percent(output.agreement)} of the samples "
        f"({output.name} is off by {percent(output.nmse)})",
        name=f"disagreement at {output.name}",
        value=differing,
        limit=limit,
        borne=output.nmse <= NOISY,
    )
    return Quantized(lost=lost, certain=False, ruin=True)


def _by_error(output: OutputDifference) -> Quantized:
    lost = Junk(
        told=f"{output.name} is off by {percent(output.nmse)} (cosine {output.cosine:.3f})",
        name=f"NMSE of {output.name}",
        value=output.nmse,
        limit=OUTPUT_NMSE,
    )
    return Quantized(lost=lost, certain=False, ruin=not output.nmse <= OUTPUT_JUNK)


def _repaired(measured: QuantizedComparison) -> Quantized | None:
    """With re-estimated statistics, float against quantized, each held against batch statistics in float."""
    found = measured.attribution
    start, low = (None, None) if found is None else (_cell(found, Precision.FLOAT), _cell(found, Precision.QUANTIZED))
    if found is None or start is None or low is None:
        return None
    before, after = _level(found, start), _level(found, low)
    if before is None or after is None:
        return None
    limit = {Measure.ACCURACY: ACCURACY_GAP, Measure.AGREEMENT: DISAGREES}.get(found.measure, OUTPUT_JUNK)
    if found.measure is not Measure.NMSE:
        limit = beyond_chance(limit, max(1 - after, 0.0), measured.data.samples)
    alike = " and converted the same way" if measured.was_given else ""
    lost = Junk(
        told=f"with statistics re-estimated{alike}, "
        + (
            f"it has {percent(after)} {found.measure.value} where float has {percent(before)}"
            if found.measure is not Measure.NMSE
            else f"its error is {-after:.2g} of the signal where float has {-before:.2g}"
        ),
        name=f"{found.measure.value} lost by quantization, statistics re-estimated",
        value=before - after,
        limit=limit,
    )
    return Quantized(lost=lost, certain=found.measure is Measure.ACCURACY, ruin=True)


def _cell(attribution: Attribution, arithmetic: Precision) -> Cell | None:
    wanted = (CellStatistics.REESTIMATED, arithmetic)
    return next((c for c in attribution.cells if c.place == wanted and c.nmse is not None), None)


def _level(attribution: Attribution, cell: Cell) -> float | None:
    """Higher is better."""
    value = cell.value(attribution.measure)
    return -value if value is not None and attribution.measure is Measure.NMSE else value


def losing(measured: QuantizedComparison) -> list[OperatorLoss]:
    """Operators that lose precision by themselves, in execution order: far from rounding, and for a tenth of signal.

    A local error above ALARM of the scale, of more than PRECISE of the signal; or of more than IMPRECISE, whatever
    the scale, also of the median channel alone; or one that is no number.
    """
    return [operator for operator in measured.operators if _loses(operator)]


def _loses(operator: OperatorLoss) -> bool:
    if not operator.local_nmse <= IMPRECISE:
        return True
    coarse = operator.rmse_over_scale is not None and not operator.rmse_over_scale <= ALARM
    return (coarse and not operator.local_nmse <= PRECISE) or ruled(operator)


def ruled(operator: OperatorLoss) -> bool:
    """Whether few channels rule the range of a layer's integers, so that most of the others fall below its steps.

    All channels together show little of it, for the few have the energy; the layer behind has to bear it. Outputs of
    other operators may be made so: of a thousand probabilities all but a few are below any step.
    """
    if operator.scale is None or (operator.layer is None and operator.weight_nmse is None):
        return False
    typical = median_channel(operator)
    return typical > IMPRECISE and typical > RULED * operator.local_nmse


def median_channel(operator: OperatorLoss) -> float:
    """Local NMSE of the median channel, of those that lose something of a signal; 0 where there are none."""
    known = operator.channel_nmse[_alive(operator)]
    return median(known) if known.size else 0.0


def ruling_channel(operator: OperatorLoss) -> int:
    """The channel that has most of the signal: every channel is rounded alike, so the one that loses the least."""
    return int(np.argmin(np.where(_alive(operator), operator.channel_nmse, np.inf)))


def _alive(operator: OperatorLoss) -> NDArray[np.bool_]:
    """Channels that have a signal and an error; a dead one has neither."""
    return np.isfinite(operator.channel_nmse) & (operator.channel_nmse > 0)


def cause(operator: OperatorLoss) -> str:
    """What makes up most of the local loss: "clipping", "bias" or "rounding"; empty where it is no number."""
    whole = operator.local_nmse
    if not math.isfinite(whole) or whole <= 0:
        return ""
    if operator.clipping_nmse >= MOSTLY * whole:
        return "clipping"
    return "bias" if operator.bias_nmse >= MOSTLY * whole else "rounding"


def per_tensor(operator: OperatorLoss) -> bool:
    """Whether its kernel shares one scale, and the kernel's own error is part of what it loses."""
    return operator.weight_per_channel is False and operator.weight_nmse is not None
