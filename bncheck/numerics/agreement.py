"""How far a layer's stored moving means are those that the weights before it predict."""

from __future__ import annotations

import math

import numpy as np

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import Record
from bncheck.numerics.channels import dead

FEWEST = 8
"""Living channels below which nothing is said."""
HEALTHY = 0.7
"""Correlation that healthy layers reach. Of 152 layers of seven models (MobileNetV2 twice, MobileNetV1, DS-CNN,
mini-XCEPTION, Chiron, EEGNet) the median is 0.99; all are above 0.85 but one, a depthwise layer over 3x3 places in
which 179 of 256 channels are dead: 0.64."""
SIGMAS = 3.3
"""Standard errors below the correlation of healthy layers from which a layer is named, and above it from which its
weights account for it: one in 2,000 by chance where that is the true one."""
HARM = 0.25
"""Error of the means, in deviations, below which nothing is said: healthy layers reach 0.35, with a correlation that
leaves no doubt; a guess."""
_UNRELATED = 1e-8
"""Predicted variance against the layer's largest below which a channel's input is dead."""


class Agreement(Record):
    """Stored against predicted means of one layer, over its living channels."""

    channels: int
    correlation: float
    error: float
    """Root mean square of the difference, in deviations (the larger of stored and predicted)."""
    sigmas: float
    """By how many standard errors the correlation lies below `HEALTHY` (Fisher's z, standard error 1 / sqrt(n - 3))."""


def agreement(layer: Layer, mean: PerChannel | None = None) -> Agreement | None:
    """Of a layer's stored means, or of `mean` (channels,) in their place; None where too little is known."""
    predicted, variance = layer.predicted, layer.variance.values
    stored = layer.mean.values if mean is None else mean
    if predicted is None or stored is None or variance is None or stored.size != predicted.mean.size:
        return None
    stored, variance = (vector.reshape(-1).astype(np.float64) for vector in (stored, variance))
    if variance.size != stored.size:
        return None
    alive = _alive(predicted, stored, variance, layer.epsilon)
    count = int(alive.sum())
    if count < FEWEST:
        return None
    deviation = np.sqrt(np.maximum(predicted.variance, variance)[alive])
    here, there = stored[alive] / deviation, predicted.mean[alive] / deviation
    found = _correlation(here, there)
    if found is None:
        return None
    return Agreement(
        channels=count,
        correlation=found,
        error=float(np.sqrt(np.mean((here - there) ** 2))),
        sigmas=(math.atanh(HEALTHY) - math.atanh(max(min(found, 1 - 1e-9), -1 + 1e-9))) * math.sqrt(count - 3),
    )


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
