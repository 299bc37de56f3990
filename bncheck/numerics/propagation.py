"""What arrives at a batch norm, predicted from weights alone: means and variances carried from the one before.

A batch norm's output has mean beta and deviation gamma in every channel, whatever statistics it stores, so the mean of
what the next convolution makes of it follows from beta, gamma and the kernel (DFQ, arXiv 1906.04721, section 4.2.1).
Each channel is taken for a normal variable there and is carried as its values at fixed points of the standard normal:
elementwise functions act on the values, whatever they are, and moments are weighted sums over the points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
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
_TOGETHER = 0.5
"""How far neighbouring places of a channel vary together, from 0, by themselves, to 1, as one: a guess between them."""

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
    """Whether the values say how far a channel spreads; else only their mean counts."""

    @property
    def mean(self) -> PerChannel:
        """Mean of each channel, (channels,)."""
        found: PerChannel = np.einsum("p,pc->c", WEIGHTS, self.values)
        return found

    @property
    def variance(self) -> PerChannel:
        """Variance of each channel, (channels,)."""
        found: PerChannel = np.einsum("p,pc->c", WEIGHTS, (self.values - self.mean) ** 2)
        return found


def normal(mean: PerChannel, deviation: PerChannel, *, of: Any, spread_known: bool = True) -> Signal:
    """Normal channels of mean and deviation (channels,); `of` names them."""
    return Signal(values=mean + POINTS[:, None] * np.abs(deviation), of=of, spread_known=spread_known)


def applied(function: Function, signal: Signal | None) -> Signal | None:
    """An elementwise function of a signal; None where its spread is not known, for the mean then is not either."""
    if signal is None or not signal.spread_known:
        return None
    return Signal(values=function(signal.values), of=signal.of)


def averaged(signal: Signal | None) -> Signal | None:
    """Behind a pooling that averages places: the mean stays, the spread is no longer known."""
    return None if signal is None else Signal(values=signal.values, of=signal.of, spread_known=False)


def summed(parts: Sequence[Signal | None], *, of: Any) -> Signal | None:
    """The sum of signals: of the same variables exactly, else as if they varied by themselves and were normal."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known or len({part.values.shape for part in known}) > 1:
        return None
    spread_known = all(part.spread_known for part in known)
    if len({part.of for part in known}) == 1:
        values = reduce(np.add, [part.values for part in known])
        return Signal(values=values, of=known[0].of, spread_known=spread_known)
    mean = reduce(np.add, [part.mean for part in known])
    variance = reduce(np.add, [part.variance for part in known])
    return normal(mean, np.sqrt(variance), of=of, spread_known=spread_known)


def joined(parts: Sequence[Signal | None], *, of: Any) -> Signal | None:
    """Signals side by side, along the channels."""
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or not known:
        return None
    return Signal(
        values=np.concatenate([part.values for part in known], axis=1),
        of=of,
        spread_known=all(part.spread_known for part in known),
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
    is the same at all places; the variance is a guess, half as if channels and places varied by themselves.
    """
    if arriving is None or kernel.ndim < 2 or len(windows) != kernel.ndim - 2:
        return None
    channels = arriving.values.shape[1]
    if kernel.ndim == 2 and channels and kernel.shape[0] % channels == 0:
        kernel = kernel.reshape(-1, channels, kernel.shape[1])
    if kernel.shape[-2] != channels:
        return None
    weights = kernel.reshape(-1, *kernel.shape[-2:]).astype(np.float64)
    if len(weights) == 1:
        seen, spread = weights[0], weights[0] ** 2
    else:
        met = reduce(np.multiply.outer, [window.met for window in windows], np.ones(())).reshape(-1)
        met = met if len(met) == len(weights) else np.ones(len(weights))
        seen = np.einsum("t,tio->io", met, weights)
        spread = _TOGETHER * seen**2 + (1 - _TOGETHER) * np.einsum("t,tio->io", met, weights**2)
    mean, variance = arriving.mean, arriving.variance
    if depthwise:
        return Predicted(mean=(seen * mean[:, None]).reshape(-1), variance=(spread * variance[:, None]).reshape(-1))
    return Predicted(mean=np.einsum("i,io->o", mean, seen), variance=np.einsum("i,io->o", variance, spread))
