"""Sums over one tensor of a quantized file and its references, added up over the samples in float64."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.lite_run import Affine

Values: TypeAlias = NDArray[Any]
"""Of one tensor, channels last; stored integers or float."""

_BLOCK = 1 << 16
"""Elements that are worked on at a time: they stay in the cache, and float32 sums of as many are good to 1e-6."""


@dataclass(kw_only=True, eq=False)
class TensorSums:
    """What is added up for one measured tensor."""

    channels: int
    count: int = 0
    """Elements."""
    chain: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """sum r^2, t^2, e^2 with both files run from the input."""
    signal: NDArray[np.float64] = field(init=False)
    """(channels,) sum of r^2 where the operator is given the clean input."""
    error: NDArray[np.float64] = field(init=False)
    """sum of e^2."""
    held: NDArray[np.float64] = field(init=False)
    """sum of e^2 with r held to the range of the output's type."""
    shift: NDArray[np.float64] = field(init=False)
    """sum of e with r held to that range."""
    non_finite: int = 0

    def __post_init__(self) -> None:
        self.signal, self.error, self.held, self.shift = (np.zeros(self.channels) for _ in range(4))

    @property
    def parts(self) -> tuple[float, float, float]:
        """(rounding, clipping, bias): parts of `sum(error)` that add up to it, none negative.

        Clipping is what holding r to the type's range takes off the error (element by element, `t` being inside the
        range, `(t - r)^2 >= (t - held r)^2`); bias is the mean of the rest in each channel, squared; rounding what is
        left.
        """
        total, held = float(np.sum(self.error)), float(np.sum(self.held))
        each = self.count / self.channels if self.channels else 0
        bias = float(np.sum(self.shift**2) / each) if each else 0.0
        bias = min(bias, held)
        return held - bias, max(total - held, 0.0), bias


def add(sums: TensorSums, chain: tuple[Values, Values], alone: tuple[Values, Values], how: Affine | None) -> None:
    """Adds the values of some samples.

    `chain` are float and quantized values at the end of the two chains, `alone` those of the operator by itself; the
    first of each is float (it may be the same array in both), the second stored as `how` says.
    """
    arrays = tuple(part.reshape(-1, sums.channels) for part in (*chain, *alone))
    step = max(1, _BLOCK // sums.channels)
    for start in range(0, len(arrays[0]), step):
        reference, chained, clean, local = (part[start : start + step] for part in arrays)
        with np.errstate(all="ignore"):
            found = _block(reference, chained, clean, local, how, np.float32)
            if not all(np.all(np.isfinite(part)) for part in found):  # overflow of a square, or worse
                found = _block(reference, chained, clean, local, how, np.float64)
                sums.non_finite += sum(int(np.sum(~np.isfinite(part))) for part in (reference, chained, local))
        sums.chain += found[0]
        sums.signal += found[1]
        sums.error += found[2]
        sums.held += found[3]
        sums.shift += found[4]
    sums.count += arrays[0].size


def _block(  # noqa: PLR0917 - the four arrays of one block, as `add` takes them
    reference: Values, chained: Values, clean: Values, local: Values, how: Affine | None, dtype: Any
) -> tuple[NDArray[Any], ...]:
    """Sums `chain` (3,), `signal, error, held, shift` (channels,) of one block."""
    ones = np.ones(len(reference), dtype)
    reference, clean = np.asarray(reference, dtype), np.asarray(clean, dtype)
    test = _real(chained, how, dtype)
    sums = [np.vdot(reference, reference), np.vdot(test, test)]
    np.subtract(test, reference, out=test)
    sums.append(np.vdot(test, test))
    test = _real(local, how, dtype)
    square = np.multiply(clean, clean)
    signal = ones @ square
    if how is None or _inside(clean, how):
        np.subtract(test, clean, out=test)
        shift = ones @ test
        np.multiply(test, test, out=square)
        error = held = ones @ square
    else:
        within = np.clip(clean, dtype(how.low), dtype(how.high))
        np.subtract(test, within, out=within)
        shift = ones @ within
        np.multiply(within, within, out=square)
        held = ones @ square
        np.subtract(test, clean, out=test)
        np.multiply(test, test, out=square)
        error = ones @ square
    return np.array(sums, np.float64), signal, error, held, shift


def _real(values: Values, how: Affine | None, dtype: Any) -> Values:
    """A fresh array of what the values stand for."""
    real = values.astype(dtype)
    if how is not None:
        real -= dtype(how.zero_point)
        real *= dtype(how.scale)
    return real


def _inside(values: Values, how: Affine) -> bool:
    return bool(np.min(values, initial=0.0) >= how.low and np.max(values, initial=0.0) <= how.high)
