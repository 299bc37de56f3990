"""Rounding to a few bits within a range, as TensorFlow's FakeQuant ops do it, and what it costs."""

from __future__ import annotations

import numpy as np

from bncheck.facts.arrays import PerChannel


def rounded(x: PerChannel, low: PerChannel, high: PerChannel, *, bits: int, narrow: bool) -> PerChannel:
    """`x` (..., channels) within [low, high] (() or (channels,)), at the nearest of 2**bits levels, one of them 0.

    The range is moved so that 0 is a level, exactly as fake_quant_ops_functor.h (Nudge) does; `narrow` leaves out the
    lowest level. An empty range rounds all to 0.
    """
    first, last = (1 if narrow else 0), 2**bits - 1
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    with np.errstate(all="ignore"):
        scale = (high - low) / (last - first)
        zero = np.clip(np.floor(first - low / scale + 0.5), first, last)
        nudged_low, nudged_high = (first - zero) * scale, (last - zero) * scale
        # not np.clip, which in numpy before 1.25 takes the NaN of an empty range for no limit
        within = np.minimum(np.maximum(x, nudged_low), nudged_high)
        levels = np.floor((within - nudged_low) / scale + 0.5)
        found = levels * scale + nudged_low
    return np.where(scale > 0, found, 0.0)


def rounding_noise(x: PerChannel, low: PerChannel, high: PerChannel, *, bits: int, narrow: bool) -> float | None:
    """Energy of the rounding error against that of `x`; None where `x` is all 0 or not finite."""
    energy = float(np.sum(np.square(x, dtype=np.float64)))
    if not energy > 0 or not np.isfinite(energy):
        return None
    error = rounded(x, low, high, bits=bits, narrow=narrow) - x
    return float(np.sum(np.square(error, dtype=np.float64))) / energy


def extent(x: PerChannel, *, per_channel: bool) -> tuple[PerChannel, PerChannel]:
    """(lowest, highest) of `x` and 0, over all or for each of the last axis: the range that training records."""
    axes = tuple(range(x.ndim - 1)) if per_channel else None
    return np.minimum(np.min(x, axis=axes), 0.0), np.maximum(np.max(x, axis=axes), 0.0)
