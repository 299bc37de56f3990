"""Where the smallest variances of some layers lie: what the values alone tell of the init share."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.record import Record
from bncheck.numerics.channels import finite, median, quantile, values_of

MANY_CHANNELS = 64
"""Channels below which the smallest variance says nothing; a guess."""
CROWDED = 1.5
"""Factor within which a tenth of the variances crowd above the smallest; a guess."""
FLOOR_LAYERS, FLOOR_SPREAD = 3, 1.05
"""Layers that share a floor have their smallest variances, and a tenth of all, within this factor of it. MobileNetV2
with 91 % of initial value: 1.01 and 1.00; with 5 %: 2.7 and 1.15; trained well: 30 to 1e9. Healthy nets of few
channels come as near as 1.02 and 1.07."""
MANY_LAYERS, SPREAD_OF_MANY = 16, 1.1
"""Of so many layers the smallest variances may lie within this factor: eight nets of 22 to 80 layers with 84 % of
initial value have them within 1.005 to 1.08 and a tenth within 1.04; trained well, 1.23 to 1e5 and 1.6 to 6e3."""
AT_ONE_NUMBER = 1.01
"""Factor above the smallest within which no data put a tenth of all variances, and the smallest of several layers:
MobileNetV3 with 37 % of initial value has a third there, though its layers' smallest lie apart by 1.3."""


class VarianceFloor(Record):
    """The smallest variance, in units of the initial one, and whether others crowd above it."""

    bound: float
    """No more than this can be initial value, for no batch variance is negative (METRICS, init share)."""
    channels: int
    crowded: bool
    """A tenth of all variances lie just above it."""
    shared: bool
    """So near do they lie, and the smallest of most layers too, that it is what the layers have in common."""


def variance_floor(layers: Sequence[Layer]) -> VarianceFloor | None:
    """Of the layers whose variances were read and start above 0; None without any."""
    by_layer = [
        finite(values) / layer.variance.starts_at
        for layer in layers
        if layer.variance.starts_at > 0 and (values := values_of(layer.variance)) is not None and finite(values).size
    ]
    if not by_layer:
        return None
    ratios = np.concatenate(by_layer)
    bound = max(0.0, float(ratios.min()))
    nearest = quantile(ratios, 0.1) / bound if bound > 0 else math.inf
    enough = ratios.size >= MANY_CHANNELS
    spread = SPREAD_OF_MANY if len(by_layer) >= MANY_LAYERS else FLOOR_SPREAD
    smallest = np.array([each.min() for each in by_layer])
    near = nearest <= FLOOR_SPREAD and median(smallest) <= spread * bound
    at_one_number = nearest <= AT_ONE_NUMBER and np.count_nonzero(smallest <= AT_ONE_NUMBER * bound) >= FLOOR_LAYERS
    return VarianceFloor(
        bound=bound,
        channels=ratios.size,
        crowded=enough and nearest <= CROWDED,
        shared=enough and bool(near or at_one_number) and len(by_layer) >= FLOOR_LAYERS,
    )


NEAR_FLOOR, BEYOND_FLOOR = 1.2, 3.0
"""Factors above a floor within which channels are asked whether their weights let expect so much, and beyond which they
tell how much is usual; guesses."""


def expected_at(layers: Sequence[Layer], floor: float) -> float | None:
    """How much of their stored variances the weights let expect of the channels at a floor, over the same of the rest.

    `floor` is in units of the initial variance. Both are medians; predictions are off by a factor that channels share
    (`variance_agreement`), which so cancels. About 1 where the floor is the data's own; far less where it is what is
    left of the initial value. None where the weights of fewer than `MANY_CHANNELS` channels of either kind are known.
    """
    at: list[PerChannel] = []
    beyond: list[PerChannel] = []
    for layer in layers:
        stored = values_of(layer.variance)
        told = layer.predicted
        if told is None or told.fitted or stored is None or stored.size != told.variance.size:
            continue
        ratios = told.variance / stored.reshape(-1)
        near = stored.reshape(-1) <= NEAR_FLOOR * floor * layer.variance.starts_at
        at.append(ratios[near])
        beyond.append(ratios[stored.reshape(-1) > BEYOND_FLOOR * floor * layer.variance.starts_at])
    here, elsewhere = (np.concatenate(each) if each else np.empty(0) for each in (at, beyond))
    if min(here.size, elsewhere.size) < MANY_CHANNELS:
        return None
    usual = median(elsewhere)
    return median(here) / usual if usual > 0 else None
