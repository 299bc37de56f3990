"""Batch norm as the multiplication and addition that it is in eval mode, and that it is folded into a kernel as."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bncheck.facts.layers import Layer, PerChannel, Presence
from bncheck.numerics.side_by_side import SideBySide


def gamma_and_beta(
    gamma: PerChannel | None, beta: PerChannel | None, like: PerChannel
) -> tuple[PerChannel, PerChannel]:
    """Gamma and beta (channels,): 1 and 0 in the shape of `like` where a layer has none."""
    return np.ones_like(like) if gamma is None else gamma, np.zeros_like(like) if beta is None else beta


def folded(
    gamma: PerChannel, beta: PerChannel, mean: PerChannel, variance: PerChannel, epsilon: float
) -> tuple[PerChannel, PerChannel]:
    """(scale, addend), each (channels,): `gamma / sqrt(variance + epsilon)` and `beta - mean * scale`."""
    with np.errstate(all="ignore"):
        scale: PerChannel = np.asarray(gamma / np.sqrt(variance + epsilon))
        return scale, np.asarray(beta - mean * scale)


def fold_scale(layer: Layer) -> PerChannel | None:
    """|gamma| / sqrt(variance + epsilon) per channel; None where a part is unread, missing or not finite.

    Infinite where a float64 does not hold the quotient.
    """
    return fold_scales([layer])[0]


def fold_scales(layers: Sequence[Layer]) -> list[PerChannel | None]:
    """`fold_scale` of each layer, all of them at once."""
    read = [_read(layer) for layer in layers]
    known = [one for one in read if one is not None]
    if not known:
        return [None] * len(layers)
    gammas, variances, epsilons = zip(*known, strict=True)
    side = SideBySide([variance.size for variance in variances])
    divisor = np.concatenate([one.reshape(-1) for one in variances]) + side.spread(epsilons)
    with np.errstate(over="ignore"):
        scales = side.parts(np.abs(np.concatenate([one.reshape(-1) for one in gammas])) / np.sqrt(divisor))
    shaped = (scale.reshape(variance.shape) for scale, variance in zip(scales, variances, strict=True))
    return [None if one is None else next(shaped) for one in read]


def _read(layer: Layer) -> tuple[PerChannel, PerChannel, float] | None:
    """(gamma, variance, epsilon); None where a part is unread, missing or not finite."""
    variance = layer.variance.values
    if variance is None or not variance.size or layer.epsilon is None:
        return None
    if layer.gamma.presence in (Presence.UNREAD, Presence.MISSING):
        return None
    gamma, _ = gamma_and_beta(layer.gamma.values, None, variance)
    lowest, _ = layer.variance.bounds or (math.nan, math.nan)
    of_gamma = layer.gamma.bounds or (1.0, 1.0)
    if gamma.shape != variance.shape or not lowest + layer.epsilon > 0 or not all(map(math.isfinite, of_gamma)):
        return None
    return gamma, variance, layer.epsilon
