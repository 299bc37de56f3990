"""Where a converted file may hold a folded layer: its kernels and biases by output channel, with their rounding.

Kernels of all formats are brought to one form, (channels, fan-in), the fan-in in the order of TensorFlow's layouts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.lite.leftovers import Affine, Constants

_Any = TypeVar("_Any", bound=np.generic)

TINY = 1e-35
"""Differences that float32 loses where numbers become subnormal and are flushed to zero."""
_LONGEST_CHAIN = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Held:
    """One linear operator's numbers, `kernel * x + bias` with what was left standing right behind it taken in."""

    kernel: NDArray[np.float64]
    """(channels, fan-in)."""
    kernel_half: NDArray[np.float64]
    """(channels,): how far rounding to the stored type moved a weight at most."""
    saturated: NDArray[np.bool_] | None
    """Weights at the end of an integer type's range, which may have been cut off there; None: a float kernel."""
    bias: NDArray[np.float64]
    """(channels,); 0 where the operator has none."""
    bias_half: NDArray[np.float64]
    behind: tuple[str, ...] = ()
    """Kinds of the affine operators that are taken in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KernelPlace:
    """One linear operator, or one chain of affine ones, that may hold a layer; its numbers are read on demand."""

    name: str
    kind: str
    order: tuple[int, int]
    """Subgraph and operator number."""
    channels: int
    fan_in: int
    """1 for a chain of affine operators."""
    read: Callable[[], Iterator[Held]]
    """Its numbers as they are, then with one, two, ... affine operators behind it. Raises ReadError."""
    unreadable: str = ""
    """Why `read` gives nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Standing:
    """One multiplication or addition by constants that stands in the file, with the kind of its operator."""

    kind: str
    constants: Constants
    per_channel: bool


def by_channel(values: NDArray[_Any], axis: int) -> NDArray[_Any]:
    """(channels, fan-in) of a kernel whose output channels lie along `axis`."""
    moved: NDArray[_Any] = np.moveaxis(values, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def of_chain(steps: Sequence[Standing], channels: int) -> Iterator[Held]:
    """A chain, and every part of it that multiplies, as an operator of one weight a channel; the longest first.

    What comes before a batch norm's own steps may be a bias, what comes behind another layer's arithmetic.
    """
    nothing = np.zeros(channels)
    bare = Held(kernel=np.ones((channels, 1)), kernel_half=nothing, saturated=None, bias=nothing, bias_half=nothing)
    steps = steps[:_LONGEST_CHAIN]
    for length in range(len(steps), 0, -1):
        for start in range(len(steps) - length + 1):
            part = steps[start : start + length]
            if any(step.constants.multiplier is not None and (step.per_channel or channels == 1) for step in part):
                whole = Affine.identity(channels)
                for step in part:
                    whole = whole.then(step.constants)
                yield scaled(bare, whole, tuple(step.kind for step in part))


def scaled(bare: Held, by: Affine, behind: tuple[str, ...]) -> Held:
    """An operator with the steps behind it taken in."""
    factor = np.abs(by.multiplier)
    largest = np.abs(bare.kernel).max(axis=1)
    return replace(
        bare,
        kernel=bare.kernel * by.multiplier[:, None],
        kernel_half=bare.kernel_half * factor + by.multiplier_rounding * (largest + bare.kernel_half),
        bias=bare.bias * by.multiplier + by.addend,
        bias_half=bare.bias_half * factor + by.multiplier_rounding * np.abs(bare.bias) + by.addend_rounding,
        behind=behind,
    )
