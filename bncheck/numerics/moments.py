"""Mean and variance over any number of batches, merged by Chan's rule in float64: any split gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer, PerChannel

if TYPE_CHECKING:
    from bncheck.facts.measurements import LayerDifference


@dataclass(frozen=True, kw_only=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of each channel.

    Never `E[x^2] - E[x]^2`, which loses a deviation of 1 at a mean of 1e4 already in float32.
    """

    count: int | NDArray[np.int64]
    """Elements of each channel: of all of them, or (channels,) where channels of several layers stand in one vector."""
    mean: PerChannel
    m2: PerChannel
    """Sum of squared deviations from the mean."""

    @property
    def variance(self) -> PerChannel:
        """Biased, `m2 / count`, by which batch norm normalises; NaN of nothing."""
        return self._over(self.count)

    @property
    def bessel(self) -> PerChannel:
        """Unbiased, `m2 / (count - 1)`, which TensorFlow's fused kernel stores; NaN of fewer than two."""
        return self._over(self.count - 1)

    def _over(self, divisor: int | NDArray[np.int64]) -> PerChannel:
        known = np.asarray(divisor, np.float64)
        with np.errstate(invalid="ignore"):
            return np.asarray(self.m2 / np.where(known > 0, known, np.nan))


def of(values: NDArray[Any], axis: int = -1) -> Moments:
    """Moments of each channel of an array of any shape; `axis` is that of the channels."""
    rows = np.moveaxis(np.asarray(values, np.float64), axis, -1)
    rows = rows.reshape(-1, rows.shape[-1])
    if not len(rows):
        return nothing(rows.shape[-1])
    with np.errstate(invalid="ignore"):
        mean = rows.mean(axis=0)
        deviation = rows - mean
        # the mean is rounded: what the deviations still sum to corrects both (two-pass with compensation)
        left = deviation.mean(axis=0)
        m2 = np.square(deviation).sum(axis=0) - len(rows) * left**2
        return Moments(count=len(rows), mean=mean + left, m2=m2)


def nothing(channels: int) -> Moments:
    """Moments of no element: what merging begins with."""
    return Moments(count=0, mean=np.zeros(channels), m2=np.zeros(channels))


def from_batch(count: int | NDArray[np.int64], mean: NDArray[Any], biased_variance: NDArray[Any]) -> Moments:
    """Moments of a batch whose mean and biased variance somebody else has computed."""
    return Moments(
        count=count,
        mean=np.asarray(mean, np.float64),
        m2=np.asarray(biased_variance, np.float64) * count,
    )


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both together: `m2 = m2_a + m2_b + d^2 n_a n_b / n`, `d = mean_b - mean_a` (Chan, Golub, LeVeque)."""
    if not np.any(a.count) or not np.any(b.count):
        return a if np.any(a.count) else b
    count = a.count + b.count
    with np.errstate(invalid="ignore"):
        distance = b.mean - a.mean
        mean = a.mean + distance * (b.count / count)
        m2 = a.m2 + b.m2 + distance**2 * (a.count * (b.count / count))
    return Moments(count=count, mean=mean, m2=m2)


def merge_known(a: Moments | None, b: Moments | None) -> Moments | None:
    """As `merge`, of what there is."""
    return (a or b) if a is None or b is None else merge(a, b)


def split(together: Moments, channels: Sequence[int]) -> list[Moments]:
    """The layers that stand in one vector, each by itself."""
    ends = np.cumsum(channels)
    count = np.broadcast_to(together.count, together.mean.shape)
    return [
        Moments(count=int(count[start]) if size else 0, mean=together.mean[start:end], m2=together.m2[start:end])
        for size, start, end in zip(channels, ends - channels, ends, strict=True)
    ]


def merge_all(parts: Sequence[Moments]) -> Moments:
    """Moments of all parts together, at least one."""
    return reduce(merge, parts)


def batch_moments(place: LayerDifference, layer: Layer) -> Moments | None:
    """Moments of train mode over all batches, from what they differ by; None where one is no number.

    `mean = stored + shift * s`, `variance = exp(ratio) * s^2 - eps`, with `s^2 = variance_stored + eps`.
    """
    mean, variance = layer.mean.values, layer.variance.values
    if mean is None or variance is None:
        return None
    epsilon = layer.epsilon or 0.0
    with np.errstate(all="ignore"):
        spread = variance + epsilon
        batch_mean = mean + place.mean_shift * np.sqrt(spread)
        batch_variance = np.maximum(np.exp(place.log_variance_ratio) * spread - epsilon, 0.0)
    if not (np.all(np.isfinite(batch_mean)) and np.all(np.isfinite(batch_variance))):
        return None
    return from_batch(place.samples, batch_mean, batch_variance)
