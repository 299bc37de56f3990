"""The ONNX graph between two batch norms -> what the second one's weights predict to arrive at it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import replace
from bncheck.numerics.propagation import (
    KernelAxis,
    Signal,
    applied,
    averaged,
    gated,
    joined,
    largest,
    summed,
    through_kernel,
)
from bncheck.recognise.kernel_sizes import is_read
from bncheck.recognise.onnx.nodes import OnnxNode, integer
from bncheck.recognise.onnx.values import OnnxWiring
from bncheck.recognise.predicted.after_batch_norm import after_batch_norm, guessed
from bncheck.recognise.predicted.onnx_functions import function_of
from bncheck.recognise.predicted.onnx_shapes import Shape, shape_behind, windows_of

Array = NDArray[np.float64]

_AS_IT_IS = frozenset({"Identity", "Dropout", "Cast", "QuantizeLinear", "DequantizeLinear"})
_OF_WHOLE_MAPS = frozenset({"Flatten", "Squeeze"})
"""Ops that leave channels as they are where maps have one place."""
_ARITHMETIC = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
_FEW_PLACES = 4
"""Along an axis of a map, of which a kernel that skips some sees those that are no mean of all; a guess."""
_TO_LAST, _TO_SECOND = (0, 2, 3, 1), (0, 3, 1, 2)


def with_predictions(wiring: OnnxWiring, layers: Sequence[Layer], by_node: Mapping[int, str]) -> list[Layer]:
    """The layers, those with `predicted` whose input comes from other batch norms through ops that are understood.

    `by_node` names the layer that a node is, by its `id`. Raises ReadError where a kernel is damaged.
    """
    named = {layer.name: layer for layer in layers}
    walk = _OnnxWalk(wiring=wiring)
    walk.shapes.update(wiring.inputs)
    for node in wiring.nodes:
        layer = named.get(by_node.get(id(node), ""))
        if layer is not None and len(layer.sites) == 1 and layer.mean.values is not None and node.input:
            walk.found[layer.name] = walk.arriving_at(node.input[0], layer)
        walk.pass_on(node, layer)
    return [replace(layer, predicted=walk.found.get(layer.name)) for layer in layers]


@dataclass(kw_only=True, eq=False)
class _OnnxWalk:
    """Signals and shapes by the names of values: nodes stand in topological order."""

    wiring: OnnxWiring
    signals: dict[str, Signal] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    channels_last: set[str] = field(default_factory=set)
    mixed: set[str] = field(default_factory=set)
    """Sums, products, poolings and the like, and what is made of them: how far channels vary together is not known."""
    arriving: dict[str, Predicted] = field(default_factory=dict)
    """What linear nodes make of signals."""
    found: dict[str, Predicted | None] = field(default_factory=dict)

    def arriving_at(self, name: str, layer: Layer) -> Predicted | None:
        """What arrives at a batch norm."""
        node = self.wiring.producers.get(name)
        while node is not None and node.op_type in _AS_IT_IS and node.input:
            name = node.input[0]
            node = self.wiring.producers.get(name)
        known = self.arriving.get(name)
        return known if known is not None and known.mean.size == layer.channels else None

    def pass_on(self, node: OnnxNode, layer: Layer | None) -> None:
        """Notes what a node gives, as far as it is understood."""
        if not node.output or not node.output[0]:
            return
        out = node.output[0]
        shape = shape_behind(self.wiring, node, self.shapes)
        if shape is not None:
            self.shapes[out] = shape
        if layer is not None:
            signal = after_batch_norm(layer)
        elif node.op_type == "Split":
            self._split(node)
            return
        else:
            signal = self._signal(node, out)
        if signal is None:
            return
        self.signals[out] = signal
        if layer is None and (signal.of == out or not self.mixed.isdisjoint(node.input)):
            self.mixed.add(out)
        if node.op_type == "Transpose":
            turned = tuple(node.attributes["perm"].ints) == _TO_LAST
            self.channels_last.update([out] if turned else [])
        elif any(name in self.channels_last for name in node.input):
            self.channels_last.add(out)

    def _signal(self, node: OnnxNode, out: str) -> Signal | None:
        op, first = node.op_type, self.signals.get(self.wiring.given(node, 0))
        if op in ("Conv", "Gemm", "MatMul"):
            made = self._linear(node, self.signals.get(self._within_zeros(node)))
            if made is not None and self._within_zeros(node) in self.mixed:
                made = replace(made, spread_known=False)
            if made is not None:
                self.arriving[out] = made
            return None if made is None else guessed(made, of=out)
        if op in _ARITHMETIC and len(node.input) == 2:
            return self._arithmetic(node, out)
        if op == "Concat":
            parts = [self.signals.get(name) for name in node.input]
            rank = len(self.shapes.get(node.input[0]) or ()) if node.input else 0
            along = integer(node, "axis", 0)
            second = along == 1 or (rank > 0 and along == 1 - rank)
            return joined(parts, of=out) if second and not self.channels_last.intersection(node.input) else None
        if first is None:
            return None
        if op in _AS_IT_IS or (op in _OF_WHOLE_MAPS and self._is_of_whole_maps(node.input[0])):
            return first
        if op == "Transpose":
            told = node.attributes.get("perm")
            fitting = _TO_SECOND if node.input[0] in self.channels_last else _TO_LAST
            return first if told is not None and tuple(told.ints) == fitting else None
        if op == "GlobalAveragePool" or (op == "ReduceMean" and self._over_maps(node)):
            return averaged(first, of=out)
        if op in ("AveragePool", "MaxPool"):
            places = math.prod(node.attributes["kernel_shape"].ints) if "kernel_shape" in node.attributes else 1
            return (averaged if op == "AveragePool" else largest)(first, places, of=out)
        function = function_of(self.wiring, node, lambda name: self._per_channel(name, node.input[0]))
        return None if function is None else applied(function, first)

    def _linear(self, node: OnnxNode, arriving: Signal | None) -> Predicted | None:
        """What a convolution or dense layer makes of its input, bias included."""
        kernel = None if arriving is None else self._kernel(node)
        if kernel is None or arriving is None:
            return None
        if node.op_type != "Conv":
            kernel = kernel.T if integer(node, "transB", 0) else kernel
            plain = all(node.attributes[name].f == 1 for name in ("alpha", "beta") if name in node.attributes)
            fits = plain and kernel.shape[0] == arriving.values.shape[1] and not integer(node, "transA", 0)
            return self._with_bias(node, through_kernel(arriving, kernel)) if fits else None
        windows = windows_of(self.wiring, node, self.shapes, kernel.shape[2:])
        if windows is None or node.input[0] in self.channels_last:
            return None
        found = self._with_bias(node, _convolved(arriving, kernel, windows, integer(node, "group", 1)))
        skips = any(one.stride > one.kernel and one.size is not None and one.size <= _FEW_PLACES for one in windows)
        return replace(found, rough=True) if found is not None and skips else found

    def _within_zeros(self, node: OnnxNode) -> str:
        """What a convolution reads, without the zeros that a Pad puts around it."""
        name = self.wiring.given(node, 0)
        before = self.wiring.producers.get(name)
        return before.input[0] if before is not None and before.op_type == "Pad" and node.op_type == "Conv" else name

    def _kernel(self, node: OnnxNode) -> Array | None:
        name = self.wiring.given(node, 1)
        tensor, shape = self.wiring.tensor(name), self.wiring.shape(name)
        ranks = (3, 4, 5) if node.op_type == "Conv" else (2,)
        if tensor is None or shape is None or not is_read(tensor) or len(shape) not in ranks:
            return None
        known = self.wiring.numbers(name)
        return None if known is None else known.values

    def _bias(self, node: OnnxNode, channels: int) -> Array | None:
        name = self.wiring.given(node, 2)
        if not name:
            return np.zeros(channels)
        known = self.wiring.numbers(name)
        return known.values.reshape(-1) if known is not None and known.values.size == channels else None

    def _with_bias(self, node: OnnxNode, found: Predicted | None) -> Predicted | None:
        bias = None if found is None else self._bias(node, found.mean.size)
        return None if found is None or bias is None else replace(found, mean=found.mean + bias)

    def _arithmetic(self, node: OnnxNode, out: str) -> Signal | None:
        """Two functions of the same variables, a signal and weights, or the sum or product of two signals."""
        op, known = node.op_type, [self.signals.get(name) for name in node.input]
        if known[0] is not None and known[1] is not None:
            if known[0].of != known[1].of or op == "Mul":
                return gated(*known, of=out) if op == "Mul" else summed(known, of=out) if op == "Add" else None
            return summed(known, of=out) if op == "Add" else None
        at = 0 if known[0] is not None else 1
        signal = known[at]
        vector = None if signal is None else self._per_channel(node.input[1 - at], node.input[at])
        if signal is None or vector is None or vector.size not in (1, signal.values.shape[1]):
            return None
        operands = (signal.values, vector) if at == 0 else (vector, signal.values)
        with np.errstate(all="ignore"):
            values = _ARITHMETIC[op](*operands)
        if op == "Div" and at == 1:
            return None
        if op == "Add" and (made := self.arriving.get(node.input[at])) is not None:  # a dense layer's bias
            self.arriving[out] = replace(made, mean=made.mean + vector)
        return replace(signal, values=values)

    def _per_channel(self, name: str, beside: str) -> Array | None:
        """A constant that is one number, or one for each channel of another value; None for anything else."""
        tensor, shape = self.wiring.tensor(name), self.wiring.shape(name)
        if tensor is None or shape is None or not is_read(tensor) or sum(size > 1 for size in shape) > 1:
            return None
        known = self.wiring.numbers(name)
        if known is None or known.values.size == 1:
            return None if known is None else known.values.reshape(-1)
        rank = len(self.shapes.get(beside) or ())
        place = rank - 1 if beside in self.channels_last else 1
        aligned = (1,) * (rank - len(shape)) + shape
        return known.values.reshape(-1) if len(aligned) == rank > place and aligned[place] > 1 else None

    def _split(self, node: OnnxNode) -> None:
        """Each output's channels, where the sizes are told or alike."""
        signal = self.signals.get(self.wiring.given(node, 0))
        if signal is None or integer(node, "axis", 0) != 1 or node.input[0] in self.channels_last:
            return
        channels, count = signal.values.shape[1], len(node.output)
        told = node.attributes.get("split")
        given = None if len(node.input) < 2 else self.wiring.numbers(node.input[1])
        if len(node.input) > 1 and node.input[1]:
            sizes = [] if given is None else [int(one) for one in given.values.reshape(-1)]
        else:
            sizes = list(told.ints) if told is not None else [channels // count] * count
        if len(sizes) != count or sum(sizes) != channels or min(sizes) < 1:
            return
        start = 0
        whole = self.shapes.get(node.input[0])
        for name, size in zip(node.output, sizes, strict=True):
            part = signal.values[:, start : start + size]
            self.signals[name] = replace(signal, values=part, of=(signal.of, start, size))
            if whole is not None:
                self.shapes[name] = (whole[0], size, *whole[2:])
            start += size

    def _over_maps(self, node: OnnxNode) -> bool:
        """Whether a ReduceMean takes the mean of each channel's map, or of a part of it."""
        axes, rank = self.wiring.axes(node), len(self.shapes.get(node.input[0]) or ())
        if not axes or not rank:
            return False
        last = node.input[0] in self.channels_last
        return {axis % rank for axis in axes} <= set(range(1, rank - 1) if last else range(2, rank))

    def _is_of_whole_maps(self, name: str) -> bool:
        shape = self.shapes.get(name)
        return shape is not None and len(shape) > 1 and all(size == 1 for size in shape[2:])


def _channels_last(kernel: Array) -> Array:
    """(out, in, *taps) -> (*taps, in, out)."""
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _convolved(arriving: Signal, kernel: Array, windows: Sequence[KernelAxis], groups: int) -> Predicted | None:
    """`through_kernel` of each group of channels, the outcomes side by side."""
    entering = arriving.values.shape[1]
    if groups < 1 or entering % groups or kernel.shape[0] % groups or kernel.shape[1] != entering // groups:
        return None
    if groups == entering:
        one_each = kernel.reshape(entering, -1, *kernel.shape[2:])  # (in, multiplier, *taps)
        return through_kernel(arriving, np.moveaxis(one_each, (0, 1), (-2, -1)), windows, depthwise=True)
    values, kernels = np.split(arriving.values, groups, axis=1), np.split(kernel, groups)
    found = [
        through_kernel(replace(arriving, values=part), _channels_last(of_part), windows)
        for part, of_part in zip(values, kernels, strict=True)
    ]
    known = [one for one in found if one is not None]
    if len(known) != groups:
        return None
    return replace(
        known[0],
        mean=np.concatenate([one.mean for one in known]),
        variance=np.concatenate([one.variance for one in known]),
    )
