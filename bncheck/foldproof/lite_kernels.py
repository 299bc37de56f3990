"""What a TFLite file holds where batch norm was folded: kernels and biases by output channel, with their rounding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bncheck.foldproof.kernel_places import Held, KernelPlace, Standing, by_channel, of_chain, scaled
from bncheck.recognise.integer_types import EXTREMES, SLACK
from bncheck.recognise.kernel_sizes import MAX_KERNEL
from bncheck.recognise.lite.by_lite import LinearOperator, linear_operators
from bncheck.recognise.lite.leftovers import Affine, Search, Step, chain_name, chains, only_reader
from bncheck.recognise.lite.values import Wiring, real, rounding, stored
from bncheck.sources.raw import RawLite, RawLiteTensor

_LARGEST_HALF = 65504.0
"""Of float16: what lay above it is infinite in the file, as what lay beyond an integer's range is cut off."""
_MOST_STEPS = 4
"""Affine operators looked at behind a linear one."""


def lite_places(lite: RawLite) -> tuple[tuple[KernelPlace, ...], tuple[KernelPlace, ...]]:
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
        read=partial(of_chain, [_standing(step) for step in steps], channels),
    )


def _standing(step: Step) -> Standing:
    return Standing(kind=step.operator.kind, constants=step, per_channel=step.axis is not None)


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
    flat = by_channel(kernel, linear.slots.axis)
    bias, bias_half = _bias(linear, flat.shape[0])
    if bias is None:
        return None
    return Held(
        kernel=flat,
        kernel_half=_kernel_half(linear.kernel, linear.slots.axis, kernel),
        saturated=by_channel(over, linear.slots.axis) if over is not None and over.any() else _saturated(linear),
        bias=bias,
        bias_half=bias_half,
    )


def _kernel_half(tensor: RawLiteTensor, axis: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    if tensor.dtype in ("float32", "float64") and tensor.quantization is None:
        return np.zeros(tensor.shape[axis])
    return np.asarray(SLACK * by_channel(rounding(tensor, np.abs(values)), axis).max(axis=1))


def _saturated(linear: LinearOperator) -> NDArray[np.bool_] | None:
    tensor = linear.kernel
    if tensor.dtype not in EXTREMES or tensor.quantization is None:
        return None
    values = stored(tensor)
    if values is None:
        return None
    low, high = EXTREMES[tensor.dtype]
    return by_channel((values <= low) | (values >= high), linear.slots.axis)


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
    half = rounding(tensor, np.abs(values).reshape(tensor.shape)).reshape(-1) * SLACK
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
        yield scaled(bare, whole, tuple(kinds))
