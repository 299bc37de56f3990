"""What a batch norm's output is distributed as, whatever statistics it stores."""

from __future__ import annotations

from typing import Any

import numpy as np

from bncheck.facts.layers import Layer, Presence
from bncheck.facts.predicted import Predicted
from bncheck.numerics.propagation import Signal, normal


def after_batch_norm(layer: Layer) -> Signal | None:
    """Normal channels of mean beta and deviation gamma; None where these were not read.

    Where most variances lie below epsilon, which then is what the layer divides by, how far channels spread is a guess.
    """
    vectors = (layer.gamma, layer.beta)
    if layer.channels is None or any(v.presence in (Presence.MISSING, Presence.UNREAD) for v in vectors):
        return None
    gamma, beta = (
        np.full(layer.channels, v.starts_at) if v.values is None else v.values.astype(np.float64).reshape(-1)
        for v in vectors
    )
    if gamma.shape != beta.shape or not (np.isfinite(gamma).all() and np.isfinite(beta).all()):
        return None
    return normal(beta, gamma, of=layer.name, spread_known=not _ruled_by_epsilon(layer))


def _ruled_by_epsilon(layer: Layer) -> bool:
    variance = layer.variance.values
    if variance is None or layer.epsilon is None:
        return False
    return int(np.count_nonzero((variance >= 0) & (variance < layer.epsilon))) * 2 > variance.size


def guessed(found: Predicted, *, of: Any) -> Signal:
    """Behind a kernel without a batch norm: normal channels, of a spread that is a guess."""
    return normal(found.mean, np.sqrt(found.variance), of=of, spread_known=False, mean_known=not found.rough)


def worth_predicting(layers: tuple[Layer, ...]) -> bool:
    """Whether statistics were read that are not all still initial: of those nothing more can be told."""
    return any(layer.mean.values is not None and layer.mean.moved is not False for layer in layers)
