"""BN402 layer-loses-precision."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import OperatorLoss, QuantizedComparison
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.other_weights import file_of_other_weights, of_other_weights
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.modes import MEASURED
from bncheck.rules.shared.other_file import of_another_model
from bncheck.rules.shared.precision_fix import mend_or_keep_in_float
from bncheck.rules.shared.quantized import (
    ALARM,
    IMPRECISE,
    PRECISE,
    Quantized,
    cause,
    judged_quantized,
    losing,
    median_channel,
    ruled,
    ruling_channel,
)
from bncheck.testing.quantized import operator_loss, quantized, quantized_classes

_CONCENTRATED = 10.0
"""Times the median channel's loss from which channels are named; a guess."""


@rule(
    "BN402",
    "layer-loses-precision",
    severity=Severity.ERROR,
    needs=Needs.QUANTIZED,
    explained_by=("BN407", "BN405", "BN403", "BN404", "BN406"),
    meaning=Meaning.OPERATOR_LOSES,
    sees="G12",
    sees_too="G09 G10",
)
def check(model: Facts) -> Iterator[Evidence]:
    """An operator loses more precision in quantization than rounding explains.

    What it detects
    ---------------
    Operators of the quantized file whose own error, their input being that of the float file, is far above rounding;
    which ones, in which channels, and whether values are cut off, shifted as a whole, or rounded too coarsely.

    Why it matters
    --------------
    Usually two or three layers cause the whole loss; kept in float, or given one scale per channel, they cost little.
    The total error at a layer does not show which.

    How it decides
    --------------
    By the local error of each operator, over all samples: its root mean square above 0.7 steps of the output's scale
    (rounding alone makes 0.289) and above 0.01 of the signal's energy (20 dB), or above 0.1 of it (10 dB), whatever the
    scale. It is clipping where most of it lies outside the output's range, bias where most of it is the mean of a
    channel, else rounding: of the output, or of the kernel if that has one scale for all channels. A layer is also
    named where its median channel loses above 0.1 of its signal, ten times what all channels together do: a few
    channels rule the range of its output then, and the layer behind it bears the loss. ERROR where the output is junk
    for it, as BN401 has it. Where the output is good all the same, WARNING for a loss above 0.1, else INFO: data of
    another kind than a file was calibrated on clip here and there.

    Not detected
    ------------
    Many small losses in one direction; operators that were not matched (BN409); anything on synthetic data.

    Fix
    ---
    Clipping: calibrate on more data of the kind that is served. One scale for the whole kernel: quantize per channel,
    the converter's default. Dead channels (BN404): switch them off before folding. Whatever it is, these few layers can
    stay in float, which costs a QUANTIZE and a DEQUANTIZE each. The converter takes the names that the output tensors
    have in the file as it quantized it before:

        parts = ("block_3/depthwise",)
        {KEEP_IN_FLOAT}

    References
    ----------
    arXiv 1806.08342, arXiv 1906.04721, tensorflow#43882, onnxruntime#11415, model-optimization#552.
    Failure modes G09, G10, G12.
    """
    measured = model.quantized
    if measured is None or measured.data.synthetic:
        return
    wrong = losing(measured)
    if not wrong:
        return
    output = judged_quantized(model)
    junk = output is not None and output.lost.junk
    worst = sorted(wrong, key=_worst)
    if file_of_other_weights(measured):
        yield of_another_model(worst, measured, _severity(output, wrong))
        return
    yield Evidence(
        layers=tuple(dict.fromkeys(operator.layer or operator.name for operator in wrong)),
        message=_message(worst, measured),
        severity=_severity(output, wrong),
        confidence=Confidence.HIGH if junk and output is not None and output.certain else Confidence.MEDIUM,
        location=worst[0].tensor,
        fix=mend_or_keep_in_float(worst, measured),
        measurements=tuple(item for operator in worst[:MEASURED] for item in _measurements(operator)),
    )


def _severity(output: Quantized | None, wrong: list[OperatorLoss]) -> Severity | None:
    """As bad as what comes of it; None: an error."""
    if output is not None and output.lost.junk:
        return None if output.ruin else Severity.WARNING
    return Severity.INFO if all(operator.local_nmse <= IMPRECISE for operator in wrong) else Severity.WARNING


def _worst(operator: OperatorLoss) -> float:
    return -_loss(operator) if math.isfinite(operator.local_nmse) else -math.inf


def _loss(operator: OperatorLoss) -> float:
    """That of all channels, or of the median one where a few rule the range."""
    return median_channel(operator) if ruled(operator) else operator.local_nmse


def _message(worst: list[OperatorLoss], measured: QuantizedComparison) -> str:
    first = worst[0]
    most = f" loses the most precision of {many(len(worst), 'operator')}" if len(worst) > 1 else " loses precision"
    told = f"{first.name} ({first.kind}){most}: {_size(first)}.{_how(first)}"
    kinds = Counter(cause(operator) for operator in worst if cause(operator))
    if len(worst) > 1:
        told += f" Then: {listing([f'{o.name} ({_part(_loss(o))})' for o in worst[1:]])}."
    if len(kinds) > 1:
        told += f" By cause: {', '.join(f'{kind} {count}' for kind, count in kinds.most_common())}."
    tensors = sum(operator.weight_per_channel is False for operator in worst)
    if tensors and not measured.was_given:
        told += f" {'All' if tensors == len(worst) else tensors} of these kernels share one scale."
    return told


def _size(operator: OperatorLoss) -> str:
    if not math.isfinite(operator.local_nmse):
        return "its output is NaN or infinite" if operator.non_finite else "its output has no signal"
    if ruled(operator):
        return (
            f"channel {ruling_channel(operator)} dominates the range of its output, so the median channel is off by "
            f"{_part(median_channel(operator))}"
        )
    parts = [f"its output is off by {_part(operator.local_nmse)}"]
    if operator.rmse_over_scale is not None:
        parts.append(f"or {operator.rmse_over_scale:.2g} steps of its scale (rounding alone: 0.29)")
    return ", ".join(parts)


def _part(nmse: float) -> str:
    return percent(nmse) if math.isfinite(nmse) else "?"


def _how(operator: OperatorLoss) -> str:
    """What makes it up, and where."""
    whole, kind = operator.local_nmse, cause(operator)
    if ruled(operator):
        return " Later layers cannot recover it."
    if not kind:
        return ""
    if operator.weights_beyond is not None and of_other_weights(operator):
        return (
            f" Its kernel is not the model's, rounded: {percent(operator.weights_beyond)} of the weights are off by "
            "more than half a step. It was converted from other weights, or changed since."
        )
    share = {"clipping": operator.clipping_nmse, "bias": operator.bias_nmse, "rounding": operator.rounding_nmse}[kind]
    named = {"clipping": "clipping", "bias": "a shift of whole channels", "rounding": "rounding"}[kind]
    kernel = ""
    if kind == "rounding" and operator.weight_nmse is not None and operator.weight_nmse > PRECISE:
        scales = "one scale" if operator.weight_per_channel is False else "one scale per channel"
        kernel = f": its kernel alone, with {scales}, is off by {percent(operator.weight_nmse)}"
    channels = _concentrated(operator)
    return f" {percent(share / whole)} of the error is {named}{kernel}.{channels}"


def _concentrated(operator: OperatorLoss) -> str:
    """The worst channels, where they are far worse than the rest."""
    known = operator.channel_nmse[np.isfinite(operator.channel_nmse)]
    if known.size < 2 or not operator.worst_channels:
        return ""
    typical = float(np.sort(known)[known.size // 2])
    listed = [c for c in operator.worst_channels if c < operator.channel_nmse.size]
    if not listed or not operator.channel_nmse[listed[0]] > _CONCENTRATED * typical:
        return ""
    return f" Most in channel{'s' if len(listed) > 1 else ''} {listing([str(c) for c in listed], 5)}."


def _measurements(operator: OperatorLoss) -> Iterator[Measurement]:
    if ruled(operator):
        value = median_channel(operator)
        yield Measurement(name=f"NMSE of the median channel, {operator.name}", value=value, limit=IMPRECISE)
        return
    if operator.rmse_over_scale is not None:
        yield Measurement(name=f"rmse over scale, {operator.name}", value=operator.rmse_over_scale, limit=ALARM)
    limit = PRECISE if operator.rmse_over_scale is not None else IMPRECISE
    yield Measurement(name=f"local NMSE, {operator.name}", value=operator.local_nmse, limit=limit)


def clean() -> tuple[Facts, ...]:
    """Rounding; int16 steps below 8-bit weights; no signal to lose; noise made up; probabilities; dead channels."""
    return (
        quantized(operator_loss(), operator_loss("b", local=4e-3, rmse=0.45)),
        quantized(operator_loss(local=1e-4, rmse=60.0)),
        quantized(operator_loss(local=0.05, rmse=0.4)),
        quantized(operator_loss(local=0.02, rmse=None)),
        quantized(operator_loss(local=0.4, rmse=3.0), synthetic=True),
        quantized(operator_loss(layer=None, weight_nmse=None, channel_nmse=np.array([1e-3, 1.0, 1.0]))),
        quantized(operator_loss(channel_nmse=np.array([0.0, 0.0, 1e-3, 2e-3]))),
    )


def broken() -> tuple[Facts, ...]:
    """One scale for a kernel; clipping, the output good all the same; a shift; NaN; one channel rules."""
    junk = quantized_classes(0.2)
    channels = np.array([0.9, 0.01, 0.01, 0.9])
    collapsed = operator_loss(
        "b", local=0.6, rmse=4.0, weight_per_channel=False, weight_nmse=0.3, channel_nmse=channels
    )
    return (
        quantized(operator_loss("a"), collapsed, output=junk, accuracy=(0.966, 0.1), train=(0.949, 0.95)),
        quantized(operator_loss("a", local=0.05, rmse=2.0, clipping=0.9, bias=0.05), operator_loss("b")),
        quantized(operator_loss("a", local=0.05, rmse=2.0, bias=0.8), output=junk),
        quantized(operator_loss("a", local=0.3, rmse=None)),
        quantized(operator_loss("a", local=math.nan, non_finite=7)),
        quantized(
            operator_loss("a", channel_nmse=np.array([1e-4, 0.8, 0.9])), operator_loss("b", local=0.03, rmse=9.0)
        ),
    )
