"""How far a layer's stored moving means are those that the weights before it predict."""

from __future__ import annotations

import math

import numpy as np

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import Record
from bncheck.numerics.channels import dead

FEWEST = 4
"""Living channels below which nothing is said."""
HEALTHY = 0.7
"""Correlation that healthy layers reach. Of 152 layers of seven models (MobileNetV2 twice, MobileNetV1, DS-CNN,
mini-XCEPTION, Chiron, EEGNet) the median is 0.99; all are above 0.85 but one, a depthwise layer over 3x3 places in
which 179 of 256 channels are dead: 0.64."""
ROUGH = 0.4
"""The same where the prediction is rough: healthy layers reach 0.63, of six models trained for the bench; a guess."""
SIGMAS = 3.3
"""Standard errors below the correlation of healthy layers from which a layer is named, and above it from which its
weights account for it: one in 2,000 by chance where that is the true one."""
HARM = 0.25
"""Error of the means, in deviations, below which nothing is said: healthy layers reach 0.5, with a correlation that
leaves no doubt; a guess."""
_UNRELATED = 1e-8
"""Predicted variance against the layer's largest below which a channel's input is dead."""


class Agreement(Record):
    """Stored against predicted means of one layer, over its living channels."""

    channels: int
    correlation: float
    error: float
    """Root mean square of the difference, in deviations (the larger of stored and predicted)."""
    free: int
    """Channels less the numbers that were fitted to them."""
    rough: bool
    """Whether the prediction is."""

    @property
    def sigmas(self) -> float:
        """By how many standard errors the correlation lies below that of healthy layers."""
        return self.below(ROUGH if self.rough else HEALTHY)

    def below(self, healthy: float) -> float:
        """By how many standard errors it lies below `healthy`: Fisher's z, whose standard error is 1 / sqrt(n - 3)."""
        z, limit = (math.atanh(max(min(each, 1 - 1e-9), -1 + 1e-9)) for each in (self.correlation, healthy))
        return (limit - z) * math.sqrt(self.free - 3)


def agreement(layer: Layer, mean: PerChannel | None = None) -> Agreement | None:
    """Of a layer's stored means, or of `mean` (channels,) in their place; None where too little is known."""
    predicted, variance = layer.predicted, layer.variance.values
    stored = layer.mean.values if mean is None else mean
    alive = living(layer, mean)
    if predicted is None or stored is None or variance is None or alive is None:
        return None
    stored, variance = (vector.reshape(-1).astype(np.float64) for vector in (stored, variance))
    count = int(alive.sum())
    free = count - predicted.fitted
    if free < FEWEST:
        return None
    # what was fitted is in units of its own
    largest = variance if predicted.fitted else np.maximum(predicted.variance, variance)
    deviation = np.sqrt(largest[alive])
    here, there = stored[alive] / deviation, predicted.mean[alive] / deviation
    found = _correlation(here, there)
    if found is None:
        return None
    return Agreement(
        channels=count,
        correlation=found,
        error=float(np.sqrt(np.sum((here - there) ** 2) / free)),
        free=free,
        rough=predicted.rough,
    )


def living(layer: Layer, mean: PerChannel | None = None) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
    """(channels,): channels of which something can be told, with `mean` in place of the stored one; None: none."""
    predicted, variance = layer.predicted, layer.variance.values
    stored = layer.mean.values if mean is None else mean
    if predicted is None or stored is None or variance is None:
        return None
    if not stored.size == variance.size == predicted.mean.size:
        return None
    stored, variance = (vector.reshape(-1).astype(np.float64) for vector in (stored, variance))
    return _alive(predicted, stored, variance, layer.epsilon)


def _alive(
    predicted: Predicted, mean: PerChannel, variance: PerChannel, epsilon: float | None
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    finite = np.isfinite(mean) & np.isfinite(variance) & np.isfinite(predicted.mean) & np.isfinite(predicted.variance)
    largest = float(predicted.variance.max(initial=0, where=finite))
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = (
        finite & ~dead(variance, epsilon) & (variance > 0) & (predicted.variance > _UNRELATED * largest)
    )
    return found


def _correlation(one: PerChannel, other: PerChannel) -> float | None:
    """Pearson's; 0 where `one` is the same in all channels, None where `other` is."""
    a, b = one - one.mean(), other - other.mean()
    spread = float(b @ b)
    if spread == 0:
        return None
    return float(a @ b) / math.sqrt(float(a @ a) * spread) if float(a @ a) > 0 else 0.0
