"""BN405 bias-saturated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.lite import FoldedOperator
from bncheck.facts.wording import many
from bncheck.rules.rule import Needs, rule
from bncheck.testing import folded, lite

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)
"""Smallest normal float32, 1.2e-38: scales below it are zero to the kernels."""


@dataclass(frozen=True)
class Saturated:
    """Channels of one operator whose bias stands at a limit of its type."""

    operator: FoldedOperator
    channels: int
    limit: int
    reach: float | None
    """Largest real value among them, as stored; the true one is larger. None where the bias has no scale."""


@rule("BN405", "bias-saturated", severity=Severity.ERROR, needs=Needs.LITE, sees="G08")
def check(model: Facts) -> Iterator[Evidence]:
    """An integer bias is at the limit of its type, so part of what batch norm folds into it was clipped.

    What it detects
    ---------------
    Channels of a quantized convolution or dense operator in a TFLite file whose bias is the largest or smallest
    number its integer type holds; and, as a warning, channels with a weight scale of zero, whose bias is then lost.

    Why it matters
    --------------
    Folding puts `beta - mean * gamma / sqrt(variance + epsilon)` into the bias. Its scale is the input's scale times
    the channel's weight scale, so a channel with a tiny folded kernel (gamma or variance collapsed) has tiny steps,
    2**31 of them do not reach the bias, and the converter silently clips it.

    How it decides
    --------------
    A stored bias within 1 of -2**(bits-1) or 2**(bits-1) - 1 (converters clamp to +-(2**(bits-1) - 1)). What it stands
    for, stored * scale, is the least that the true bias was. A weight or bias scale below 1.2e-38, the smallest normal
    float32, counts as zero; one that is negative or not finite is an error. Losses that people report of it exceed half
    of the accuracy.

    Not detected
    ------------
    How much was lost: the true bias is not in the file. Biases at +-2**30 are no fault: current converters widen the
    scale of such a channel until its bias takes half of the range. That leaves few levels to its weights (see BN404),
    which is harmless where they are next to nothing. Float biases are not looked at.

    Fix
    ---
    Look at the named channels before folding (`bncheck inspect` on the checkpoint or Keras file: BN107, BN112, BN404):
    channels that died are best removed, or their gamma and beta set to 0. Convert again with a current TensorFlow, with
    some hundred calibration inputs instead of a few, with per-channel weights (the default of the converter), or with
    16x8 quantization, whose bias has 64 bits:

        {QUANTIZE_16X8}

    References
    ----------
    tensorflow#33735, microsoft/onnxruntime#25278, microsoft/onnxruntime#21000, intel/neural-compressor#825 (biases);
    microsoft/onnxruntime#11415 (zero scales). TensorFlow, `quantization_utils.cc` (SymmetricBiasQuantize) and
    `quantization_driver.cc` (SetBiasParamsWithAdjustments). Failure modes G08, G09.
    """
    operators = () if model.lite is None else model.lite.folded
    saturated = [found for operator in operators if (found := _saturated(operator)) is not None]
    if saturated:
        yield _cut_off(saturated)
    broken = [(operator, count) for operator in operators if (count := _improper(operator))]
    if broken:
        yield Evidence(
            layers=tuple(operator.name for operator, _ in broken),
            message=f"{many(sum(count for _, count in broken), 'channel')} with a negative or NaN scale of "
            "weights or bias: their output is nonsense.",
            location=broken[0][0].name,
            measurements=tuple(
                Measurement(name=f"improper scales of {operator.name}", value=count, limit=0, unit="channels")
                for operator, count in broken
            ),
        )
    zero = [(operator, count) for operator in operators if (count := _zero(operator))]
    if zero:
        yield Evidence(
            layers=tuple(operator.name for operator, _ in zero),
            message=f"{many(sum(count for _, count in zero), 'channel')} with a weight scale of zero: "
            "kernel and bias are zero there, whatever they should be.",
            severity=Severity.WARNING,
            confidence=Confidence.MEDIUM,
            location=zero[0][0].name,
            measurements=tuple(
                Measurement(name=f"zero scales of {operator.name}", value=count, limit=0, unit="channels")
                for operator, count in zero
            ),
        )


def _saturated(operator: FoldedOperator) -> Saturated | None:
    if operator.bias is None or operator.bias_bits is None:
        return None
    limit = 2 ** (operator.bias_bits - 1) - 1
    at_limit = (operator.bias >= limit - 1) | (operator.bias <= -limit)
    if not at_limit.any():
        return None
    reach = None
    if operator.bias_scales is not None and operator.bias_scales.size in (1, operator.bias.size):
        with np.errstate(over="ignore", invalid="ignore"):
            reach = float(np.max(np.abs(operator.bias.astype(np.float64) * operator.bias_scales)[at_limit]))
    return Saturated(operator, int(at_limit.sum()), limit, reach)


def _cut_off(saturated: list[Saturated]) -> Evidence:
    """One finding for all operators, the numbers of each as measurements."""
    first, channels = saturated[0], sum(found.channels for found in saturated)
    stands_for = "" if first.reach is None else f", which means {first.reach:.3g}"
    measurements: list[Measurement] = []
    for found in saturated:
        name = found.operator.name
        measurements.append(
            Measurement(name=f"saturated biases of {name}", value=found.channels, limit=0, unit="channels")
        )
        if found.reach is not None:
            measurements.append(Measurement(name=f"largest bias of {name} as stored", value=found.reach))
    return Evidence(
        layers=tuple(found.operator.name for found in saturated),
        message=f"{many(channels, 'channel')} of {many(len(saturated), 'operator')} with a bias at the limit "
        f"of its type: in {first.operator.name}, {first.channels} of {first.operator.channels} at +-{first.limit}"
        f"{stands_for}. The true bias is larger and was clipped.",
        location=first.operator.name,
        measurements=tuple(measurements),
    )


def _scales(operator: FoldedOperator) -> list[NDArray[np.float64]]:
    """Weight and bias scales, each one entry or one a channel."""
    return [scales for scales in (operator.weight_scales, operator.bias_scales) if scales is not None]


def _improper(operator: FoldedOperator) -> int:
    return max((int((~np.isfinite(scales) | (scales < 0)).sum()) for scales in _scales(operator)), default=0)


def _zero(operator: FoldedOperator) -> int:
    return max((int(((scales >= 0) & (scales < SMALLEST_SCALE)).sum()) for scales in _scales(operator)), default=0)


def clean() -> tuple[Facts, ...]:
    """Models on which the rule must stay silent."""
    return (
        lite(folded(), folded("dense", kind="FULLY_CONNECTED")),
        lite(folded(weight_scales=[0.02, 0.01, 0.03, 0.02], bias=[12, -7, 5000, 0], bias_scales=[1e-4])),
        # A current converter gives a dead channel's bias half of the range: measured on mlperf_tiny_vww.
        lite(folded(weight_scales=[4e-9, 0.01, 0.03, 0.02], bias=[2**30, -(2**30) - 128, 5, 0], bias_scales=[3e-13])),
        lite(folded(weight_scales=0.01, bias=[2**31, -(2**33), 5, 0], bias_scales=[1e-7], bias_bits=64)),
    )


def broken() -> tuple[Facts, ...]:
    """Models on which the rule must speak."""
    return (
        lite(folded(weight_scales=0.01, bias=[-(2**31) + 1, 17, 3, 4], bias_scales=[1e-11])),
        lite(folded(weight_scales=0.01, bias=[1, 2**31 - 1, 2**31 - 2, -(2**31)], bias_scales=[1e-11])),
        lite(folded(weight_scales=0.01, bias=[1, 2**63 - 1, -(2**63), 0], bias_scales=[1e-25], bias_bits=64)),
        lite(folded(weight_scales=[0.1, 0.0, 1e-40, 0.1], bias=[1, 0, 0, 2], bias_scales=[0.1, 0.0, 0.0, 0.1])),
        lite(folded(weight_scales=[0.1, float("nan"), 0.1, 0.1], bias=[1, 0, 0, 2])),
    )
