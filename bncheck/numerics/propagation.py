"""What arrives at a batch norm, predicted from weights alone: means and variances carried from the one before.

A batch norm's output has mean beta and deviation gamma in every channel, whatever statistics it stores, so the mean of
what the next convolution makes of it follows from beta, gamma and the kernel (DFQ, arXiv 1906.04721, section 4.2.1).
Each channel is taken for a normal variable there and is carried as its values at fixed points of the standard normal:
elementwise functions act on the values, whatever they are, and moments are weighted sums over the points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.arrays import PerChannel
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import Record

_REACH, _POINTS = 4.5, 61
"""Deviations to each side, and points: the trapezoid rule is exact to 1e-4 for smooth functions, and for a kink to
h^2 / 12 times the density there, 1e-3 deviations (tests hold it against closed forms)."""
POINTS: NDArray[np.float64] = np.linspace(-_REACH, _REACH, _POINTS)
"""(points,): in deviations."""
_DENSITY = np.exp(-0.5 * POINTS**2)
WEIGHTS: NDArray[np.float64] = _DENSITY / _DENSITY.sum()
"""(points,): they sum to 1."""
_TOGETHER = 0.25
"""How far neighbouring places of a channel vary together, from 0, by themselves, to 1, as one. Of 0, 0.1, 0.2, 0.3 and
0.5 the two in the middle predict the variances of seven healthy models best."""
_FITTED_PER_CHANNEL = 4
"""Channels for each number that is fitted to them, at the least; a guess."""
_INSIDE = 0.9
"""Share of places at which every tap meets an image, whose mean may differ near its border, at the least; a guess."""
_COLOURS = 3, 4
_ROOM = 2
"""Times the kernel's size that a map has at least if means are to be the same at all its places; a guess: on maps of
3x3 healthy layers are off by 0.84 deviations."""
_ALIKE = (0.0, 0.95)
"""How far pixels that are one apart, or colours of one pixel, follow one another: not at all, as in noise, or as in
photographs, for which 0.95 predicts the variances of nine first layers best."""
_CACHED = 1 << 14
"""Numbers that are turned into float64 at a time."""
_CUMULATIVE = np.cumsum(WEIGHTS) - 0.5 * WEIGHTS

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * (1 + np.tanh(0.5 * x))


def _elu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


FUNCTIONS: Mapping[str, Function] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": _elu,
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * _elu(x)),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "swish": lambda x: x * _sigmoid(x),
    "silu": lambda x: x * _sigmoid(x),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "abs": np.abs,
    "neg": np.negative,
    "square": np.square,
    "exp": np.exp,
}
"""Elementwise functions by the lower-case names that TensorFlow's ops and Keras' activations share."""


class Signal(Record, eq=False):
    """The distribution of each channel of one tensor, over the batch and all places."""

    values: NDArray[np.float64]
    """(points, channels): at `POINTS` of the normal variable that each channel is a function of."""
    of: Any
    """Which normal variables these are; two signals of the same ones are functions of each other."""
    spread_known: bool = True
    """Whether the values say how far a channel spreads; else that is a guess."""
    mean_known: bool = True
    """Whether they say its mean; else that is a guess too."""

    @cached_property
    def mean(self) -> PerChannel:
        """Mean of each channel, (channels,)."""
        found: PerChannel = WEIGHTS @ self.values
        return found

    @cached_property
    def variance(self) -> PerChannel:
        """Variance of each channel, (channels,)."""
        from_mean = self.values - self.mean
        found: PerChannel = WEIGHTS @ np.square(from_mean, out=from_mean)
        return found


def normal(
    mean: PerChannel, deviation: PerChannel, *, of: Any, spread_known: bool = True, mean_known: bool = True
) -> Signal:
    """Normal channels of mean and deviation (channels,); `of` names them."""
    values = mean + POINTS[:, None] * np.abs(deviation)
    return Signal(values=values, of=of, spread_known=spread_known, mean_known=mean_known)


def applied(function: Function, signal: Signal | None) -> Signal | None:
    """An elementwise function of a signal; where its spread is a guess, the mean behind it is one too."""
    return None if signal is None else _made(function(signal.values), [signal], of=signal.of)


def _made(values: NDArray[np.float64], parts: Sequence[Signal], *, of: Any) -> Signal:
    """Of a function that is not linear: its mean is known where the spread of its operands is."""
    spread_known = all(part.spread_known for part in parts)
    return Signal(
        values=values,
        of=of,
        spread_known=spread_known,
        mean_known=spread_known and all(part.mean_known for part in parts),
    )


def averaged(signal: Signal | None, places: int | None = None, *, of: Any) -> Signal | None:
    """Behind a pooling that averages `places`, None: very many. The mean stays, the spread shrinks by a guess."""
    if signal is None:
        return None
    left = np.sqrt(_TOGETHER + (1 - _TOGETHER) / places if places else _TOGETHER)
    values = signal.mean + left * (signal.values - signal.mean)
    return Signal(values=values, of=of, spread_known=False, mean_known=signal.mean_known)


def largest(signal: Signal | None, places: int, *, of: Any) -> Signal | None:
    """Behind a max pooling over `places`, a guess: neighbours vary together, as if there were sqrt(places) of them."""
    if signal is None or places <= 1:
        return signal
    at = np.interp(_CUMULATIVE ** (1 / math.sqrt(places)), _CUMULATIVE, np.arange(_POINTS))
    below = np.minimum(at.astype(int), _POINTS - 2)
    ranked, rest = np.sort(signal.values, axis=0), (at - below)[:, None]
    values = (1 - rest) * ranked[below] + rest * ranked[below + 1]
    return Signal(values=values, of=of, spread_known=signal.spread_known, mean_known=False)


def gated(one: Signal | None, other: Signal | None, *, of: Any) -> Signal | None:
    """The product of two signals, as if they varied by themselves: a guess."""
    if one is None or other is None or one.values.shape != other.values.shape:
        return None
    if one.of == other.of:
        return _made(one.values * other.values, [one, other], of=one.of)
    spread, gate = (one, other) if one.variance.sum() >= other.variance.sum() else (other, one)
    return Signal(values=spread.values * gate.mean, of=of, spread_known=spread.spread_known, mean_known=False)


def summed(parts: Sequence[Signal | None], *, of: Any) -> Signal | None:
    """The sum of signals: of the same variables exactly, else as if they varied by themselves and were normal."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known or len({part.values.shape for part in known}) > 1:
        return None
    spread_known, mean_known = all(part.spread_known for part in known), all(part.mean_known for part in known)
    if len({part.of for part in known}) == 1:
        values = reduce(np.add, [part.values for part in known])
        return Signal(values=values, of=known[0].of, spread_known=spread_known, mean_known=mean_known)
    mean = reduce(np.add, [part.mean for part in known])
    variance = reduce(np.add, [part.variance for part in known])
    return normal(mean, np.sqrt(variance), of=of, spread_known=spread_known, mean_known=mean_known)


def joined(parts: Sequence[Signal | None], *, of: Any) -> Signal | None:
    """Signals side by side, along the channels."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known:
        return None
    return Signal(
        values=np.concatenate([part.values for part in known], axis=1),
        of=of,
        spread_known=all(part.spread_known for part in known),
        mean_known=all(part.mean_known for part in known),
    )


class KernelAxis(Record):
    """How a kernel moves along one axis."""

    size: int | None
    """Of the input without padding; None unknown: so large that its border does not count."""
    kernel: int
    stride: int = 1
    padding: tuple[int, int] | None = (0, 0)
    """Zeros before and after; None: as many as TensorFlow's SAME puts there."""
    dilation: int = 1

    @property
    def zeros(self) -> tuple[int, int]:
        """Zeros before and after (SAME as tensorflow/core/framework/kernel_shape_util.cc, GetWindowedOutputSize)."""
        if self.padding is not None:
            return self.padding
        rest = 0 if self.size is None else self.size % self.stride
        total = max(self.dilation * (self.kernel - 1) + 1 - (rest or self.stride), 0)
        return total // 2, total - total // 2

    @property
    def output(self) -> int | None:
        """Places of the output, at least one; None where the input's size is not known."""
        if self.size is None:
            return None
        reach = self.dilation * (self.kernel - 1) + 1
        return max((self.size + sum(self.zeros) - reach) // self.stride + 1, 1)

    @property
    def fills(self) -> bool:
        """Whether it is so large against the input that its taps see different places of it."""
        return self.size is not None and self.kernel > 1 and self.size < _ROOM * self.kernel

    @cached_property
    def met(self) -> NDArray[np.float64]:
        """(kernel,): the share of places at which each tap meets the input and not the zeros around it."""
        if self.size is None or self.output is None:
            return np.ones(self.kernel)
        places = np.arange(self.output)[:, None] * self.stride + np.arange(self.kernel) * self.dilation - self.zeros[0]
        met: NDArray[np.float64] = ((places >= 0) & (places < self.size)).sum(axis=0) / len(places)
        return met


def through_kernel(
    arriving: Signal | None, kernel: NDArray[Any], windows: Sequence[KernelAxis] = (), *, depthwise: bool = False
) -> Predicted | None:
    """Moments behind a convolution or dense layer without its bias; None where the shapes do not fit.

    `kernel` is (*taps, in, out), depthwise (*taps, in, multiplier), with one of `windows` for each axis of its taps. A
    dense kernel over flattened places is (places * in, out), channels last. The mean is exact where a channel's mean
    is the same at all places; the variance is a guess, as if channels, and mostly places, varied by themselves.
    """
    if arriving is None or kernel.ndim < 2 or len(windows) != kernel.ndim - 2:
        return None
    channels = arriving.values.shape[1]
    if kernel.ndim == 2 and channels and kernel.shape[0] % channels == 0:
        kernel = kernel.reshape(-1, channels, kernel.shape[1])
    if kernel.shape[-2] != channels:
        return None
    filled = any(window.fills for window in windows)
    mean, variance = arriving.mean, arriving.variance
    if depthwise:
        seen, spread = _over_places(kernel, windows)
        each = ((seen * mean[:, None]).reshape(-1), (spread * variance[:, None]).reshape(-1))
    elif kernel.size == kernel.shape[-2] * kernel.shape[-1]:
        each = _at_one_place(mean, variance, kernel.reshape(kernel.shape[-2:]))
    else:
        seen, spread = _over_places(kernel, windows)
        each = (mean @ seen, variance @ spread)
    alone = any(window.size == 1 for window in windows)
    rough = filled or not arriving.mean_known
    return Predicted(
        mean=each[0],
        variance=each[1],
        rough=rough,
        spread_known=arriving.spread_known,
        least=(filled or alone) and not depthwise,
        taps=math.prod(kernel.shape[:-2]),
    )


def _over_places(
    kernel: NDArray[Any], windows: Sequence[KernelAxis]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(in, out) factors that make means of means, and variances of variances, of a kernel (*taps, in, out)."""
    weights = kernel.reshape(-1, *kernel.shape[-2:]).astype(np.float64)
    met = reduce(np.multiply.outer, [window.met for window in windows], np.ones(())).reshape(-1)
    met = met if len(met) == len(weights) else np.ones(len(weights))
    seen = np.tensordot(met, weights, 1)
    return seen, _TOGETHER * seen**2 + (1 - _TOGETHER) * np.tensordot(met, weights**2, 1)


def _at_one_place(mean: PerChannel, variance: PerChannel, kernel: NDArray[Any]) -> tuple[PerChannel, PerChannel]:
    """Moments (out,) behind a kernel (in, out) of one tap, a few rows at a time, which fit the cache."""
    rows = max(_CACHED // max(kernel.shape[1], 1), 1)
    means, variances = np.zeros(kernel.shape[1]), np.zeros(kernel.shape[1])
    for start in range(0, len(kernel), rows):
        some = slice(start, start + rows)
        weights = kernel[some].astype(np.float64)
        means += mean[some] @ weights
        variances += variance[some] @ np.square(weights, out=weights)
    return means, variances


def of_images(
    mean: PerChannel, variance: PerChannel, kernel: NDArray[Any], windows: Sequence[KernelAxis] = ()
) -> Predicted | None:
    """Moments behind a kernel (height, width, in, out) that sees images of unknown kind: those nearest to the given.

    Of means only `in` numbers are fitted, so that it says something where out is several times as large. Variances, up
    to a factor, as of photographs or of noise, whichever agrees with `variance`: what is right for these is wrong for
    those. None where it is no kernel of colour images, or shapes do not fit.
    """
    if kernel.ndim != 4 or len(windows) != 2 or kernel.shape[-2] not in _COLOURS:
        return None
    if not kernel.shape[-1] == mean.size == variance.size:
        return None
    few = _FITTED_PER_CHANNEL * kernel.shape[-2] > mean.size
    if few or any(window.met.min() < _INSIDE for window in windows):
        return None
    seen, _ = _over_places(kernel, windows)
    unknown, *_ = np.linalg.lstsq(seen.T, mean.reshape(-1), rcond=1e-6)
    return Predicted(
        mean=unknown @ seen,
        variance=max(_of_any_images(kernel), key=lambda of_some: _together(variance.reshape(-1), of_some)),
        fitted=kernel.shape[-2],
    )


def _of_any_images(kernel: NDArray[Any]) -> Iterator[PerChannel]:
    """Variances (out,) behind a kernel, up to a factor, of noise and of smooth images, in colours and grey."""
    down, across = (each.reshape(-1) for each in np.indices(kernel.shape[:2]))
    apart = np.hypot(down[:, None] - down, across[:, None] - across)
    weights = kernel.reshape(-1, *kernel.shape[-2:]).astype(np.float64)
    grey = weights.sum(axis=1)
    for smooth in _ALIKE:
        alike = smooth**apart
        colours = np.einsum("tio,tio->o", weights, np.tensordot(alike, weights, 1))
        one = np.einsum("to,to->o", grey, alike @ grey)
        for common in _ALIKE:
            yield (1 - common) * colours + common * one


def _together(one: PerChannel, other: PerChannel) -> float:
    """Correlation of logarithms, over channels where both are positive and finite; -1 where there is none."""
    alive = (one > 0) & (other > 0) & np.isfinite(one) & np.isfinite(other)
    here, there = (np.log(each[alive].astype(np.float64)) for each in (one, other))
    if here.size < 2 or not here.std() or not there.std():
        return -1.0
    return float(np.corrcoef(here, there)[0, 1])
