"""Layers that stand in several places share their statistics: all that reaches them, together, against the stored.

Train mode normalises each place by itself, so that a healthy shared layer looks wrong in every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from bncheck.facts.layers import Layer
from bncheck.facts.measurements import LayerDifference
from bncheck.numerics import metrics, moments
from bncheck.numerics.moments import Moments, batch_moments

_WORST = 5


def shared(places: Sequence[LayerDifference], layers: Iterable[Layer]) -> tuple[LayerDifference, ...]:
    """One difference for each layer that has several places, in the order of their first ones.

    Training moves the statistics towards the mean of the places' means and the mean of their variances; a population
    over all elements has the variance between the places besides. Both are right: the nearer one counts. Of noise and
    cumulative loss the largest counts, of cosines the smallest.
    """
    by_name = {layer.name: layer for layer in layers}
    grouped: dict[str, list[LayerDifference]] = {}
    for place in places:
        grouped.setdefault(place.layer, []).append(place)
    found = []
    for name, own in grouped.items():
        if len(own) > 1:
            parts = [batch_moments(place, by_name[name]) for place in own]
            known = [part for part in parts if part is not None]
            found.append(_together(own, known, by_name[name]) if len(known) == len(own) else _worst(own))
    return tuple(found)


def _together(places: list[LayerDifference], parts: list[Moments], layer: Layer) -> LayerDifference:
    everything = moments.merge_all(parts)
    average = moments.from_batch(
        1, np.mean([part.mean for part in parts], axis=0), np.mean([part.variance for part in parts], axis=0)
    )
    both = [_against_stored(places, one, layer) for one in (everything, average)]
    return min(both, key=lambda one: one.local_nmse)


def _against_stored(places: list[LayerDifference], batch: Moments, layer: Layer) -> LayerDifference:
    mean, variance, epsilon = layer.mean.values, layer.variance.values, layer.epsilon or 0.0
    assert mean is not None
    assert variance is not None
    r2, e2 = metrics.local_sums(
        batch.mean, batch.variance, mean, variance, layer.gamma.values, layer.beta.values, epsilon
    )
    return replace(
        _worst(places),
        mean_shift=metrics.mean_shift(batch.mean, mean, variance, epsilon),
        log_variance_ratio=metrics.log_variance_ratio(batch.variance, variance, epsilon),
        local_nmse=metrics.nmse(float(np.sum(r2)), float(np.sum(e2))),
        worst_channels=tuple(int(c) for c in np.argsort(-e2, kind="stable")[:_WORST]),
    )


def _worst(places: list[LayerDifference]) -> LayerDifference:
    worst = max(places, key=lambda place: (not np.isfinite(place.local_nmse), place.local_nmse))
    return replace(
        worst,
        samples=min(place.samples for place in places),
        local_floor=max(place.local_floor for place in places),
        cumulative_nmse=max(place.cumulative_nmse for place in places),
        cumulative_cosine=min(place.cumulative_cosine for place in places),
        non_finite=sum(place.non_finite for place in places),
    )
