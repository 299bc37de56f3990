"""Sums over one tensor of a quantized file and its references, added up over the samples in float64."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.lite_run import Affine

Values: TypeAlias = NDArray[Any]
"""Of one tensor, channels last; stored integers or float."""

BLOCK = 1 << 16
"""Elements that are worked on at a time: they stay in the cache, and float32 sums of as many are good to 1e-6."""


class _Scratch(threading.local):
    """Memory that each thread works in: fresh arrays of that size cost more than the arithmetic on them."""

    def __init__(self) -> None:
        self.first, self.second = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
        self.ones = np.ones(BLOCK, np.float32)


_SCRATCH = _Scratch()


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
    step = max(1, BLOCK // sums.channels)
    for start in range(0, len(arrays[0]), step):
        reference, chained, clean, local = (part[start : start + step] for part in arrays)
        with np.errstate(all="ignore"):
            found = _block(reference, chained, clean, local, how, np.float32)
            if not all(np.isfinite(np.sum(part)) for part in found):  # overflow of a square, or worse
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
    """Sums `chain` (3,), `signal`, `error`, `held`, `shift` (channels,) of one block."""
    test, other, ones = _room(reference.shape, dtype)
    _real(chained, how, test)
    chain = [np.vdot(reference, reference), np.vdot(test, test)]
    np.subtract(test, reference, out=test)
    chain.append(np.vdot(test, test))
    np.multiply(clean, clean, out=other)
    signal = ones @ other
    _real(local, how, test)
    if how is None or _inside(clean, how):
        np.subtract(test, clean, out=test)
        shift = ones @ test
        np.multiply(test, test, out=test)
        error = held = ones @ test
    else:
        np.minimum(np.maximum(clean, how.low, out=other), how.high, out=other)
        np.subtract(test, other, out=other)
        shift = ones @ other
        np.multiply(other, other, out=other)
        held = ones @ other
        np.subtract(test, clean, out=test)
        np.multiply(test, test, out=test)
        error = ones @ test
    return np.array(chain, np.float64), signal, error, held, shift


def _room(shape: tuple[int, ...], dtype: Any) -> tuple[Values, Values, Values]:
    """Two arrays of that shape to write to, and as many ones as it has rows."""
    rows, channels = shape
    if dtype is np.float32 and rows * channels <= BLOCK:
        size = rows * channels
        first, second = (part[:size].reshape(shape) for part in (_SCRATCH.first, _SCRATCH.second))
        return first, second, _SCRATCH.ones[:rows]
    return np.empty(shape, dtype), np.empty(shape, dtype), np.ones(rows, dtype)


def _real(values: Values, how: Affine | None, out: Values) -> None:
    """Writes what the values stand for."""
    np.copyto(out, values, casting="unsafe")
    if how is not None:
        if how.zero_point:
            out -= out.dtype.type(how.zero_point)
        out *= out.dtype.type(how.scale)


def _inside(values: Values, how: Affine) -> bool:
    return bool(np.min(values, initial=0.0) >= how.low and np.max(values, initial=0.0) <= how.high)


def round_into(how: Affine, values: Values, stored: Values | None, real: Values | None) -> None:
    """Rounds float values to a type, to nearest, ties to even; writes them as stored, and as real numbers again.

    What lies outside the type's range is held to it; NaN becomes 0 in what is stored.
    """
    limits = np.iinfo(how.dtype)
    flat = values.reshape(-1)
    inverse, zero, scale = np.float32(1 / how.scale), np.float32(how.zero_point), np.float32(how.scale)
    low, high = np.float32(limits.min - how.zero_point), np.float32(limits.max - how.zero_point)
    stored_flat, real_flat = (None if part is None else part.reshape(-1) for part in (stored, real))
    with np.errstate(all="ignore"):
        for start in range(0, len(flat), BLOCK):
            block = flat[start : start + BLOCK]
            steps = _SCRATCH.first[: len(block)]
            np.multiply(block, inverse, out=steps)
            np.rint(steps, out=steps)
            np.minimum(np.maximum(steps, low, out=steps), high, out=steps)
            if real_flat is not None:
                np.multiply(steps, scale, out=real_flat[start : start + BLOCK])
            if stored_flat is not None:
                steps += zero
                if np.isnan(np.min(steps)):
                    np.nan_to_num(steps, copy=False, nan=float(zero))
                np.copyto(stored_flat[start : start + BLOCK], steps, casting="unsafe")
