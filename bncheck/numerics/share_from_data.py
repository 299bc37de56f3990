"""The init share as running the model shows it, where no counter tells: the data's statistics, thinned with 0 and 1.

Calibrated on 30 small networks (TF1, Keras 2 and 3; convolutions, dense, recurrent, shared layers) that were trained
with too slow a decay, shares of 0.52 to 0.95: undoing the share brings the median channel from a factor of 1.5 to 800
to one of 1.04 to 1.34 of the data's variance, and finds `decay**n` to 1 %. Of six healthy ones on data they were not
trained on (darker, inverted, noise, shifted), no share above 0.02 halves the error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bncheck.facts.layers import Facts, Layer, PerChannel
from bncheck.numerics.channels import median
from bncheck.numerics.init_share import epsilon_of

if TYPE_CHECKING:
    from bncheck.facts.measurements import LayerDifference

SMALLEST = 0.02
"""Share below which it is not told from other differences: of six healthy nets none had more."""
EXPLAINED, HALVED = 0.35, 2.0
"""|ln| of stored over measured variance in the median channel that may be left, a factor of 1.4 where 1.34 was the
most; and times that it must have been, which no share above 0.02 did in a healthy net."""
BEYOND_SCALE = 1.25
"""Times that it must be worse to explain all by one factor, as input in another range would be; a guess."""
FEWEST_CHANNELS = 6
"""Of all layers together, for a median that means something; a guess."""
STEPS = 200
"""Shares that are tried, evenly in the logarithm of what is left."""


@dataclass(frozen=True, kw_only=True)
class ShareInData:
    """What is left of the initial values, by what the data show."""

    share: float
    before: float
    """|ln| of stored over measured variance, in the median channel."""
    after: float
    """The same with the share undone."""
    layers: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _ChannelMoments:
    """Of all layers together."""

    stored: PerChannel
    measured: PerChannel
    start: PerChannel
    epsilon: PerChannel
    mean_stored: PerChannel
    mean_measured: PerChannel


def leftover(model: Facts, measured: Iterable[LayerDifference]) -> ShareInData | None:
    """The share of the initial values in the stored statistics, if that and nothing else sets them off from the data.

    With share s the stored variance is `s * start + (1 - s) * v`, the stored mean `(1 - s) * m`; s is what brings the
    median channel nearest to the v that was measured in train mode. `measured` has every layer once, from real data
    and enough of them, which the caller has to see to.
    """
    by_name = {layer.name: layer for layer in model.layers}
    known = [(by_name[one.layer], one) for one in measured if one.layer in by_name]
    parts = [_of_layer(layer, one.mean_shift, one.log_variance_ratio) for layer, one in known]
    names = tuple(layer.name for (layer, _), part in zip(known, parts, strict=True) if part is not None)
    found = _joined([part for part in parts if part is not None])
    return None if found is None else _fitted(found, names)


def _of_layer(layer: Layer, shift: PerChannel, log_ratio: PerChannel) -> _ChannelMoments | None:
    mean, variance = layer.mean.values, layer.variance.values
    if mean is None or variance is None or layer.variance.starts_at <= 0 or layer.mean.starts_at != 0:
        return None
    if variance.shape != log_ratio.shape:
        return None
    epsilon = epsilon_of(layer)
    with np.errstate(all="ignore"):
        spread = np.sqrt(variance + epsilon)
        measured = np.exp(log_ratio) * spread**2 - epsilon
        alive = np.isfinite(measured) & np.isfinite(shift) & (measured > epsilon / 100)
        return _ChannelMoments(
            stored=variance[alive],
            measured=measured[alive],
            start=np.full(int(np.sum(alive)), layer.variance.starts_at),
            epsilon=np.full(int(np.sum(alive)), epsilon),
            mean_stored=mean[alive],
            mean_measured=(mean + shift * spread)[alive],
        )


def _joined(parts: list[_ChannelMoments]) -> _ChannelMoments | None:
    if sum(part.stored.size for part in parts) < FEWEST_CHANNELS:
        return None
    names = ("stored", "measured", "start", "epsilon", "mean_stored", "mean_measured")
    return _ChannelMoments(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def _fitted(found: _ChannelMoments, layers: tuple[str, ...]) -> ShareInData | None:
    # no batch variance is negative, so that the smallest stored one bounds the share
    most = float(np.min(found.stored / found.start))
    if not SMALLEST <= most < 1:
        return None
    shares = 1 - np.geomspace(1, 1 - most, STEPS)
    errors = [_error(found, share) for share in shares]
    place = int(np.argmin(errors))
    share, before, after = float(shares[place]), errors[0], errors[place]
    ratios = np.log((found.stored + found.epsilon) / (found.measured + found.epsilon))
    by_scale = median(np.abs(ratios - median(ratios)))
    explained = after <= EXPLAINED and before >= HALVED * after and by_scale >= BEYOND_SCALE * after
    if share < SMALLEST or not explained or _mean_error(found, share) > _mean_error(found, 0.0):
        return None
    return ShareInData(share=share, before=before, after=after, layers=layers)


def _error(found: _ChannelMoments, share: float) -> float:
    undone = np.maximum((found.stored - share * found.start) / (1 - share), 0.0)
    return median(np.abs(np.log((undone + found.epsilon) / (found.measured + found.epsilon))))


def _mean_error(found: _ChannelMoments, share: float) -> float:
    distance = found.mean_stored / (1 - share) - found.mean_measured
    return median(np.abs(distance) / np.sqrt(found.measured + found.epsilon))
