"""What is said of a quantized file of other weights: nothing of how it was quantized."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.wording import many
from bncheck.numerics.other_weights import BEYOND, of_other_weights
from bncheck.rules.shared.modes import MEASURED

if TYPE_CHECKING:
    from bncheck.facts.measurements import OperatorLoss, QuantizedComparison


def of_another_model(worst: list[OperatorLoss], measured: QuantizedComparison, severity: Severity | None) -> Evidence:
    """What a file of other weights loses tells nothing of how it was quantized."""
    known = [operator for operator in measured.operators if operator.weights_beyond is not None]
    others = sum(map(of_other_weights, known))
    return Evidence(
        layers=tuple(dict.fromkeys(operator.layer or operator.name for operator in worst)),
        message=f"The kernels of {others} of {many(len(known), 'operator')} are not roundings of the model's: the file "
        "was converted from other weights, or changed since. Its difference from the model says nothing about "
        "quantization.",
        severity=severity,
        location=worst[0].tensor,
        fix="Give the model the file was converted from, or let bncheck convert this one (omit `--quantized`).",
        measurements=tuple(
            Measurement(name=f"weights beyond rounding, {one.name}", value=one.weights_beyond or 0.0, limit=BEYOND)
            for one in worst[:MEASURED]
        ),
    )
