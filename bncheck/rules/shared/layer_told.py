"""How the loss of a layer is told: how much, and in which way its statistics are off."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import finite, median

if TYPE_CHECKING:
    from bncheck.facts.measurements import LayerDifference

SHIFT_TOLD, RATIO_TOLD = 0.1, 0.1
"""Deviations, and logarithms, from which a mean or a variance is told to be off; guesses."""
TEN, MILLION = 10, 1_000_000
"""Factors from which they are told without decimals, and without digits."""


def off(nmse: float) -> str:
    """How far an output is off, as the rest of a sentence about it."""
    if not math.isfinite(nmse):
        return "is NaN"
    return f"is off by {percent(nmse)}" if nmse < TEN else f"is off by {times_told(nmse)} its energy"


def times_told(factor: float) -> str:
    """As `2.5 times`, or `more than a million times`."""
    if factor >= MILLION:
        return "more than a million times"
    return f"{factor:.1f} times" if factor < TEN else f"{factor:,.0f} times"


def how_off(layer: LayerDifference) -> str:
    """In which way the stored statistics are off, as a sentence with a space before; empty where nothing stands out."""
    parts = []
    ratios = finite(layer.log_variance_ratio)
    if ratios.size and abs(median(ratios)) >= RATIO_TOLD:
        parts.append(f"its stored variances are {math.exp(-median(ratios)):.3g} times those of the data (median)")
    shifts = finite(layer.mean_shift)
    shift = float(np.sqrt(np.mean(np.square(shifts)))) if shifts.size else 0.0
    if shift >= SHIFT_TOLD:
        parts.append(f"its means are off by {shift:.2g} standard deviations")
    if ratios.size < layer.log_variance_ratio.size:
        parts.append(f"the variance of {many(layer.log_variance_ratio.size - ratios.size, 'channel')} is NaN")
    if not parts and layer.worst_channels:
        parts.append(f"most of the error is in channels {listing([str(channel) for channel in layer.worst_channels])}")
    text = " and ".join(parts)
    return f" {text[0].upper()}{text[1:]}." if text else ""
