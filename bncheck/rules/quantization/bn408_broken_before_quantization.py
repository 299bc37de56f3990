"""BN408 broken-before-quantization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Attribution, CellStatistics, Measure, Precision, QuantizedComparison
from bncheck.facts.wording import percent
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.data_mismatch import if_data_fit, unlike_training
from bncheck.rules.shared.modes import CAUSES, in_doubt, labels_tell
from bncheck.rules.shared.quantized import broken_before
from bncheck.testing import compared, difference, features_compared
from bncheck.testing.quantized import attributed, operator_loss, quantized, quantized_classes, quantized_features


@rule(
    "BN408",
    "broken-before-quantization",
    severity=Severity.ERROR,
    needs=Needs.COMPARISON | Needs.QUANTIZED,
    explained_by=(*CAUSES, "BN305", "BN304", "BN302", "BN301"),
    sees="G11",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The model is broken before quantization: its stored statistics are at fault.

    What it detects
    ---------------
    Models whose float form, with its stored statistics, is junk already, so that what the quantized file does wrong is
    not quantization's doing.

    Why it matters
    --------------
    Tools that compare a quantized model with its own float form cannot see it: both use the same stored statistics.
    Calibration, other schemes and quantization-aware training do not correct these.

    How it decides
    --------------
    By three runs on the same data: batch statistics in float, stored statistics in float, stored statistics quantized.
    It speaks where the first step loses more than BN301 allows, whatever the second does, and tells the share of both.
    With statistics re-estimated from these data, the quantized model is measured once more: that is what `repair` would
    give. A WARNING of low confidence where the data may be at fault (BN304) and there are no labels, nothing
    where their range explains all that eval mode does.

    Measured: a MobileNetV2 whose updates were forgotten agrees with its int8 file for 100.0 % of the samples, at 45 dB,
    better than a healthy one.

    Not detected
    ------------
    Anything on synthetic data, on too little (BN303), or where there is no train mode to start from, as in two TFLite
    files. BN407 tells from the files alone which statistics were folded.

    Fix
    ---
    Repair the statistics, then quantize:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    arXiv 1806.08342, winfredsu/quant_aware_training#1. Failure mode G11, and all of A, C and D.
    """
    before, measured = broken_before(model), model.quantized
    if before is None or measured is None or model.comparison is None:
        return
    unlike = unlike_training(model)
    if unlike is not None and unlike.excuses:
        return
    doubtful = in_doubt(model.comparison, before) or (unlike is not None and unlike.decides)
    certain = labels_tell(model.comparison)
    found = measured.attribution
    told = f"{before.told[0].upper()}{before.told[1:]}, before any quantization" if found is None else _divided(found)
    yield Evidence(
        layers=(),
        message=f"{_OPENING[doubtful]} {told}.{_agrees(measured)}{_repaired(measured)}",
        severity=Severity.WARNING if doubtful else None,
        confidence=Confidence.LOW if doubtful else Confidence.HIGH if certain else Confidence.MEDIUM,
        fix=if_data_fit(
            unlike,
            f"{fixes.training_code_and_repair(model, remedies.CAUSE_TOLD)}\n"
            "Then quantize again: the quantized file cannot be repaired.",
        ),
        measurements=(Measurement(name=before.name, value=before.value, limit=before.limit), *_measured(found)),
    )


_OPENING = {
    False: "The model is broken before quantization.",
    True: "If these data are like the training data, the model is broken before quantization.",
}


def _divided(found: Attribution) -> str:
    """Who loses what, in points where they are points."""
    lost = found.statistics + found.quantization
    if found.measure is Measure.NMSE:
        return (
            f"Stored statistics put the output off by {percent(found.statistics)}, quantization by another "
            f"{percent(max(found.quantization, 0.0))}"
        )
    statistics, rest = 100 * found.statistics, 100 * found.quantization
    gains = "quantization wins back" if rest < 0 else "quantization loses"
    return (
        f"Of {100 * max(lost, found.statistics):.1f} points of {found.measure.value} lost, the stored statistics lose "
        f"{statistics:.1f} (in float); {gains} {abs(rest):.1f}"
    )


_AGREES = 0.9
"""Share of top classes kept from which quantizing hides the fault; a guess."""


def _agrees(measured: QuantizedComparison) -> str:
    output = next((output for output in measured.outputs if output.classes), None)
    if output is None or output.agreement is None or not output.agreement >= _AGREES:
        return ""
    return (
        f" Quantized and float agree on {percent(output.agreement)} of the samples, so comparing only these two "
        "shows nothing."
    )


def _repaired(measured: QuantizedComparison) -> str:
    found = measured.attribution
    if found is None or found.measure is Measure.NMSE:
        return ""
    cells = {cell.place: cell.value(found.measure) for cell in found.cells}
    after = cells.get((CellStatistics.REESTIMATED, Precision.QUANTIZED))
    if after is None:
        return ""
    accurate = f"has {percent(after)} accuracy" if found.measure is Measure.ACCURACY else ""
    agrees = f"agrees with train mode on {percent(after)} of the samples"
    return f" With statistics re-estimated from these data, the quantized model {accurate or agrees}."


def _measured(found: Attribution | None) -> tuple[Measurement, ...]:
    if found is None:
        return ()
    unit = "" if found.measure is Measure.NMSE else "points"
    factor = 1 if found.measure is Measure.NMSE else 100
    lost = (
        Measurement(name=f"{found.measure.value} lost by the statistics", value=factor * found.statistics, unit=unit),
        Measurement(name=f"{found.measure.value} lost by quantization", value=factor * found.quantization, unit=unit),
    )
    if found.statistics_share is None:
        return lost
    return (*lost, Measurement(name="share of the statistics", value=found.statistics_share))


def clean() -> tuple[Facts, ...]:
    """Healthy in both steps; quantization alone at fault; no train mode; noise made up."""
    bad = quantized_classes(0.2)
    return (
        quantized(operator_loss(), accuracy=(0.966, 0.963), train=(0.949, 0.95), attribution=attributed(-0.017)),
        quantized(operator_loss(local=0.4), output=bad, accuracy=(0.95, 0.2), train=(0.949, 0.95)),
        quantized(operator_loss(), accuracy=(0.1, 0.1)),
        quantized(operator_loss(), train=(0.9, 0.1), synthetic=True),
    )


def broken() -> tuple[Facts, ...]:
    """The story: junk that quantizes perfectly; the same without labels; both steps lose; features."""
    same = quantized_classes(1.0, 3e-5)
    return (
        quantized(
            operator_loss(),
            output=same,
            accuracy=(0.103, 0.103),
            train=(0.909, 0.1),
            attribution=attributed(0.806, 0.0, start=0.909, repaired=(0.904, 0.901)),
        ),
        quantized(
            operator_loss(),
            output=same,
            train=(0.909, 0.2),
            attribution=attributed(0.8, 0.01, start=1.0, measure=Measure.AGREEMENT),
        ),
        quantized(operator_loss(), output=quantized_classes(0.4), accuracy=(0.5, 0.2), train=(0.909, 0.5)),
        _features(),
    )


def _features() -> Facts:
    found = attributed(0.8, 0.01, measure=Measure.NMSE)
    model = quantized(operator_loss(), output=quantized_features(), attribution=found)
    return replace(model, comparison=compared(difference("bn"), output=features_compared(0.8)).comparison)
