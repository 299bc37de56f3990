"""Sums over one tensor of a quantized file and its references, added up over the samples in float64."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.interpreter import IntegerScale

Values: TypeAlias = NDArray[Any]
"""Of one tensor, channels last; stored integers or float."""

BLOCK = 1 << 17
"""Elements that are worked on at a time: they stay in the cache, and float32 sums of as many are good to 1e-6."""
PLACES = 1 << 15
"""Elements of each sample's tensor that are added up; of a larger one about so many, at places spread over it."""
_MARGIN = 1e-3
"""Of a step."""


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
    chain: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """sum r^2, t^2, e^2 with both files run from the input."""
    count: int = 0
    """Elements behind the sums below: of the operator by itself, given the clean input."""
    signal: NDArray[np.float64] = field(init=False)
    """(channels,) sum of r^2."""
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


def places(values: Values) -> Values:
    """All channels at places spread evenly over each sample, the same ones for every sample and batch.

    A tensor of 112x112x96 tells in 340 of its places what it loses, to 0.05 dB, and every sample has its say. To add
    up all of them would take a quarter of the whole comparison's time.
    """
    if values.ndim < 3 or not values.size:
        return values
    samples, channels = values.shape[0], values.shape[-1]
    rows = values.reshape(samples, -1, channels)
    count = rows.shape[1]
    step = min(max(1, count * channels // PLACES), count)
    while math.gcd(step, count) > 1:  # as wide as the image, or a part of it, would see some columns alone
        step += 1
    return rows[:, step // 2 :: step]


def add_chain(sums: TensorSums, reference: Values, test: Values, how: IntegerScale | None) -> None:
    """Adds what the two chains give for some samples: float, and stored as `how` says."""
    for r, t in _blocks(sums.channels, reference, test):
        with np.errstate(all="ignore"):
            found = _chain(r, t, how, np.float32)
            if not math.isfinite(sum(found)):  # a square may overflow
                found = _chain(r, t, how, np.float64)
                sums.non_finite += int(np.sum(~np.isfinite(r))) + int(np.sum(~np.isfinite(t)))
        sums.chain += found


def _chain(reference: Values, test: Values, how: IntegerScale | None, dtype: Any) -> tuple[float, float, float]:
    error, reference = _room(test.shape, dtype)[0], np.asarray(reference, dtype)
    _real(test, how, error)
    squares = float(np.vdot(error, error))
    np.subtract(error, reference, out=error)
    return float(np.vdot(reference, reference)), squares, float(np.vdot(error, error))


def add_local(sums: TensorSums, reference: Values, test: Values, how: IntegerScale | None) -> None:
    """Adds what the operator by itself gives for some samples, against the float operator by itself."""
    for r, t in _blocks(sums.channels, reference, test):
        with np.errstate(all="ignore"):
            found = _local(r, t, how, np.float32)
            if not math.isfinite(np.sum(found[0]) + np.sum(found[1])):
                found = _local(r, t, how, np.float64)
                sums.non_finite += int(np.sum(~np.isfinite(t)))
        sums.signal += found[0]
        sums.error += found[1]
        sums.held += found[2]
        sums.shift += found[3]
        sums.count += r.size


def _local(reference: Values, test: Values, how: IntegerScale | None, dtype: Any) -> tuple[NDArray[Any], ...]:
    """Sums `signal`, `error`, `held`, `shift` (channels,) of one block."""
    error, other, ones = _room(test.shape, dtype)
    reference = np.asarray(reference, dtype)
    np.multiply(reference, reference, out=other)
    signal = ones @ other
    _real(test, how, error)
    if how is None or _inside(reference, how):
        np.subtract(error, reference, out=error)
        shift = ones @ error
        np.multiply(error, error, out=error)
        total = held = ones @ error
    else:
        np.clip(reference, how.low, how.high, out=other)
        np.subtract(error, other, out=other)
        shift = ones @ other
        np.multiply(other, other, out=other)
        held = ones @ other
        np.subtract(error, reference, out=error)
        np.multiply(error, error, out=error)
        total = ones @ error
    return signal, total, held, shift


def _blocks(channels: int, *arrays: Values) -> Iterator[tuple[Values, ...]]:
    """Rows of (elements, channels), so many at a time that they stay in the cache."""
    rows = tuple(part.reshape(-1, channels) for part in arrays)
    step = max(1, BLOCK // channels)
    for start in range(0, len(rows[0]), step):
        yield tuple(part[start : start + step] for part in rows)


def _room(shape: tuple[int, ...], dtype: Any) -> tuple[Values, Values, Values]:
    """Two arrays of that shape to write to, and as many ones as it has rows."""
    rows, channels = shape
    if dtype is np.float32 and rows * channels <= BLOCK:
        size = rows * channels
        first, second = (part[:size].reshape(shape) for part in (_SCRATCH.first, _SCRATCH.second))
        return first, second, _SCRATCH.ones[:rows]
    return np.empty(shape, dtype), np.empty(shape, dtype), np.ones(rows, dtype)


def _real(values: Values, how: IntegerScale | None, out: Values) -> None:
    """Writes what the values stand for."""
    np.copyto(out, values, casting="unsafe")
    if how is not None:
        if how.zero_point:
            out -= out.dtype.type(how.zero_point)
        out *= out.dtype.type(how.scale)


def _inside(values: Values, how: IntegerScale) -> bool:
    """Whether nothing lies outside the type's range, by more than float32 has it 6 against 5.9999995."""
    margin = _MARGIN * how.scale
    return bool(np.max(values) <= how.high + margin and np.min(values) >= how.low - margin)


def round_into(how: IntegerScale, values: Values, stored: Values | None, real: Values | None) -> None:
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
            np.clip(steps, low, high, out=steps)  # a tenth of the time of minimum(maximum())
            if real_flat is not None:
                np.multiply(steps, scale, out=real_flat[start : start + BLOCK])
            if stored_flat is not None:
                steps += zero
                if np.isnan(np.min(steps)):
                    np.nan_to_num(steps, copy=False, nan=float(zero))
                np.copyto(stored_flat[start : start + BLOCK], steps, casting="unsafe")
