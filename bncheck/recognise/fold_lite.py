"""What a TFLite file holds where batch norm was folded: real kernels and biases by output channel, with their rounding.

Kernels of all kinds are brought to one form, (channels, fan-in), in which TensorFlow's and TFLite's layouts agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.by_lite import LinearOperator, linear_operators
from bncheck.recognise.kernels import MAX_KERNEL
from bncheck.recognise.lite_leftovers import Affine, Search, only_reader
from bncheck.recognise.lite_values import Wiring, half_step, real, stored
from bncheck.sources.raw import RawLite, RawLiteTensor

TINY = 1e-35
"""Differences that float32 loses where numbers become subnormal and are flushed to zero."""

_SLACK = 1.01
"""On half a step: the quotient that is rounded has itself been rounded in float32."""
_EXTREMES = {"int8": (-127, 127), "uint8": (0, 255), "int4": (-7, 7), "int16": (-32767, 32767), "int2": (-1, 1)}
_HALF_PRECISION = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 0.0)}
"""Of each type, the largest relative error of rounding, and the absolute one below its smallest normal number."""
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
class Place:
    """One linear operator that may hold a layer; its numbers are read on demand."""

    name: str
    kind: str
    index: int
    """Position among the file's linear operators."""
    channels: int
    fan_in: int
    linear: LinearOperator
    search: Search
    unreadable: str
    """Why its kernel cannot be read; empty where it can."""

    def read(self) -> tuple[Held, ...]:
        """Its numbers as they are, then with one, two, ... affine operators behind it. Raises ReadError."""
        if self.unreadable:
            return ()
        bare = _bare(self)
        return () if bare is None else (bare, *_with_tails(self, bare))


def places(lite: RawLite) -> tuple[Place, ...]:
    """All linear operators with a constant kernel, in execution order. Raises ReadError where a constant is damaged."""
    found: list[Place] = []
    for number, subgraph in enumerate(lite.subgraphs):
        wiring = Wiring.of(subgraph)
        search = Search.of(wiring)
        for linear in linear_operators(wiring, f"subgraph {number}: " if number else ""):
            channels = linear.kernel.shape[linear.slots.axis]
            size = int(np.prod(linear.kernel.shape, dtype=np.int64))
            if channels <= 0 or size <= 0:
                continue
            found.append(
                Place(
                    name=linear.name,
                    kind=linear.operator.kind,
                    index=len(found),
                    channels=channels,
                    fan_in=size // channels,
                    linear=linear,
                    search=search,
                    unreadable=_unreadable(linear, size),
                )
            )
    return tuple(found)


def _unreadable(linear: LinearOperator, size: int) -> str:
    data = linear.kernel.data
    if linear.operator.shuffled:
        return "its kernel is stored in shuffled blocks"
    if data is not None and data.unavailable is not None:
        return data.unavailable
    if size > MAX_KERNEL // 4:
        return f"its kernel of {size:,} weights is above what is read"
    return ""


def _bare(place: Place) -> Held | None:
    linear = place.linear
    kernel = real(linear.kernel)
    if kernel is None:
        return None
    flat = _by_channel(kernel, linear.slots.axis)
    bias, bias_half = _bias(linear, place.channels)
    if bias is None:
        return None
    return Held(
        kernel=flat,
        kernel_half=_kernel_half(linear.kernel, linear.slots.axis, flat),
        saturated=_saturated(linear.kernel, linear.slots.axis),
        bias=bias,
        bias_half=bias_half,
    )


def _by_channel(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = np.moveaxis(values, axis, 0)
    return moved.reshape(moved.shape[0], -1)


def _kernel_half(tensor: RawLiteTensor, axis: int, flat: NDArray[np.float64]) -> NDArray[np.float64]:
    if tensor.dtype in _HALF_PRECISION:
        return _rounding(tensor.dtype, np.abs(flat).max(axis=1))
    halves = half_step(tensor)
    if isinstance(halves, float):
        return np.full(flat.shape[0], halves * _SLACK)
    along = [1] * len(tensor.shape)
    along[tensor.quantization.axis if tensor.quantization is not None else 0] = halves.size
    spread = np.broadcast_to(halves.reshape(along), tensor.shape)
    return np.asarray(_SLACK * _by_channel(np.asarray(spread), axis).max(axis=1))


def _rounding(dtype: str, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    relative, absolute = _HALF_PRECISION[dtype]
    return relative * sizes * _SLACK + absolute


def _saturated(tensor: RawLiteTensor, axis: int) -> NDArray[np.bool_] | None:
    if tensor.dtype not in _EXTREMES or tensor.quantization is None:
        return None
    values = stored(tensor)
    if values is None:
        return None
    low, high = _EXTREMES[tensor.dtype]
    mask: NDArray[np.bool_] = np.moveaxis((values <= low) | (values >= high), axis, 0)
    return mask.reshape(mask.shape[0], -1)


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
    if tensor.dtype in _HALF_PRECISION:
        return values, _rounding(tensor.dtype, np.abs(values))
    half = np.broadcast_to(np.asarray(half_step(tensor)), (channels,)) * _SLACK
    if tensor.dtype != "int32":
        return values, half
    steps = stored(tensor)
    cut_off = np.zeros(channels, bool) if steps is None else np.abs(steps.astype(np.int64)).reshape(-1) >= 2**31 - 1
    return values, np.where(cut_off, np.inf, half)


def _with_tails(place: Place, bare: Held) -> Iterator[Held]:
    """The same with each further MUL, DIV, ADD or SUB by constants that alone reads what came before."""
    operator, search = place.linear.operator, place.search
    whole = Affine.identity(place.channels)
    kinds: list[str] = []
    for _ in range(_MOST_STEPS):
        follower = only_reader(operator, search.wiring) if operator.activation == "NONE" else None
        step = None if follower is None else search.steps.get(follower.index)
        if step is None or step.data != operator.outputs[0]:
            return
        data = search.wiring.tensor(step.data)
        if step.axis is not None and (data is None or step.axis != len(data.shape) - 1):
            return
        sizes = [np.size(values) for values in (step.multiplier, step.addend) if values is not None]
        if any(size not in (1, place.channels) for size in sizes):
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
