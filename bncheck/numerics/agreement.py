"""How far a layer's stored moving means are those that the weights before it predict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import Record
from bncheck.numerics.channels import dead_in
from bncheck.numerics.side_by_side import Flags, SideBySide

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


_T = TypeVar("_T")


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
    return agreements([layer], mean)[0]


def agreements(layers: Sequence[Layer], mean: PerChannel | None = None) -> list[Agreement | None]:
    """`agreement` of each layer, all of them at once."""
    known = Living.of(layers, mean)
    if known is None:
        return [None] * len(layers)
    side, alive = known.side, known.alive
    fitted = np.array([one.fitted for one in known.predictions])
    with np.errstate(all="ignore"):
        counts = side.totals(alive)
        free = counts - fitted
        # what was fitted is in units of its own
        largest = np.where(side.spread(fitted) > 0, known.variance, np.maximum(known.predicted, known.variance))
        here, there = (np.where(alive, of / np.sqrt(largest), 0.0) for of in (known.mean, known.predicted_mean))
        errors = np.sqrt(side.totals((here - there) ** 2) / free)
        same = side.largest(np.where(alive, there, -np.inf)) == side.smallest(np.where(alive, there, np.inf))
        a, b = (np.where(alive, of - side.spread(side.totals(of) / counts), 0.0) for of in (here, there))
        own, others = side.totals(a * a), side.totals(b * b)
        correlations = np.where(own > 0, side.totals(a * b) / np.sqrt(own * others), 0.0)
    told = [
        Agreement(
            channels=int(counts[n]),
            correlation=float(correlations[n]),
            error=float(errors[n]),
            free=int(free[n]),
            rough=predicted.rough,
        )
        if free[n] >= FEWEST and not same[n] and others[n] > 0
        else None
        for n, predicted in enumerate(known.predictions)
    ]
    return known.each_of(told)


class Living(Record, eq=False):
    """Layers whose weights predict something, side by side: what is stored and predicted of them, (channels,)."""

    places: tuple[int | None, ...]
    """Of each layer that was asked for, where it stands here; None where too little is known of it."""
    side: SideBySide
    predictions: tuple[Predicted, ...]
    mean: PerChannel
    variance: PerChannel
    predicted_mean: PerChannel
    predicted: PerChannel
    """Its variances."""
    alive: Flags
    """Channels that carry a signal, and of which something can be told."""
    above_epsilon: Flags
    """Channels that are divided by more than epsilon: how the variances of others differ does nothing."""

    @classmethod
    def of(cls, layers: Sequence[Layer], mean: PerChannel | None = None) -> Living | None:
        """With `mean` in place of the stored ones; None where something is known of no layer."""
        places: list[int | None] = []
        vectors: list[tuple[PerChannel, PerChannel]] = []
        predictions: list[Predicted] = []
        for layer in layers:
            predicted, variance = layer.predicted, layer.variance.values
            stored = layer.mean.values if mean is None else mean
            known = predicted is not None and variance is not None and stored is not None and stored.size > 0
            if (
                predicted is None
                or variance is None
                or stored is None
                or not known
                or not stored.size == variance.size == predicted.mean.size
            ):
                places.append(None)
            else:
                places.append(len(vectors))
                vectors.append((stored, variance))
                predictions.append(predicted)
        if not vectors:
            return None
        side = SideBySide([stored.size for stored, _ in vectors])
        means, variances = (
            np.concatenate([one.reshape(-1) for one in of]).astype(np.float64, copy=False)
            for of in zip(*vectors, strict=True)
        )
        predicted_means = np.concatenate([one.mean.reshape(-1) for one in predictions])
        predicted_variances = np.concatenate([one.variance.reshape(-1) for one in predictions])
        epsilons = [layer.epsilon for layer, place in zip(layers, places, strict=True) if place is not None]
        finite = np.isfinite(means) & np.isfinite(variances) & np.isfinite(predicted_means)
        finite &= np.isfinite(predicted_variances)
        largest = side.spread(side.largest(np.where(finite, np.maximum(predicted_variances, 0.0), 0.0)))
        with np.errstate(invalid="ignore"):
            related = (variances > 0) & (predicted_variances > _UNRELATED * largest)
        return cls(
            places=tuple(places),
            side=side,
            predictions=tuple(predictions),
            mean=means,
            variance=variances,
            predicted_mean=predicted_means,
            predicted=predicted_variances,
            alive=finite & ~dead_in(variances, epsilons, side) & related,
            above_epsilon=variances > side.spread(one or 0.0 for one in epsilons),
        )

    def each_of(self, told: Sequence[_T | None]) -> list[_T | None]:
        """What was found of the layers here, for each layer that was asked for."""
        return [None if place is None else told[place] for place in self.places]
