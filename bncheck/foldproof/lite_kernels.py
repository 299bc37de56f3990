"""What a TFLite file holds where batch norm was folded: real kernels and biases by output channel, with their rounding.

Kernels of all kinds are brought to one form, (channels, fan-in), in which TensorFlow's and TFLite's layouts agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.kernel_sizes import MAX_KERNEL
from bncheck.recognise.lite.by_lite import LinearOperator, linear_operators
from bncheck.recognise.lite.leftovers import Affine, Search, Step, chain_name, chains, only_reader
from bncheck.recognise.lite.values import Wiring, real, rounding, stored
from bncheck.sources.raw import RawLite, RawLiteTensor

_Any = TypeVar("_Any", bound=np.generic)

TINY = 1e-35
"""Differences that float32 loses where numbers become subnormal and are flushed to zero."""

_SLACK = 1.01
"""On half a step: the quotient that is rounded has itself been rounded in float32."""
_EXTREMES = {"int8": (-127, 127), "uint8": (0, 255), "int4": (-7, 7), "int16": (-32767, 32767), "int2": (-1, 1)}
_LONGEST_CHAIN = 8
_LARGEST_HALF = 65504.0
"""Of float16: what lay above it is infinite in the file, as what lay beyond an integer's range is cut off."""
_MOST_STEPS = 4
"""Affine operators looked at behind a linear one."""


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


def places(lite: RawLite) -> tuple[tuple[KernelPlace, ...], tuple[KernelPlace, ...]]:
    """(linear operators with a constant kernel, chains of affine operators), each in execution order.

    Raises ReadError where a constant is damaged.
    """
    linear: list[KernelPlace] = []
    affine: list[KernelPlace] = []
    for number, subgraph in enumerate(lite.subgraphs):
        wiring = Wiring.of(subgraph)
        search = Search.of(wiring)
        prefix = f"subgraph {number}: " if number else ""
        for operator in linear_operators(wiring, prefix):
            channels = operator.kernel.shape[operator.slots.axis]
            size = int(np.prod(operator.kernel.shape, dtype=np.int64))
            if channels <= 0 or size <= 0:
                continue
            linear.append(
                KernelPlace(
                    name=operator.name,
                    kind=operator.operator.kind,
                    order=(number, operator.operator.index),
                    channels=channels,
                    fan_in=size // channels,
                    read=partial(_linear, operator, search),
                    unreadable=_unreadable(operator, size),
                )
            )
        affine.extend(_chain(steps, search, number, prefix) for steps in chains(search))
    return tuple(linear), tuple(affine)


def _chain(steps: Sequence[Step], search: Search, number: int, prefix: str) -> KernelPlace:
    data = search.wiring.optional(steps[0].data)
    channels = 0 if data is None or steps[0].axis is None else data.shape[steps[0].axis]
    return KernelPlace(
        name=prefix + chain_name(steps, search.wiring),
        kind=" + ".join(step.operator.kind for step in steps),
        order=(number, steps[0].operator.index),
        channels=channels,
        fan_in=1,
        read=partial(_affine, steps, channels),
    )


def _affine(steps: Sequence[Step], channels: int) -> Iterator[Held]:
    """A chain, and every part of it that multiplies, as an operator of one weight a channel; the longest first.

    What comes before a batch norm's own steps may be a bias, what comes behind another layer's arithmetic.
    """
    nothing = np.zeros(channels)
    bare = Held(kernel=np.ones((channels, 1)), kernel_half=nothing, saturated=None, bias=nothing, bias_half=nothing)
    steps = steps[:_LONGEST_CHAIN]
    for length in range(len(steps), 0, -1):
        for start in range(len(steps) - length + 1):
            part = steps[start : start + length]
            if any(step.multiplier is not None and step.axis is not None for step in part):
                whole = Affine.identity(channels)
                for step in part:
                    whole = whole.then(step)
                yield _scaled(bare, whole, tuple(step.operator.kind for step in part))


def _linear(operator: LinearOperator, search: Search) -> Iterator[Held]:
    bare = _bare(operator)
    if bare is not None:
        yield bare
        yield from _with_tails(operator, search, bare)


def _unreadable(linear: LinearOperator, size: int) -> str:
    data = linear.kernel.data
    if linear.operator.shuffled:
        return "its kernel is stored in shuffled blocks"
    if data is not None and data.unavailable is not None:
        return data.unavailable
    if linear.rotation is not None:
        return "its kernel is turned by a Hadamard matrix, in which rounding mixes the weights"
    if size > MAX_KERNEL // 4:
        return f"its kernel of {size:,} weights is too large to be read"
    return ""


def _bare(linear: LinearOperator) -> Held | None:
    kernel = None if _unreadable(linear, 0) else real(linear.kernel)
    if kernel is None:
        return None
    over = np.isinf(kernel) if linear.kernel.dtype == "float16" else None
    if over is not None:
        kernel = np.where(over, np.copysign(_LARGEST_HALF, kernel), kernel)
    flat = _by_channel(kernel, linear.slots.axis)
    bias, bias_half = _bias(linear, flat.shape[0])
    if bias is None:
        return None
    return Held(
        kernel=flat,
        kernel_half=_kernel_half(linear.kernel, linear.slots.axis, kernel),
        saturated=_by_channel(over, linear.slots.axis) if over is not None and over.any() else _saturated(linear),
        bias=bias,
        bias_half=bias_half,
    )


def _by_channel(values: NDArray[_Any], axis: int) -> NDArray[_Any]:
    moved: NDArray[_Any] = np.moveaxis(values, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _kernel_half(tensor: RawLiteTensor, axis: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if tensor.dtype in ("float32", "float64") and tensor.quantization is None:
        return np.zeros(tensor.shape[axis])
    return np.asarray(_SLACK * _by_channel(rounding(tensor, np.abs(values)), axis).max(axis=1))


def _saturated(linear: LinearOperator) -> NDArray[np.bool_] | None:
    tensor = linear.kernel
    if tensor.dtype not in _EXTREMES or tensor.quantization is None:
        return None
    values = stored(tensor)
    if values is None:
        return None
    low, high = _EXTREMES[tensor.dtype]
    return _by_channel((values <= low) | (values >= high), linear.slots.axis)


def _bias(linear: LinearOperator, channels: int) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """(bias, half a step); (None, ...) where one is computed or cannot be read."""
    nothing = np.zeros(channels)
    slot = linear.slots.bias
    if slot >= len(linear.operator.inputs) or linear.operator.inputs[slot] < 0:
        return nothing, nothing
    tensor = linear.bias
    values = None if tensor is None else real(tensor)
    if tensor is None or values is None or values.size != channels:
        return None, nothing
    values = values.reshape(-1)
    half = rounding(tensor, np.abs(values).reshape(tensor.shape)).reshape(-1) * _SLACK
    if tensor.dtype == "float16":
        over = np.isinf(values)
        return np.where(over, np.copysign(_LARGEST_HALF, values), values), np.where(over, np.inf, half)
    if tensor.dtype != "int32":
        return values, half
    steps = stored(tensor)
    cut_off = np.zeros(channels, bool) if steps is None else np.abs(steps.astype(np.int64)).reshape(-1) >= 2**31 - 1
    return values, np.where(cut_off, np.inf, half)


def _with_tails(linear: LinearOperator, search: Search, bare: Held) -> Iterator[Held]:
    """The same with each further MUL, DIV, ADD or SUB by constants that alone reads what came before."""
    operator, channels = linear.operator, bare.bias.size
    whole = Affine.identity(channels)
    kinds: list[str] = []
    for _ in range(_MOST_STEPS):
        follower = only_reader(operator, search.wiring) if operator.activation == "NONE" else None
        step = None if follower is None else search.steps.get(follower.index)
        if step is None or step.data != operator.outputs[0]:
            return
        data = search.wiring.optional(step.data)
        if step.axis is not None and (data is None or step.axis != len(data.shape) - 1):
            return
        sizes = [np.size(values) for values in (step.multiplier, step.addend) if values is not None]
        if any(size not in (1, channels) for size in sizes):
            return
        whole, operator = whole.then(step), step.operator
        kinds.append(operator.kind)
        yield _scaled(bare, whole, tuple(kinds))


def _scaled(bare: Held, by: Affine, behind: tuple[str, ...]) -> Held:
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
