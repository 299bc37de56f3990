"""Folded channel ranges: what batch norm does to the weights of the layer before it, once folded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Facts, Layer, PerChannel
from bncheck.numerics.channels import dead_channels, median
from bncheck.numerics.fold_forecast import fold_scale, forecast

ASSUMED_EPSILON = 1e-3
"""Of TF-slim, tf.layers and Keras alike."""
ASSUMED = f" No file tells epsilon: {ASSUMED_EPSILON:g}, TensorFlow's default, is assumed."
BITS = 8
"""Width of the weights that TFLite's integer schemes use."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoldedRanges:
    """Per output channel of one layer, the largest folded weight."""

    layer: Layer
    ranges: PerChannel
    """max |w| * |gamma| / sqrt(variance + epsilon), or without the kernel the fold scale alone."""
    dead: NDArray[np.bool_]
    with_kernel: bool

    @property
    def alive(self) -> PerChannel:
        """Ranges of living channels that are not zero."""
        return self.ranges[~self.dead & (self.ranges > 0)]

    @property
    def alive_spread(self) -> float:
        """Largest over median of the living channels; 0 where there is none."""
        return spread(self.alive)

    @property
    def dead_ratio(self) -> float:
        """Largest range of a dead channel over the median of the living; 0 where there is none of either."""
        largest = np.max(self.ranges[self.dead], initial=0.0)
        with np.errstate(over="ignore"):
            return float(largest / median(self.alive)) if self.alive.size else 0.0


def folded_ranges(layer: Layer) -> FoldedRanges | None:
    """None where gamma, variance or epsilon are unread, or the variance is not a number above -epsilon."""
    scale = fold_scale(layer)
    if scale is None:
        return None
    kernel = None if layer.linear is None else layer.linear.channel_max
    fits = kernel is not None and kernel.shape == scale.shape and bool(np.all(np.isfinite(kernel)))
    with np.errstate(over="ignore"):
        ranges = scale * kernel if kernel is not None and fits else scale
    if not np.all(np.isfinite(ranges)):
        return None
    return FoldedRanges(layer=layer, ranges=ranges, dead=dead_channels(layer), with_kernel=fits)


def concerned(model: Facts) -> list[FoldedRanges]:
    """Folded ranges of the layers that one scale a kernel would hurt.

    All layers, as long as nothing was quantized; then those whose kernel really has one scale. Where no file tells
    epsilon, as in a bare checkpoint, it is assumed to be TensorFlow's default.
    """
    known = [ranges for layer in model.layers if (ranges := folded_ranges(with_epsilon(layer))) is not None]
    if model.quantized is None:
        return known
    shared = {operator.layer for operator in model.quantized.operators if operator.weight_per_channel is False}
    return [ranges for ranges in known if ranges.layer.name in shared]


def with_epsilon(layer: Layer) -> Layer:
    """The layer with an epsilon in any case."""
    return layer if layer.epsilon is not None else replace(layer, epsilon=ASSUMED_EPSILON)


def assumed(model: Facts, names: Iterable[str]) -> bool:
    """Whether epsilon of one of these layers is not in the files."""
    wanted = set(names)
    return any(layer.epsilon is None for layer in model.layers if layer.name in wanted)


def forecast_told(layer: Layer) -> str:
    """What 8-bit weights will do to the layer's output, as a sentence; empty where that is not known."""
    found = forecast(layer)
    if found is None:
        return ""
    shared, own = (-10 * math.log10(nmse) if nmse > 0 else math.inf for nmse in (found.per_tensor, found.per_channel))
    return (
        f" Rounding its weights alone is forecast to leave its output {shared:.0f} dB with one scale, {own:.0f} dB "
        "with a scale a channel."
    )


def levels(spread: float, bits: int = BITS) -> float:
    """Levels of one sign that a channel keeps whose range is 1 / spread of the largest: 2**(bits - 1) / spread."""
    return float(2 ** (bits - 1) / spread)


def spread(ranges: PerChannel) -> float:
    """Largest over median of the finite ranges above zero (METRICS, "folded range spread"); 0 where there is none."""
    used = ranges[np.isfinite(ranges) & (ranges > 0)]
    with np.errstate(over="ignore"):
        return float(used.max() / median(used)) if used.size else 0.0
