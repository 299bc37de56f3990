"""Right statistics for one layer: from the stored ones where decay and count are known, or from moments of data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import DecaySource, Layer, PerChannel, Presence, Role, Vector
from bncheck.facts.repairs import LayerLeft, PopulationFacts
from bncheck.numerics.agreement import agreement
from bncheck.numerics.init_share import decay_of, init_share, updates_a_step
from bncheck.numerics.moments import Moments

MAX_STORAGE_ERROR = 1e-4
"""Largest error, relative to the initial value, that undoing the init share may make of the storage's rounding."""
NOTHING_LEFT = 1e-9
"""Init share below which there is nothing to undo: float32 would not change."""
REACHES_BACK = 0.01
"""Init share from which an average is as old as the training: 4.6 times the steps that it averages, or fewer."""
FIT = 0.5
"""Correlation with the stored means from which the weights' prediction is taken: of healthy layers all reach it; what
does not is predicted badly, or belongs to other weights. A guess."""
_EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


class Refused(BncheckError):
    """A layer whose statistics cannot be known; `reason` says why."""

    def __init__(self, layer: str, reason: str) -> None:
        self.layer = layer
        self.reason = reason
        super().__init__(f"{layer}: {reason}")


@dataclass(frozen=True, kw_only=True, eq=False)
class NewStatistics:
    """What a layer ought to have stored."""

    layer: str
    mean: PerChannel
    variance: PerChannel
    share: float | None = None
    """Init share of the variance that was undone; None where it came from data."""
    clipped: int = 0
    """Channels whose variance came out below 0 by no more than rounding explains, and was set to 0."""
    from_weights: float | None = None
    """Root mean square, in deviations, by which the mean, predicted from the weights, differs from the average's; None
    where the mean is not predicted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Replacement:
    """New statistics and what did not get any."""

    new: tuple[NewStatistics, ...]
    left: tuple[LayerLeft, ...]
    population: PopulationFacts | None = None
    notes: tuple[str, ...] = ()


def debiased(layer: Layer, *, steps: int | None) -> NewStatistics | None:
    """Statistics without what is left in them of their initial values v0, m0 after n updates with decay d:
    `(v - d**n * v0) / (1 - d**n)` and `(m - d**n * m0) / (1 - d**n)`; None where nothing is left.

    Exact but for rounding: each of the n updates rounded to the storage's precision, and the division by 1 - d**n
    magnifies that, so float32 leaves about 1.2e-7 / (1 - d**n) of v0 unknown. Refused (Refused) where that exceeds
    1e-4, that is 1 - d**n < 0.0012, and for 16-bit storage altogether; where a statistic never moved, is not finite or
    not at hand; where decay or count are unknown or the decay rises over the run; where more than rounding is missing
    to 0, for then the counts are wrong. A mean or variance that the training debiased itself stays as it is. `steps`
    counts runs of the train op; a layer that it updates several times in a step counts them all.
    """
    _check(layer, steps)
    assert steps is not None
    mean_share, variance_share = (init_share(layer, steps, role) for role in (Role.MEAN, Role.VARIANCE))
    assert mean_share is not None
    assert variance_share is not None
    if max(mean_share, variance_share) < NOTHING_LEFT:
        return None
    mean, _ = _undone(layer, layer.mean, mean_share, steps)
    variance, clipped = _undone(layer, layer.variance, variance_share, steps)
    return NewStatistics(layer=layer.name, mean=mean, variance=variance, share=variance_share, clipped=clipped)


def with_predicted_mean(layer: Layer, found: NewStatistics) -> NewStatistics:
    """The mean that the layer's weights predict in place of the average's, which is of older weights too.

    Where a hundredth or more of the initial value is left, the average reaches back over the whole training. The
    prediction is of the weights as they are; it is taken where it has to do with what is stored. Measured on the
    digits' MobileNetV2: 92.3 -> 94.0 % with decay 0.99, 77.3 -> 88.4 % with 0.9997, of 352 images.
    """
    if found.share is None or found.share < REACHES_BACK:
        return found
    variance = replace(layer.variance, values=found.variance)
    fit = agreement(replace(layer, variance=variance), found.mean)
    told = layer.predicted
    if told is None or told.fitted or fit is None or fit.correlation < FIT:
        return found
    return replace(found, mean=told.mean.reshape(found.mean.shape), from_weights=fit.error)


def reestimated(layer: str, moments: Moments) -> NewStatistics:
    """Population statistics: mean and biased variance over all samples of all batches, merged by Chan's rule.

    The variance stored is the population's. TensorFlow's fused kernel stores that of a batch times N/(N-1), so that
    its average estimates the population variance too; of a population the factor differs from 1 by 1/N, which is left
    out. Raises Refused where the data bring NaN or infinity to the layer, or fewer than two values a channel.
    """
    if moments.count < 2:
        raise Refused(layer, f"the data give it {moments.count} value per channel, but a variance needs two")
    if not np.all(np.isfinite(moments.mean)) or not np.all(np.isfinite(moments.m2)):
        raise Refused(
            layer,
            "NaN or infinity reaches it with batch statistics too: the weights before it are broken, not its "
            "statistics "
            "alone",
        )
    return NewStatistics(layer=layer, mean=moments.mean, variance=np.maximum(moments.variance, 0.0))


def _check(layer: Layer, steps: int | None) -> None:
    """Raises Refused for everything that can be told before any arithmetic."""
    for vector in layer.statistics:
        what = f"its moving {vector.role.value}"
        if vector.presence is not Presence.PRESENT or vector.values is None:
            raise Refused(layer.name, f"{what} is {vector.presence.value}: {vector.reason}")
        if not np.all(np.isfinite(vector.values)):
            raise Refused(layer.name, f"{what} holds NaN or infinity, which cannot be undone")
        if vector.moved is False:
            raise Refused(layer.name, f"{what} never moved: it holds nothing from the data")
    for decay in (decay_of(layer, vector.role) for vector in layer.statistics):
        if decay is None:
            raise Refused(layer.name, "its decay is unknown: give --decay")
        if not 0 <= decay < 1:
            raise Refused(layer.name, f"with decay {decay:g} its statistics are not an average")
    if steps is None:
        raise Refused(layer.name, "the number of updates is unknown: give --steps")
    if steps <= 0:
        raise Refused(layer.name, f"its statistics were updated {steps} times by the counter, but they moved")
    if layer.decay_from is not DecaySource.OPTION and any(update.decay_rises for update in layer.updates):
        raise Refused(layer.name, "its decay rises over the run, so its init share is unknown")


def _undone(layer: Layer, vector: Vector, share: float, steps: int) -> tuple[PerChannel, int]:
    """(values without the initial share, channels clipped to 0)."""
    assert vector.values is not None
    if share < NOTHING_LEFT:
        return vector.values, 0
    eps = _EPS.get(vector.dtype, _EPS["float32"])
    start = abs(vector.starts_at)
    # a mean that starts at 0 is only scaled, and what is stored loses nothing by that
    if eps / (1.0 - share) > MAX_STORAGE_ERROR and (start or share > 1.0 - eps):
        raise Refused(
            layer.name,
            f"its moving {vector.role.value} is stored in {vector.dtype}, and {share:.6%} of that is the initial "
            "value: "
            "what is left is mostly rounding",
        )
    values = (vector.values - share * vector.starts_at) / (1.0 - share)
    if vector.role is not Role.VARIANCE:
        return values, 0
    # at most half a unit in the last place an update, and an average forgets after 1 / (1 - decay) of them
    count, decay = steps * updates_a_step(layer, vector.role), decay_of(layer, vector.role) or 0.0
    rounding = eps * start * min(count, 1.0 / (1.0 - decay)) / (1.0 - share)
    lowest = float(values.min(initial=0.0))
    if lowest < -rounding:
        raise Refused(layer.name, _too_small(layer, vector, share, steps))
    return np.maximum(values, 0.0), int(np.count_nonzero(values < 0.0))


def _too_small(layer: Layer, vector: Vector, share: float, steps: int) -> str:
    assert vector.values is not None
    decay = decay_of(layer, vector.role) or 0.0
    smallest = float(vector.values.min())
    reason = (
        f"its smallest moving variance, {smallest:.4g}, is less than the {share * vector.starts_at:.4g} that {steps:,} "
        f"steps with decay {decay:g} leave of the initial {vector.starts_at:g}: more updates went in than that, or it "
        "started elsewhere"
    )
    if not (0 < smallest < vector.starts_at and 0 < decay < 1):
        return reason
    needed = math.ceil(math.log(smallest / vector.starts_at) / math.log(decay) / updates_a_step(layer, Role.VARIANCE))
    return f"{reason}; it fits from --steps {needed} on"
