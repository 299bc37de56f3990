"""BN403 per-tensor-range-collapse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Linear
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channel_ranges import BITS, FoldedRanges, alive_spreads, levels, range_spread
from bncheck.numerics.channels import names
from bncheck.numerics.fold_forecast import forecast, forecasts
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.one_scale import assumed, concerned
from bncheck.testing import batch_norm, facts, folded, lite

if TYPE_CHECKING:
    from bncheck.facts.lite import FoldedOperator

TOGETHER = 0.1
"""NMSE (10 dB) that the forecasts of all layers add up to: 0.23 for NSFWJS' MobileNetV2, which per-tensor weights leave
at 1 dB; 0.03 for MobileNetV1 VWW, which they leave at 20 dB; 0.004 for MobileNetV2 on digits, at 25 dB."""
SHARE = 0.01
"""Forecast of one layer (20 dB) from which it has a part in that; a guess."""
LIMIT = 2 ** (BITS - 3)
"""Largest folded range over the median: beyond it the median channel keeps fewer than 4 levels of each sign."""


@rule(
    "BN403",
    "per-tensor-range-collapse",
    severity=Severity.WARNING,
    needs=Needs.NOTHING,
    meaning=Meaning.FOLDED_RANGES,
    sees="G07",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Folded weights differ so much between channels that one scale for the kernel leaves most of them nothing.

    What it detects
    ---------------
    Layers whose folded channel ranges max |w| * |gamma| / sqrt(variance + epsilon) spread over more than a factor of
    32 from the median to the largest; or, where what rounding will cost adds up over all layers to more than a tenth of
    the signal (10 dB), those that lose more than a hundredth (20 dB) each.

    Why it matters
    --------------
    A per-tensor 8-bit kernel shares 128 levels of each sign among all channels by size: beyond a spread of 32 the
    median channel keeps fewer than 4. Per-channel scales are unaffected.

    How it decides
    --------------
    For a checkpoint or model it is a forecast from kernel and batch norm; the spread is that of living channels,
    for what dead ones do to the others is BN404's. Layers whose kernel was not read are left out, and those in
    which every channel is dead (BN107). In a TFLite file it is fact: the integer kernel has one scale, and its
    channels spread that far. Once a model was quantized and measured, only layers whose kernel has one scale count.
    The error of the output that is told with it comes from the largest and typical weight of each channel and of the
    power that batch norm gives it (`bncheck.numerics.fold_forecast.forecast`).

    Published for MobileNetV2 on ImageNet: 0.1 % top-1 with per-tensor int8 after folding, 70 % with one scale per
    channel, 71.9 % in float.

    Not detected
    ------------
    Spread within one channel; activations. `compare float-vs-quantized` measures the whole.

    Fix
    ---
    Quantize with one scale per channel, as the converter does unless `_experimental_disable_per_channel` is set:

        {QUANTIZE}

    Where the hardware wants per-tensor weights: equalise neighbouring layers, or train with quantization in the loop.

    References
    ----------
    arXiv 1806.08342, arXiv 1906.04721, arXiv 2104.11849, tensorflow#43882, brevitas#388. Failure mode G07; P14.
    """
    folded = [ranges for ranges in concerned(model) if ranges.with_kernel]
    known = [ranges for ranges, spread in zip(folded, alive_spreads(folded), strict=True) if spread > 0]
    losses = [0.0 if told is None else told.per_tensor for told in forecasts([ranges.layer for ranges in known])]
    ruin = sum(losses) > TOGETHER
    wide = [
        ranges
        for ranges, loss in zip(known, losses, strict=True)
        if ranges.alive_spread > LIMIT or (ruin and loss > SHARE)
    ]
    if wide:
        yield _forecast(model, wide, sum(losses), len(known))
    stored = [] if model.lite is None or model.layers else [op for op in model.lite.folded if _spread(op) > LIMIT]
    if stored:
        worst = max(stored, key=_spread)
        yield Evidence(
            layers=tuple(op.name for op in stored),
            message=(
                f"{many(len(stored), 'operator')} {'has' if len(stored) == 1 else 'have'} one scale for the whole "
                "integer kernel. "
                f"In {worst.name}, channels differ {_spread(worst):.0f}-fold and the median channel uses "
                f"{levels(_spread(worst)):.1f} of {2 ** (BITS - 1)} levels: {listing([op.name for op in stored])}."
            ),
            location=worst.name,
            measurements=_measured(_spread(worst), len(stored)),
        )


def _forecast(model: Facts, wide: list[FoldedRanges], together: float, judged: int) -> Evidence:
    certain = model.quantized is not None
    worst = max(wide, key=lambda ranges: ranges.alive_spread)
    layers = names(ranges.layer for ranges in wide)
    guessed = assumed(model, layers)
    added = f" All layers together: {percent(together)}." if together > TOGETHER else ""
    return Evidence(
        layers=layers,
        message=(
            f"With one scale per kernel, folding leaves the median channel of {worst.layer.name} "
            f"{levels(worst.alive_spread):.1f} of {2 ** (BITS - 1)} levels: its channels differ "
            f"{worst.alive_spread:.0f}-fold. Affected: {many(len(layers), 'layer')} of {judged}: {listing(layers)}."
            f"{_forecast_told(worst.layer)}{added}"
            f"{'' if certain else ' Only per-tensor quantization of weights is affected.'}"
            f"{guessed}"
        ),
        confidence=Confidence.LOW if guessed else Confidence.HIGH if certain else Confidence.MEDIUM,
        location=worst.layer.linear.kernel if worst.layer.linear else "",
        measurements=_measured(worst.alive_spread, len(wide)),
    )


def _forecast_told(layer: Layer) -> str:
    """What 8-bit weights will do to the layer's output, as a sentence; empty where that is not known."""
    found = forecast(layer)
    if found is None:
        return ""
    return (
        f" Rounding its weights should put its output off by {percent(found.per_tensor)} with one scale, "
        f"{percent(found.per_channel)} with one per channel."
    )


def _measured(spread: float, count: int) -> tuple[Measurement, ...]:
    return (
        Measurement(name="folded range spread", value=spread, limit=LIMIT),
        Measurement(name="levels left for the median channel", value=levels(spread), limit=levels(LIMIT)),
        Measurement(name="layers concerned", value=count, limit=0, unit="layers"),
    )


def _spread(op: FoldedOperator) -> float:
    """Largest over median channel of an integer kernel that has a single scale; 0 for any other kernel."""
    if op.channel_max is None or op.weight_scales is None or op.weight_scales.size != 1 or op.channel_max.size < 2:
        return 0.0
    return range_spread(op.channel_max)


def _kernel(*channel_max: float) -> Linear:
    return Linear(name="conv", op="Conv2D", kernel="conv/weights", channel_max=np.array(channel_max))


def _operator(scales: list[float]) -> Facts:
    largest = np.array([0.01, 0.01, 0.02, 1.2])
    return lite(folded("depthwise", kind="DEPTHWISE_CONV_2D", weight_scales=scales, channel_max=largest))


def clean() -> tuple[Facts, ...]:
    """Even channels; a spread of just 32; kernels not read; a TFLite kernel with a scale for each channel."""
    return (
        facts(batch_norm("bn", linear=_kernel(0.3, 0.2, 0.4, 0.1))),
        facts(batch_norm("bn", linear=_kernel(1.0, 1.0, 1.0, 32.0))),
        facts(batch_norm("bn", gamma=[0.01, 0.01, 0.01, 3.0])),
        _operator([1e-4, 1e-4, 2e-4, 1e-2]),
    )


def broken() -> tuple[Facts, ...]:
    """One channel a hundred times the others; the same by gamma and variance; a TFLite kernel with one scale."""
    return (
        facts(batch_norm("bn", linear=_kernel(0.01, 0.01, 0.01, 1.0))),
        facts(batch_norm("bn", variance=[9.0, 4.0, 9.0, 0.01], gamma=[0.3, 0.3, 0.3, 2.0], linear=_kernel(1, 1, 1, 1))),
        _operator([0.01]),
    )
