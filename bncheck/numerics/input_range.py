"""By how much data are larger than those the stored statistics are of, as the first layer of a model tells."""

from __future__ import annotations

import math

import numpy as np

from bncheck.facts.layers import Layer
from bncheck.numerics.channels import median
from bncheck.numerics.moments import Moments

FEWEST_CHANNELS = 4
"""Living channels below which their agreement on a factor means nothing: a guess."""
ALIKE = 0.25
"""|ln| within which a channel's factor counts as the median's: it is that of healthy channels on other data of the kind
(METRICS: predicted and stored statistics differ by 0.04 to 0.06 deviations)."""
MOST = 0.6
"""Share of channels that must agree: a guess, between chance and all."""


def range_factor(first: Layer, measured: Moments, share: float) -> float | None:
    """Factor between the data's deviation and that of the data behind `first`'s moving variance; None: nothing tells.

    `first` reads the data through a linear operator, so that input k times as large has variances k**2 times as large
    in every channel. `share` of the stored variance is its initial value (METRICS, "init share"), and is taken out
    first; of a variance that never moved nothing is left that could tell.
    """
    stored = first.variance.values
    if stored is None or first.variance.moved is False or not 0 <= share < 1 or stored.shape != measured.variance.shape:
        return None
    own = (stored - share * first.variance.starts_at) / (1 - share)
    least = 1e-3 * max(float(np.max(own, initial=0.0)), float(np.finfo(np.float32).eps) * share / (1 - share))
    alive = (own > least) & (measured.variance > 0) & np.isfinite(own)
    if np.count_nonzero(alive) < FEWEST_CHANNELS:
        return None
    logs = np.log(measured.variance[alive] / own[alive])
    middle = median(logs)
    if float(np.mean(np.abs(logs - middle) <= max(ALIKE, ALIKE * abs(middle)))) < MOST:
        return None
    return math.exp(middle / 2)
