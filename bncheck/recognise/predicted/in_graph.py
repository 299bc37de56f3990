"""The graph between two batch norms -> what the second one's weights predict to arrive at it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.arrays import PerChannel
from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.numerics.propagation import (
    FUNCTIONS,
    KernelAxis,
    Signal,
    applied,
    averaged,
    gated,
    joined,
    largest,
    of_images,
    summed,
    through_kernel,
)
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.group_sites import PairedSite
from bncheck.recognise.graph.trace import VARIABLES, constant, declared_shape, sources, steps_back
from bncheck.recognise.graph.upstream import LINEAR, dropout_input, is_dropout
from bncheck.recognise.graph.view import GraphView
from bncheck.recognise.kernel_sizes import MAX_KERNEL, kernel_bytes
from bncheck.recognise.predicted.after_batch_norm import after_batch_norm, guessed

_BINARY = {
    "Add": np.add,
    "AddV2": np.add,
    "BiasAdd": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "RealDiv": np.divide,
    "Div": np.divide,
    "Maximum": np.maximum,
    "Minimum": np.minimum,
}
_SUMS = frozenset({"Add", "AddV2", "BiasAdd", "Sub"})
_PRODUCTS = frozenset({"Mul", "RealDiv", "Div"})
_AVERAGES = frozenset({"AvgPool", "AvgPool3D", "Mean", "ResizeBilinear"})
_LARGEST = frozenset({"MaxPool", "MaxPoolV2", "MaxPool3D"})
_RESHAPES = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_POOLS = frozenset({"AvgPool", "MaxPool", "MaxPoolV2"})
_TO_OTHER_LAYOUT = ((0, 2, 3, 1), (0, 3, 1, 2))
_DEPTH = 80
_STEPS = 8


def with_predictions(graph: GraphView, layers: Sequence[Layer], sites: Sequence[Sequence[PairedSite]]) -> list[Layer]:
    """The layers, those with `predicted` whose input comes from other batch norms through ops that are understood.

    Raises ReadError where a kernel is damaged.
    """
    walk = _GraphWalk(graph, layers, sites)
    return [
        replace(layer, predicted=walk.at(paired, layer))
        if len(paired) == 1 and layer.mean.values is not None
        else layer
        for layer, paired in zip(layers, sites, strict=True)
    ]


class _GraphWalk:
    """Signals by edge, sizes by edge: each found once."""

    def __init__(self, graph: GraphView, layers: Sequence[Layer], sites: Sequence[Sequence[PairedSite]]) -> None:
        self.graph, self.flat, self.stored = graph, graph.flat, graph.stored
        self.layers = {
            site.node: layer
            for layer, of_layer in zip(layers, sites, strict=True)
            for paired in of_layer
            for site in (paired.site, paired.train)
            if site.fold is None
        }
        self.signals: dict[int, Signal | None] = {}
        self.shapes: dict[int, tuple[int | None, ...] | None] = {}

    def at(self, paired: Sequence[PairedSite], layer: Layer) -> Predicted | None:
        """What arrives at a layer's site."""
        for site in (paired[0].site, paired[0].train):
            found = None if site.x is None or site.fold is not None else self._arriving(site.x, layer)
            if found is not None:
                return found
        return None

    def _arriving(self, x: int, layer: Layer) -> Predicted | None:
        bias: Any = 0.0
        for _ in range(_STEPS):
            node = node_of(x)
            op, data = self.flat.ops[node], self.flat.data[node]
            if op in LINEAR:
                found = self.linear(node, 0, stored=layer.mean.values, bias=bias)
                return None if found is None else replace(found, mean=found.mean + bias)
            if op in ("BiasAdd", "Add", "AddV2") and len(data) == 2:
                added = self._weights(data[1])
                if added is None:
                    return None
                bias, x = bias + added, data[0]
                continue
            back = self._back(x)
            if len(back) != 1:
                return None
            x = back[0]
        return None

    def _back(self, e: int) -> tuple[int, ...]:
        node = node_of(e)
        if self.flat.ops[node] == "Transpose":
            order = constant(self.flat, self.flat.data[node][1])
            same = order is not None and tuple(order.reshape(-1)) in _TO_OTHER_LAYOUT
            return self.flat.data[node][:1] if same else ()
        return steps_back(self.flat, e) or ()

    def signal(self, e: int, depth: int) -> Signal | None:
        """The distribution of one tensor; None where it cannot be told."""
        if e not in self.signals:
            self.signals[e] = None  # a loop ends here
            self.signals[e] = self._signal(e, depth + 1) if depth < _DEPTH else None
        return self.signals[e]

    def _signal(self, e: int, depth: int) -> Signal | None:
        flat, node = self.flat, node_of(e)
        op, data = flat.ops[node], flat.data[node]
        if node in self.layers:
            return after_batch_norm(self.layers[node])
        if is_dropout(flat, node):
            return self.signal(dropout_input(flat, node), depth)
        if op.lower() in FUNCTIONS and data:
            return applied(FUNCTIONS[op.lower()], self.signal(data[0], depth))
        if op == "LeakyRelu" and data:
            given = flat.attr(node, "alpha")
            slope = 0.2 if given is None else given.f
            return applied(lambda x: np.where(x > 0, x, slope * x), self.signal(data[0], depth))
        if op in _BINARY and len(data) == 2:
            return self._binary(op, data, e, depth)
        if op == "AddN":
            return summed([self.signal(x, depth) for x in data], of=e)
        if op == "ConcatV2" and data:
            return joined([self.signal(x, depth) for x in data[:-1]], of=e)
        if op in _AVERAGES | _LARGEST and data:
            return self._pooled(op, node, e, depth)
        if op in LINEAR:
            found = self.linear(node, depth)
            return None if found is None else guessed(found, of=e)
        known = (self.signal(x, depth) for x in self._back(e))
        return next((one for one in known if one is not None), None)

    def _pooled(self, op: str, node: int, e: int, depth: int) -> Signal | None:
        pooled, places = self.signal(self.flat.data[node][0], depth), _places(self.flat, node)
        return averaged(pooled, places, of=e) if op in _AVERAGES else largest(pooled, places or 1, of=e)

    def _binary(self, op: str, data: tuple[int, ...], e: int, depth: int) -> Signal | None:
        """Two functions of the same variables, a signal and weights, or the sum of two signals."""
        operands = [self.signal(x, depth) for x in data]
        signals = [one for one in operands if one is not None]
        values = [self._weights(x) if one is None else one.values for x, one in zip(data, operands, strict=True)]
        left, right = values
        if not signals or left is None or right is None:
            return None
        if len(signals) == 2 and signals[0].of != signals[1].of:
            if op == "Mul":
                return gated(*signals, of=e)
            return summed(signals, of=e) if op in _SUMS - {"Sub"} else None
        spread_known = all(one.spread_known for one in signals)
        linear = op in _SUMS or (op in _PRODUCTS and len(signals) == 1)
        mean_known = all(one.mean_known for one in signals) and (linear or spread_known)
        with np.errstate(all="ignore"):
            try:
                found = _BINARY[op](left, right)
            except ValueError:  # weights of another shape: an embedding, a position
                return None
        if found.shape != signals[0].values.shape:
            return None
        return Signal(values=found, of=signals[0].of, spread_known=spread_known, mean_known=mean_known)

    def _weights(self, e: int) -> NDArray[np.float64] | None:
        """A stored or constant vector, or a number, or the negative of one (PReLU); None for anything else."""
        if self.flat.ops[node_of(e)] == "Neg":
            found = self._weights(self.flat.data[node_of(e)][0])
            return None if found is None else -found
        tensor = self._tensor(e)
        if tensor is None or len(tensor.shape) > 4 or sum(size > 1 for size in tensor.shape) > 1:
            return None
        return np.asarray(tensor.read(), np.float64).reshape(-1)

    def _tensor(self, e: int) -> Any | None:
        found = sources(self.flat, e)
        node = node_of(found[0]) if len(found) == 1 else None
        if node is None or self.flat.ops[node] not in VARIABLES | {"Const"}:
            return None
        tensor = self.stored.tensor(node)
        readable = tensor is not None and tensor.unavailable is None and 0 < kernel_bytes(tensor) <= MAX_KERNEL
        return tensor if readable else None

    def linear(
        self, node: int, depth: int, *, stored: PerChannel | None = None, bias: NDArray[np.float64] | float = 0.0
    ) -> Predicted | None:
        """What a convolution or dense layer makes of its input, bias apart.

        Of an input that is no batch norm's: as of images, near the means `stored` behind the bias.
        """
        flat = self.flat
        op, data = flat.ops[node], flat.data[node]
        if op not in ("Conv2D", "DepthwiseConv2dNative", "MatMul") or len(data) != 2:
            return None
        tensor = self._tensor(data[1])
        if tensor is None:
            return None
        padded, x = self._padding(data[0])
        arriving = self.signal(x, depth)
        if arriving is None and (stored is None or op != "Conv2D"):
            return None
        kernel = tensor.read()
        if op == "MatMul":
            turned = flat.attr(node, "transpose_b")
            return through_kernel(arriving, kernel.T if turned is not None and turned.b else kernel)
        if kernel.ndim != 4:
            return None
        windows = self._windows(node, x, kernel.shape[:2], padded)
        if arriving is None:
            return None if stored is None else of_images(stored - bias, kernel, windows)
        return through_kernel(arriving, kernel, windows, depthwise=op == "DepthwiseConv2dNative")

    def _padding(self, e: int) -> tuple[NDArray[Any] | None, int]:
        """((axes, 2) zeros put around by an op of its own, what they are put around)."""
        node = node_of(e)
        if self.flat.ops[node] != "Pad" or len(self.flat.data[node]) != 2:
            return None, e
        zeros = constant(self.flat, self.flat.data[node][1])
        return (None, e) if zeros is None or zeros.shape != (4, 2) else (zeros, self.flat.data[node][0])

    def _windows(
        self, node: int, x: int, kernel: Sequence[int], padded: NDArray[Any] | None = None
    ) -> list[KernelAxis]:
        flat, shape = self.flat, self.shape(x)
        first = 2 if _channels_first(flat, node) else 1
        strides, dilations = (_numbers(flat, node, name) for name in ("strides", "dilations"))
        given = flat.attr(node, "padding")
        same = given is not None and given.s == b"SAME"
        found = []
        for axis, taps in enumerate(kernel, first):
            zeros = (0, 0) if padded is None else (int(padded[axis][0]), int(padded[axis][1]))
            found.append(
                KernelAxis(
                    size=None if shape is None or len(shape) != 4 else shape[axis],
                    kernel=taps,
                    stride=max(strides[axis], 1),
                    padding=None if same and padded is None else zeros,
                    dilation=max(dilations[axis], 1),
                )
            )
        return found

    def shape(self, e: int) -> tuple[int | None, ...] | None:
        """The shape of a tensor, None for sizes that are not known, or as a whole."""
        if e not in self.shapes:
            self.shapes[e] = None
            self.shapes[e] = self._shape(e)
        return self.shapes[e]

    def _shape(self, e: int) -> tuple[int | None, ...] | None:
        flat = self.flat
        passed: list[int] = []
        while True:  # most ops pass the shape on: no recursion for those
            node = node_of(e)
            declared = declared_shape(flat, node) if flat.ops[node] not in VARIABLES else None
            if declared is not None and all(size > 0 for size in declared[1:]):
                return tuple(None if size < 0 else size for size in declared)
            op, data = flat.ops[node], flat.data[node]
            if op in LINEAR or op in _POOLS or op == "Pad" or op in _RESHAPES or not data or len(passed) > _DEPTH:
                break
            back = steps_back(flat, e) or data[:1]
            passed.append(e)
            e = back[0]
        if op in _POOLS and data:
            size = _numbers(flat, node, "ksize")
            first = 2 if _channels_first(flat, node) else 1
            return self._moved(node, data[0], size[first : first + 2])
        if op == "Pad":
            padded, x = self._padding(e)
            shape = self.shape(x)
            if padded is None or shape is None or len(shape) != 4:
                return None
            return tuple(None if s is None else s + int(sum(p)) for s, p in zip(shape, padded, strict=True))
        if op in ("Conv2D", "DepthwiseConv2dNative") and len(data) == 2:
            kernel = self._tensor(data[1])
            return None if kernel is None else self._moved(node, data[0], kernel.shape[:2])
        return None

    def _moved(self, node: int, x: int, kernel: Sequence[int]) -> tuple[int | None, ...] | None:
        shape = self.shape(x)
        if shape is None or len(shape) != 4 or len(kernel) != 2:
            return None
        first = 2 if _channels_first(self.flat, node) else 1
        found = list(shape)
        for axis, window in enumerate(self._windows(node, x, kernel), first):
            found[axis] = window.output
        return tuple(found)


def _channels_first(flat: FlatGraph, node: int) -> bool:
    layout = flat.attr(node, "data_format")
    return layout is not None and layout.s.startswith(b"NC")


def _places(flat: FlatGraph, node: int) -> int | None:
    """How many places a pooling takes together; None for all of a map, or where it does not say."""
    if flat.ops[node] == "ResizeBilinear":
        return 2
    return None if flat.ops[node] == "Mean" else math.prod(_numbers(flat, node, "ksize"))


def _numbers(flat: FlatGraph, node: int, name: str) -> list[int]:
    given = flat.attr(node, name)
    found = [] if given is None else [int(one) for one in given.list.i]
    return found if len(found) == 4 else [1, 1, 1, 1]
