"""Many values in few numbers, and what the initial value and the fold do to a layer's channels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bncheck.facts.layers import Layer, PerChannel, Presence, Role
from bncheck.numerics.init_share import init_share


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quantiles of the finite values of a vector, and how many are not finite."""

    smallest: float
    low: float
    """5 % lie below."""
    median: float
    high: float
    """5 % lie above."""
    largest: float
    non_finite: int

    @property
    def farthest(self) -> float:
        """Of the smallest and the largest the one with the larger size."""
        return self.largest if abs(self.largest) >= abs(self.smallest) else self.smallest


def spread(values: PerChannel | None) -> Spread | None:
    """Of a vector with at least one finite value, else None."""
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    smallest, low, median, high, largest = (float(v) for v in np.quantile(finite, (0, 0.05, 0.5, 0.95, 1)))
    return Spread(
        smallest=smallest,
        low=low,
        median=median,
        high=high,
        largest=largest,
        non_finite=int(values.size - finite.size),
    )


def counted_share(layer: Layer, updates: int | None) -> float | None:
    """The weight that the initial variance still has (METRICS, init share); None where it is unknown.

    1 where the variance never moved, 0 where it is zero-debiased; unknown where the decay rises over the run, and where
    the values are too small for the share, so that more updates went in than were counted.
    """
    if layer.variance.moved is False:
        return 1.0
    if layer.debias is not None and layer.debias.variance:
        return 0.0
    own = [update for update in layer.updates if update.role is Role.VARIANCE]
    if layer.decay_from != "--decay" and any(update.decay_rises for update in own):
        return None
    by_train_op = Counter(op for update in own for op in update.train_ops)
    share = init_share(layer, None if updates is None else updates * max(by_train_op.values(), default=1))
    values = layer.variance.values
    if share is None or values is None or not values.size or layer.variance.starts_at <= 0:
        return share
    smallest = float(np.min(values[np.isfinite(values)], initial=np.inf))
    return None if smallest < _LAG * share * layer.variance.starts_at else share


_LAG = 0.9
"""Counters may lag a few updates behind the statistics."""


def init_contribution(layer: Layer, updates: int | None) -> PerChannel | None:
    """Per channel the part of the stored variance that is its initial value, 0 to 1; None where it is unknown."""
    share, values = counted_share(layer, updates), layer.variance.values
    if share is None or values is None or not values.size:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        parts = share * max(layer.variance.starts_at, 0.0) / values
    found: PerChannel = np.where(values == 0, 1.0 if share else 0.0, np.clip(parts, 0.0, 1.0))
    return found


def folded_range(layer: Layer) -> PerChannel | None:
    """Per output channel max |w| |gamma| / sqrt(variance + epsilon); None where one of them was not read."""
    kernel = None if layer.linear is None else layer.linear.channel_max
    variance = layer.variance.values
    if kernel is None or variance is None or layer.epsilon is None:
        return None
    if layer.gamma.presence in (Presence.UNREAD, Presence.MISSING):
        return None
    gamma = np.ones_like(variance) if layer.gamma.values is None else layer.gamma.values
    if not kernel.shape == variance.shape == gamma.shape:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ranges: PerChannel = kernel * np.abs(gamma) / np.sqrt(variance + layer.epsilon)
    return ranges
