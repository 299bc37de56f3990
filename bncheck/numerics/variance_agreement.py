"""How far stored moving variances are those that the weights before a layer predict: in shape, and in level.

What is predicted takes channels to vary by themselves, so that it is off by a factor, much the same for all channels of
a layer and for all layers of a model. Against it faults stand out: logarithms of standard deviations rise half as fast
with the prediction, variances in another order not at all, and a layer's factor is its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.record import Record, replace
from bncheck.numerics.agreement import Living
from bncheck.numerics.channels import median, quantile

FEWEST = 4
"""Living channels below which nothing is said."""
SHAPED = 8
"""The same for how variances follow the prediction from channel to channel."""
SIGMAS = 3.3
"""Standard errors that a slope may be off by chance: one in 2,000."""
FLAT = 0.7
"""Slope of log stored on log predicted variances, 3.3 standard errors added, below which they do not follow. Of 250
layers of thirteen healthy models the lowest is 0.89; standard deviations have half the slope of variances."""
NEIGHBOURS, ALONE = 4, 1.0
"""So many layers to each side, and the median of all, have levels between which a layer's own lies, or beyond them by
less than this: of 25 healthy nets of 12 layers and more all but two stay below 0.6, and those two, 0.7 and 1.0, scatter
too; variances ten times too large reach 1.5 to 2.3."""
MANY_LAYERS, ALONE_OF_FEW = 12, 1.3
"""Layers below which neighbours tell less: there three of 20 healthy nets reach 0.9 to 1.1."""
APART = 2.2
"""The same from the median of all, where neighbours are as far off: healthy layers reach 1.9."""
LOWEST, HIGHEST = -1.0, 2.0
"""Above the first lies the median of all, and below the second a tenth: what varies together adds up from layer to
layer. In 90 healthy nets the median is -0.1 to 2.4, and a tenth lie below -0.4 to 1.5."""
AT_THE_END = 2.0
"""By how much the last layer may lie above those before it: there channels and places vary together, as classes ask.
In 90 healthy nets it does by 1.3 at most, and no other layer by more than 0.4."""
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
OF_ANOTHER_POWER = 0.6
"""Deviation of log stored over that of log predicted variances, below which the slope is that of another power. Where
the prediction errs, as for inputs whose channels vary together, slopes are low and deviations are not: of 54 nets
trained on noise, frames, masks, strokes and spectrograms the lowest ratio is 0.70, the next 0.77."""
OF_ANOTHER_ORDER = 0.5
"""Correlation of logarithms, 3.3 standard errors added, below which channels are in another order."""
LIKE_IMAGES, LIKE_THEM_LESS_A_SHARE = 0.98, 0.97
"""Correlation above which variances behind images follow those of photographs or of noise in all but the power, and the
same with a share of initial value taken off. Images that are both, such as spectrograms and strokes, flatten the line
too, and then it is 0.75 to 0.97, and 0.83 to 0.95."""
_SHARES = 1 - np.geomspace(1, 1e-3, 40)
"""Of the smallest variance."""
WITHIN, WITH_BETWEEN = 0.65, 0.75
"""Slope of all layers together, 3.3 standard errors added, below which they do not follow: that of channels within
their layers, and the mean of it and of the slope from layer to layer. In 45 healthy nets of five layers and more, some
trained on noise, masks, frames and spectrograms, they are with their errors at least 1.07 and 0.96; of standard
deviations in the place of variances half as large, and of variances in another order the first is -0.2 to 0.1."""
FOLLOW = 0.75
"""The same slope within layers, below which predictions do not hold well enough for this model to tell a layer by
itself: of images of constant colour, say, whose channels vary together. It is 0.9 to 1.05 in nets trained on images.
Levels tell nothing either then, nor where it is as far above 1: 1.5 and 2.3 in plain nets of twelve layers that learned
little, in which channels vary so much together that variances are ten times the predicted ones."""
BETWEEN_LAYERS, BETWEEN_DIFFER = 8, 0.2
"""Layers, and the deviation of their predicted medians, below which the slope from one to another is not asked: it is
1.0 to 5 in nets of five layers."""
_ROBUST = 1.4826
"""Standard deviation of a normal variable over its median absolute deviation."""


class VarianceAgreement(Record):
    """Stored against predicted variances of one layer, over its living channels, in natural logarithms."""

    channels: int
    level: float
    """Median of stored - predicted."""
    spread: float
    """Robust deviation of stored - predicted."""
    expected: float = 0.0
    """Median of predicted."""
    slope: float = 1.0
    """Of stored on predicted."""
    slope_error: float = math.inf
    """Its standard error, infinite of too few channels, or where the prediction is rough or much the same for all."""
    along: float = 0.0
    across: float = 0.0
    """Sums over channels of predicted times stored, and of predicted squared, about their means; 0 where rough."""
    steepest: float = 1.0
    """The slope where all that is left is the prediction's own error: of the line fitted the other way round."""
    differ: float = 1.0
    """Deviation of log predicted variances."""
    correlation: float = 1.0
    """Of stored and predicted."""
    filled: float = 0.0
    """Behind images: what is to be taken off all variances, 0 for none, so that they follow."""
    behind_images: bool = False
    """Whether the input is not known, and the prediction that of a kind of images which agrees best."""
    levelled: bool = True
    """Whether the level says something: not behind images, whose own variance is not known, nor an average pooling."""
    may_rise: bool = False
    """Whether a level above the others' says nothing: the prediction is the least."""
    one_place: bool = False
    """Whether the kernel sees one place at a time, so that how places vary together does not raise its level."""

    @property
    def flat(self) -> bool:
        """Whether the stored variances do not follow the prediction: as another power of it, or in another order."""
        errs = SIGMAS * self.slope_error
        told = self.differ >= DIFFER_MUCH or (self.differ >= DIFFER and self.steepest + errs < FLAT)
        if not told or self.slope + errs >= FLAT:
            return False
        if self.behind_images:  # whose kind is not known
            return self.filled > 0 or self.correlation > LIKE_IMAGES
        by_chance = SIGMAS * (1 - self.correlation**2) / math.sqrt(self.channels)
        power = self.slope < OF_ANOTHER_POWER * self.correlation
        return power or self.correlation + by_chance < OF_ANOTHER_ORDER


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
        expected = side.medians(there, alive)
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
        up = side.totals(y * y)
        steepest = np.where(along > 0, up / along, np.inf)
        correlations = along / np.sqrt(across * up)
        left = side.totals((y - side.spread(slopes) * x) ** 2)
        errors = np.sqrt(left / (counts_felt - 2) / across)
        shaped = (counts_felt >= SHAPED) & (across >= DIFFER_TOGETHER**2 * counts_felt)
    living = side.parts(felt.astype(np.float64))
    parts = list(zip(side.parts(known.variance), side.parts(known.predicted), strict=True))
    told = [
        VarianceAgreement(
            channels=int(counts[n]),
            level=float(levels[n]),
            spread=float(spreads[n]),
            expected=float(expected[n]),
            slope=float(slopes[n]) if shaped[n] else 1.0,
            slope_error=float(errors[n]) if shaped[n] and not predicted.rough else math.inf,
            along=float(along[n]) if counts_felt[n] >= SHAPED and not predicted.rough else 0.0,
            across=float(across[n]) if counts_felt[n] >= SHAPED and not predicted.rough else 0.0,
            steepest=float(steepest[n]) if shaped[n] else 1.0,
            differ=math.sqrt(across[n] / counts_felt[n]) if counts_felt[n] else 0.0,
            correlation=float(correlations[n]) if shaped[n] and up[n] else 1.0,
            behind_images=bool(predicted.fitted),
            filled=_filled(*(part[living[n] > 0] for part in parts[n])) if predicted.fitted and shaped[n] else 0.0,
            levelled=predicted.spread_known and not predicted.fitted,
            may_rise=predicted.least,
            one_place=predicted.taps == 1,
        )
        if counts[n] >= FEWEST
        else None
        for n, predicted in enumerate(known.predictions)
    ]
    return known.each_of(told)


def _filled(stored: PerChannel, predicted: PerChannel) -> float:
    """What is to be taken off stored variances so that they follow the predicted ones, where they do not; else 0."""
    x = np.log(predicted) - np.log(predicted).mean()
    off = stored.min() * _SHARES
    y = np.log(stored - off[:, None])
    y = y - y.mean(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        slopes, correlations = y @ x / (x @ x), y @ x / np.sqrt((x @ x) * (y * y).sum(axis=1))
    best = int(np.argmax(np.where(np.isfinite(correlations), correlations, -1.0)))
    follows = correlations[best] > LIKE_THEM_LESS_A_SHARE and FOLLOW < slopes[best] < 1 / FOLLOW
    return float(off[best]) if follows else 0.0


class SlopeOfAll(Record):
    """How stored variances rise with the predicted ones, over all layers but those behind images."""

    within: float
    """The slope within layers, over the channels of all."""
    slope: float
    """The same, or the mean of it and of `between`."""
    error: float
    """Its standard error, from leaving out one layer after the other: layers differ by more than chance."""
    layers: int
    """Of which `within` is."""
    between: float | None = None
    """The slope of their medians, from layer to layer; None where nothing is told."""

    @property
    def flat(self) -> bool:
        """Whether they do not follow."""
        return self.at_most() < (WITHIN if self.between is None else WITH_BETWEEN)

    def at_most(self, sigmas: float = SIGMAS) -> float:
        """The slope, and as many standard errors as Student's t asks for that many layers in the place of `sigmas`.

        By the first terms of Cornish and Fisher (Abramowitz and Stegun 26.7.5).
        """
        free = self.layers - 1
        first, second = sigmas**3 + sigmas, 5 * sigmas**5 + 16 * sigmas**3 + 3 * sigmas
        return self.slope + (sigmas + first / (4 * free) + second / (96 * free**2)) * self.error


def together(found: Mapping[str, VarianceAgreement]) -> SlopeOfAll | None:
    """Over the layers' channels and, if that does not decide, their medians too; None of too few layers."""
    known = [one for one in found.values() if one.across > 0 and not one.behind_images]
    if len(known) < _FEW_LAYERS:
        return None
    along, across = (np.array(each) for each in ([one.along for one in known], [one.across for one in known]))
    without = (along.sum() - along) / (across.sum() - across)
    squared = (along.size - 1) / along.size * float(((without - without.mean()) ** 2).sum())
    within = float(along.sum() / across.sum())
    inside = SlopeOfAll(within=within, slope=within, error=math.sqrt(squared), layers=len(known))
    between = None if inside.flat else _between(found)
    if between is None:
        return inside
    slope, error = between
    return replace(inside, slope=(within + slope) / 2, error=math.sqrt(squared + error**2) / 2, between=slope)


def _between(found: Mapping[str, VarianceAgreement]) -> tuple[float, float] | None:
    """(slope of stored on predicted medians from layer to layer, its standard error); None where nothing is told."""
    known = [one for one in found.values() if one.levelled and not one.may_rise]
    if len(known) < BETWEEN_LAYERS:
        return None
    x, y = (np.array(each) for each in ([one.expected for one in known], [one.expected + one.level for one in known]))
    x, y = x - x.mean(), y - y.mean()
    if x.std() < BETWEEN_DIFFER:
        return None
    slope = float(x @ y / (x @ x))
    return slope, math.sqrt(float(((y - slope * x) ** 2).sum() / (x.size - 2) / (x @ x)))


def flat(found: Mapping[str, VarianceAgreement]) -> set[str]:
    """Layers whose variances do not follow the prediction: by themselves, or with all others, then from a slope of 0.7.

    Where medians do not follow from layer to layer, all.
    """
    alone = {name for name, one in found.items() if one.flat}
    of_all = together(found)
    if of_all is None or not of_all.flat:
        follow = of_all is None or of_all.within >= FOLLOW
        return {name for name in alone if follow or found[name].behind_images}
    if of_all.between is not None:
        return set(found)
    return alone | {name for name, one in found.items() if math.isfinite(one.slope_error) and one.slope < FLAT}


def off_level(found: Mapping[str, VarianceAgreement]) -> Mapping[str, float]:
    """Layers whose level is not that of the others -> by how much; all where theirs is not that of variances.

    Held against others whose kernels see one place, or several, as theirs do. Where predictions do not hold within
    layers, levels tell nothing. `found` is in forward order.
    """
    of_all = together(found)
    if of_all is not None and not FOLLOW <= of_all.within <= 1 / FOLLOW:
        return {}
    told = {name: one for name, one in found.items() if one.levelled}
    if len(told) < _FEW_LAYERS:
        return {}
    levels = np.array([one.level for one in told.values()])
    if median(levels) <= LOWEST or quantile(levels, 0.1) >= HIGHEST:
        return dict.fromkeys(found, median(levels))
    alone = ALONE if len(told) >= MANY_LAYERS else ALONE_OF_FEW
    alike = [{name: one for name, one in told.items() if one.one_place is kind} for kind in (False, True)]
    off = [_off_among(of_kind, alone) for of_kind in alike if len(of_kind) >= _FEW_LAYERS]
    return {name: by for of_kind in off for name, by in of_kind.items()}


def _off_among(found: Mapping[str, VarianceAgreement], alone: float) -> dict[str, float]:
    """Of layers in forward order, those whose level is not that of the others -> by how much."""
    levels = np.array([one.level for one in found.values()])
    centre = median(levels)
    least = OF_LEVELS * _ROBUST * median(np.abs(levels - centre))
    off = {}
    for place, (name, one) in enumerate(found.items()):
        if one.may_rise and one.level > centre:
            continue
        near = np.concatenate([levels[max(0, place - NEIGHBOURS) : place], levels[place + 1 :][:NEIGHBOURS], [centre]])
        above, apart = one.level - near.max(), abs(one.level - centre)
        beyond = max(above, near.min() - one.level)
        if place == len(found) - 1 and 0 < above < AT_THE_END:
            continue
        if (beyond > alone or apart > max(APART, least)) and apart > OF_CHANNELS * one.spread:
            off[name] = one.level - centre
    return off
