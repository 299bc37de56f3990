"""How far stored moving variances are those that the weights before a layer predict: in shape, and in level.

What is predicted takes channels to vary by themselves, so that it is off by a factor, much the same for all channels of
a layer and for all layers of a model. Against it faults stand out: logarithms of standard deviations rise half as fast
with the prediction, variances in another order not at all, and a layer's factor is its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bncheck.facts.layers import Layer
from bncheck.facts.record import Record
from bncheck.numerics.agreement import Living
from bncheck.numerics.channels import median

FEWEST = 4
"""Living channels below which nothing is said."""
SHAPED = 8
"""The same for how variances follow the prediction from channel to channel."""
SIGMAS = 3.3
"""Standard errors that a slope may be off by chance: one in 2,000."""
FLAT = 0.7
"""Slope of log stored on log predicted variances, 3.3 standard errors added, below which they do not follow. Of 250
layers of thirteen healthy models the lowest is 0.89; standard deviations have half the slope of variances."""
NEIGHBOURS, ALONE = 4, 1.3
"""So many layers to each side, and the median of all, have levels between which a layer's own lies, or beyond them by
less than this: healthy layers reach 0.7, one of a net of six 1.1, variances ten times too large 1.5 to 2.3."""
APART = 2.2
"""The same from the median of all, where neighbours are as far off: healthy layers reach 1.9."""
LOWEST, HIGHEST = -1.0, 2.2
"""Between these lies the median of all: in nine healthy models from 0 to 1.5, for what varies together adds up."""
OF_LEVELS, OF_CHANNELS = 4.0, 2.5
"""Both in robust deviations, of the levels of all layers and of the channels of the layer; guesses."""
_FEW_LAYERS = 5
"""Layers below which they tell no common level."""
DIFFER, DIFFER_TOGETHER, DIFFER_MUCH = 0.2, 0.1, 0.4
"""Deviation of log predicted variances from which they tell one channel from another, in one layer and in all together:
below, how far channels vary together, which is not known, counts for more. It lets predictions err by some 0.28 a
channel, which flattens a line that is fitted against them: a healthy layer of 16 channels and a deviation of 0.24 had
slope 0. So below the third, the line fitted the other way round, which is never flatter than the true one, decides too.
"""
_LEAST_ERROR = 0.02
"""Of a slope: what channels have in common counts once."""
_ROBUST = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""


class VarianceAgreement(Record):
    """Stored against predicted variances of one layer, over its living channels, in natural logarithms."""

    channels: int
    level: float
    """Median of stored - predicted."""
    spread: float
    """Robust deviation of stored - predicted."""
    slope: float = 1.0
    """Of stored on predicted."""
    slope_error: float = math.inf
    """Its standard error, infinite of too few channels, or where the prediction is rough or much the same for all."""
    steepest: float = 1.0
    """The slope where all that is left is the prediction's own error: of the line fitted the other way round."""
    differ: float = 1.0
    """Deviation of log predicted variances."""
    levelled: bool = True
    """Whether the level says something: not behind images, whose own variance is not known, nor an average pooling."""

    may_rise: bool = False
    """Whether a level above the others' says nothing: the prediction is the least."""

    @property
    def flat(self) -> bool:
        """Whether the stored variances do not follow the prediction."""
        errs = SIGMAS * self.slope_error
        told = self.differ >= DIFFER_MUCH or (self.differ >= DIFFER and self.steepest + errs < FLAT)
        return told and self.slope + errs < FLAT


def variance_agreement(layer: Layer) -> VarianceAgreement | None:
    """Of a layer's stored variances; None where too little is known."""
    return variance_agreements([layer])[0]


def variance_agreements(layers: Sequence[Layer]) -> list[VarianceAgreement | None]:
    """`variance_agreement` of each layer, all of them at once."""
    known = Living.of(layers)
    if known is None:
        return [None] * len(layers)
    side, alive = known.side, known.alive & (known.predicted > 0)
    with np.errstate(all="ignore"):
        here, there = (
            np.where(alive, np.log(np.where(alive, of, 1.0)), 0.0) for of in (known.variance, known.predicted)
        )
        counts = side.totals(alive)
        levels = side.medians(here - there, alive)
        spreads = _ROBUST * side.medians(np.abs(here - there - side.spread(levels)), alive)
        felt = alive & known.above_epsilon
        counts_felt = side.totals(felt)
        x, y = (
            np.where(felt, of - side.spread(side.totals(np.where(felt, of, 0.0)) / counts_felt), 0.0)
            for of in (there, here)
        )
        across = side.totals(x * x)
        along = side.totals(x * y)
        slopes = along / across
        steepest = np.where(along > 0, side.totals(y * y) / along, np.inf)
        left = side.totals((y - side.spread(slopes) * x) ** 2)
        errors = np.sqrt(left / (counts_felt - 2) / across)
        shaped = (counts_felt >= SHAPED) & (across >= DIFFER_TOGETHER**2 * counts_felt)
    told = [
        VarianceAgreement(
            channels=int(counts[n]),
            level=float(levels[n]),
            spread=float(spreads[n]),
            slope=float(slopes[n]) if shaped[n] else 1.0,
            slope_error=float(errors[n]) if shaped[n] and not predicted.rough else math.inf,
            steepest=float(steepest[n]) if shaped[n] else 1.0,
            differ=math.sqrt(across[n] / counts_felt[n]) if counts_felt[n] else 0.0,
            levelled=predicted.spread_known and not predicted.fitted,
            may_rise=predicted.least,
        )
        if counts[n] >= FEWEST
        else None
        for n, predicted in enumerate(known.predictions)
    ]
    return known.each_of(told)


def flat(found: Mapping[str, VarianceAgreement]) -> set[str]:
    """Layers whose variances do not follow the prediction: by themselves, or where those of all together do not.

    The slope of all is the mean of their slopes, weighted by 1 / squared standard error: in thirteen healthy models
    0.85 to 1.22, of standard deviations in their place 0.42 to 0.62, of variances in another order -0.3 to 0.2.
    """
    alone = {name for name, one in found.items() if one.flat}
    known = [one for one in found.values() if math.isfinite(one.slope_error)]
    if len(known) < _FEW_LAYERS:
        return alone
    weights = np.array([1 / max(one.slope_error, _LEAST_ERROR) ** 2 for one in known])
    slope = float(weights @ np.array([one.slope for one in known]) / weights.sum())
    if slope + SIGMAS / math.sqrt(weights.sum()) >= FLAT:
        return alone
    return alone | {name for name, one in found.items() if math.isfinite(one.slope_error) and one.slope < FLAT}


def off_level(found: Mapping[str, VarianceAgreement]) -> Mapping[str, float]:
    """Layers whose level is not that of the others -> by how much; all where theirs is not that of variances.

    `found` is in forward order.
    """
    everywhere, found = found, {name: one for name, one in found.items() if one.levelled}
    if len(found) < _FEW_LAYERS:
        return {}
    levels = np.array([one.level for one in found.values()])
    centre = median(levels)
    if not LOWEST < centre < HIGHEST:
        return dict.fromkeys(everywhere, centre)
    least = OF_LEVELS * _ROBUST * median(np.abs(levels - centre))
    off = {}
    for place, (name, one) in enumerate(found.items()):
        if one.may_rise and one.level > centre:
            continue
        near = np.concatenate([levels[max(0, place - NEIGHBOURS) : place], levels[place + 1 :][:NEIGHBOURS], [centre]])
        beyond, apart = max(one.level - near.max(), near.min() - one.level), abs(one.level - centre)
        if (beyond > ALONE or apart > max(APART, least)) and apart > OF_CHANNELS * one.spread:
            off[name] = one.level - centre
    return off
