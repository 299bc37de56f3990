"""What an ONNX file holds where batch norm was folded: real kernels and biases by output channel, with their rounding.

Read are floats, weights behind DequantizeLinear (QDQ), and the operators on integers of onnxruntime's QOperator format.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.foldproof.kernel_places import Held, KernelPlace, Standing, of_chain, scaled
from bncheck.numerics.fold import folded
from bncheck.recognise.integer_types import SLACK
from bncheck.recognise.kernel_sizes import MAX_KERNEL
from bncheck.recognise.lite.leftovers import Affine
from bncheck.recognise.onnx.affine_nodes import AffineNode, affine_node, follower
from bncheck.recognise.onnx.nodes import OnnxNode, epsilon_of, in_train_mode, integer, is_batch_norm, number
from bncheck.recognise.onnx.values import OnnxNumbers, OnnxWiring
from bncheck.sources.raw import RawModel

Array = NDArray[np.float64]

_MOST_STEPS = 4
"""Affine nodes looked at behind a linear one."""
_INTEGERS = {"MatMulInteger": 1, "ConvInteger": 1, "DynamicQuantizeMatMul": 1}
"""Op of dynamic quantization -> input that is the kernel."""


_MATRICES = ("MatMul", "Gemm", "QLinearMatMul", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul")


class _Inputs(NamedTuple):
    """Which inputs of a linear node are what."""

    kernel: int
    scale: int | None = None
    zero: int | None = None
    bias: int | None = None
    input_scale: int | None = None


_LINEAR = {
    "Conv": _Inputs(1, bias=2),
    "FusedConv": _Inputs(1, bias=2),
    "ConvTranspose": _Inputs(1, bias=2),
    "Gemm": _Inputs(1, bias=2),
    "MatMul": _Inputs(1),
    "QLinearConv": _Inputs(3, 4, 5, 8, 1),
    "QLinearMatMul": _Inputs(3, 4, 5, None, 1),
    "QGemm": _Inputs(3, 4, 5, 6, 1),
}


def onnx_places(raw: RawModel) -> tuple[tuple[KernelPlace, ...], tuple[KernelPlace, ...]]:
    """(linear nodes with a constant kernel, chains of affine nodes), each in the order of the nodes.

    Raises ReadError where a constant is damaged.
    """
    graph = OnnxWiring.of(raw)
    steps = {number: step for number, node in enumerate(graph.nodes) if (step := _step(graph, node)) is not None}
    linear = [
        place for number, node in enumerate(graph.nodes) if (place := _linear(graph, number, node, steps)) is not None
    ]
    return tuple(linear), tuple(_chains(graph, steps))


def _linear(
    graph: OnnxWiring, number: int, node: OnnxNode, steps: Mapping[int, tuple[Standing, ...]]
) -> KernelPlace | None:
    integers = _INTEGERS.get(node.op_type)
    slots = _LINEAR.get(node.op_type) if integers is None else _Inputs(integers)
    tensor = None if slots is None else graph.tensor(graph.given(node, slots.kernel))
    shape = None if slots is None else graph.shape(graph.given(node, slots.kernel))
    if tensor is None or slots is None or shape is None or 0 in shape or not _channels(node, shape):
        return None
    channels, size = _channels(node, shape), math.prod(shape)
    unreadable = "" if integers is None else "its kernel's scale is in another node: dynamic quantization is not read"
    if size > MAX_KERNEL // 4:
        unreadable = f"its kernel of {size:,} weights is too large to be read"
    return KernelPlace(
        name=node.label,
        kind=node.op_type,
        order=(0, number),
        channels=channels,
        fan_in=size // channels,
        read=partial(_read, graph, number, slots, steps) if not unreadable else partial(iter, ()),
        unreadable=unreadable or tensor.unavailable or "",
    )


def _channels(node: OnnxNode, shape: tuple[int, ...]) -> int:
    """Output channels of a kernel; 0 where its rank is not the op's."""
    kind, rank = node.op_type, len(shape)
    if kind in _MATRICES:
        return 0 if rank != 2 else shape[0] if integer(node, "transB", 0) else shape[1]
    if rank < 3:
        return 0
    groups = integer(node, "group", 1)
    if kind == "ConvTranspose":
        return shape[1] * groups if groups > 0 and shape[0] % groups == 0 else 0
    return shape[0]


def _by_channel(node: OnnxNode, kernel: NDArray[Any]) -> NDArray[Any] | None:
    """(channels, fan-in) of a kernel, the fan-in in TensorFlow's order; None where the rank is not the op's."""
    kind = node.op_type
    if not _channels(node, kernel.shape):
        return None
    if kind in _MATRICES:
        return kernel if integer(node, "transB", 0) else kernel.T
    if kind == "ConvTranspose":
        groups = integer(node, "group", 1)
        grouped = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
        kernel = np.moveaxis(grouped, 1, 2).reshape(-1, grouped.shape[1], *kernel.shape[2:])
    return np.moveaxis(kernel, 1, -1).reshape(kernel.shape[0], -1)


def _read(graph: OnnxWiring, number: int, slots: _Inputs, steps: Mapping[int, tuple[Standing, ...]]) -> Iterator[Held]:
    """A linear node's numbers as they are, then with one, two, ... affine nodes behind it. Raises ReadError."""
    node = graph.nodes[number]
    bare = _bare(graph, node, slots)
    if bare is None:
        return
    behind = _following(graph, number, steps)
    if not bare.bias.any() and behind and slots.bias is None and graph.nodes[behind[0]].op_type == "Add":
        bare = _with(bare, steps[behind[0]], ())  # a dense layer's bias
        behind = behind[1:]
    yield bare
    whole, kinds = Affine.identity(bare.bias.size), []
    for place in behind:
        if any(_width(step) not in (1, bare.bias.size) for step in steps[place]):
            return
        for step in steps[place]:
            whole = whole.then(step.constants)
        kinds.append(graph.nodes[place].op_type)
        yield scaled(bare, whole, tuple(kinds))


def _with(bare: Held, steps: Sequence[Standing], kinds: tuple[str, ...]) -> Held:
    whole = Affine.identity(bare.bias.size)
    for step in steps:
        whole = whole.then(step.constants)
    return scaled(bare, whole, kinds)


def _width(step: Standing) -> int:
    values = step.constants.multiplier if step.constants.addend is None else step.constants.addend
    return 1 if values is None else int(values.size)


def _bare(graph: OnnxWiring, node: OnnxNode, slots: _Inputs) -> Held | None:
    name = graph.given(node, slots.kernel)
    if slots.scale is None:
        kernel = graph.numbers(name)
    else:
        axis = 1 if node.op_type in ("QLinearMatMul", "QGemm") else 0
        if node.op_type == "QGemm" and integer(node, "transB", 0):
            axis = 0
        kernel = graph.dequantized(name, graph.given(node, slots.scale), graph.given(node, slots.zero), axis=axis)
    flat = None if kernel is None else _by_channel(node, kernel.values)
    if kernel is None or flat is None:
        return None
    bias = _bias(graph, node, slots, flat.shape[0])
    half = _by_channel(node, np.broadcast_to(kernel.half, kernel.values.shape))
    cut_off = None if kernel.cut_off is None else _by_channel(node, kernel.cut_off)
    if bias is None or half is None:
        return None
    alpha = number(node, "alpha", 1.0) if node.op_type in ("Gemm", "QGemm") else 1.0
    return Held(
        kernel=alpha * flat,
        kernel_half=abs(alpha) * half.max(axis=1),
        saturated=cut_off,
        bias=bias.values,
        bias_half=np.broadcast_to(bias.half, bias.values.shape),
    )


def _bias(graph: OnnxWiring, node: OnnxNode, slots: _Inputs, channels: int) -> OnnxNumbers | None:
    """(channels,); zeros where the node has none, None where it is computed or of another length."""
    name = graph.given(node, slots.bias)
    if not name:
        return OnnxNumbers(values=np.zeros(channels), half=np.zeros(channels))
    found = graph.numbers(name)
    if found is not None and slots.scale is not None:
        scales = [graph.numbers(graph.given(node, slot)) for slot in (slots.input_scale, slots.scale)]
        if scales[0] is None or scales[1] is None:
            return None
        step = (scales[0].values.reshape(-1) * scales[1].values.reshape(-1)).reshape(-1)
        found = OnnxNumbers(values=found.values.reshape(-1) * step, half=0.5 * SLACK * np.abs(step))
    if found is None or found.values.size != channels:
        return None
    beta = number(node, "beta", 1.0) if node.op_type == "Gemm" else 1.0
    half = np.broadcast_to(found.half, found.values.shape).reshape(-1)
    return replace(found, values=beta * found.values.reshape(-1), half=abs(beta) * half, cut_off=None)


def _step(graph: OnnxWiring, node: OnnxNode) -> tuple[Standing, ...] | None:
    """A node as multiplications and additions by constants; None where it is none."""
    if is_batch_norm(node):
        return None if in_train_mode(node) else _of_batch_norm(graph, node)
    step = affine_node(graph, node)
    return None if step is None else (Standing(kind=node.op_type, constants=step, per_channel=step.axis is not None),)


def _of_batch_norm(graph: OnnxWiring, node: OnnxNode) -> tuple[Standing, ...] | None:
    """Its scale, then its addend. A quantizer may have rounded gamma and beta."""
    vectors = [vector for name in node.input[1:5] if (vector := graph.numbers(name)) is not None]
    if len(vectors) != 4 or len({vector.values.size for vector in vectors}) != 1:
        return None
    gamma, beta, mean, variance = (vector.values.reshape(-1) for vector in vectors)
    scale, addend = folded(gamma, beta, mean, variance, epsilon_of(node))
    of_gamma, of_beta = (np.broadcast_to(vector.half, vector.values.shape).reshape(-1) for vector in vectors[:2])
    with np.errstate(all="ignore"):
        of_scale = of_gamma / np.sqrt(variance + epsilon_of(node))
    parts = (
        AffineNode(multiplier=scale, rounding=of_scale),
        AffineNode(addend=addend, rounding=of_beta + np.abs(mean) * of_scale),
    )
    return tuple(Standing(kind=node.op_type, constants=part, per_channel=True) for part in parts)


def _following(graph: OnnxWiring, number: int, steps: Mapping[int, tuple[Standing, ...]]) -> list[int]:
    found: list[int] = []
    at: int | None = number
    while len(found) <= _MOST_STEPS and at is not None:
        at = follower(graph, at, steps)
        if at is not None:
            found.append(at)
    return found


def _chains(graph: OnnxWiring, steps: Mapping[int, tuple[Standing, ...]]) -> Iterator[KernelPlace]:
    """Affine nodes that follow one another, each chain as long as it goes."""
    behind = {number: follower(graph, number, steps) for number in steps}
    continued = {following for following in behind.values() if following is not None}
    for first in steps:
        if first in continued:
            continue
        numbers: list[int] = []
        at: int | None = first
        while at is not None and at not in numbers:
            numbers.append(at)
            at = behind[at]
        chain = [step for number in numbers for step in steps[number]]
        channels = max(map(_width, chain))
        if all(_width(step) in (1, channels) for step in chain):
            yield KernelPlace(
                name=graph.nodes[first].label,
                kind=" + ".join(graph.nodes[number].op_type for number in numbers),
                order=(0, first),
                channels=channels,
                fan_in=1,
                read=partial(of_chain, chain, channels),
            )
