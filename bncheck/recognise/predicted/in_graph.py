"""The graph between two batch norms -> what the second one's weights predict to arrive at it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.facts.record import replace
from bncheck.numerics.propagation import (
    FUNCTIONS,
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
from bncheck.recognise.graph.upstream import LINEAR, dropout_input, is_dropout
from bncheck.recognise.graph.view import GraphView
from bncheck.recognise.kernel_sizes import is_read
from bncheck.recognise.predicted.after_batch_norm import after_batch_norm, guessed
from bncheck.recognise.predicted.graph_wiring import GraphWiring, numbers_of

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
_DEPTH = 80
_STEPS = 8


def with_predictions(
    graph: GraphView,
    layers: Sequence[Layer],
    sites: Sequence[Sequence[PairedSite]],
    wiring: GraphWiring | None = None,
) -> list[Layer]:
    """The layers, those with `predicted` whose input comes from other batch norms through ops that are understood.

    `wiring` may be that of another checkpoint with this graph and layout. Raises ReadError where a kernel is damaged.
    """
    walk = _GraphWalk(graph, layers, sites, wiring or GraphWiring(graph.flat, graph.stored))
    return [
        replace(layer, predicted=walk.at(paired, layer))
        if len(paired) == 1 and layer.mean.values is not None
        else layer
        for layer, paired in zip(layers, sites, strict=True)
    ]


class _GraphWalk:
    """Signals by edge: each found once."""

    def __init__(
        self, graph: GraphView, layers: Sequence[Layer], sites: Sequence[Sequence[PairedSite]], wiring: GraphWiring
    ) -> None:
        self.flat, self.stored, self.wiring = graph.flat, graph.stored, wiring
        self.layers = {
            site.node: layer
            for layer, of_layer in zip(layers, sites, strict=True)
            for paired in of_layer
            for site in (paired.site, paired.train)
            if site.fold is None
        }
        self.signals: dict[int, Signal | None] = {}

    def at(self, paired: Sequence[PairedSite], layer: Layer) -> Predicted | None:
        """What arrives at a layer's site."""
        for site in (paired[0].site, paired[0].train):
            found = None if site.x is None or site.fold is not None else self._arriving(site.x, layer)
            if found is not None:
                return found
        return None

    def _arriving(self, x: int, layer: Layer) -> Predicted | None:
        bias, channels = np.zeros(1), 0 if layer.mean.values is None else layer.mean.values.size
        for _ in range(_STEPS):
            node = node_of(x)
            op, data = self.flat.ops[node], self.flat.data[node]
            if op in LINEAR:
                found = self.linear(node, 0, stored=layer, bias=bias)
                fits = found is not None and found.mean.size == channels
                return replace(found, mean=found.mean + bias) if found is not None and fits else None
            if op in ("BiasAdd", "Add", "AddV2") and len(data) == 2:
                added = self._weights(data[1])
                if added is None or added.size not in (1, channels):
                    return None
                bias, x = bias + added, data[0]
                continue
            back = self.wiring.back(x)
            if len(back) != 1:
                return None
            x = back[0]
        return None

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
        known = (self.signal(x, depth) for x in self.wiring.back(e))
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
        node = self.wiring.variable(e)
        tensor = None if node is None else self.stored.tensor(node)
        if tensor is None or not is_read(tensor) or len(tensor.shape) > 4 or sum(size > 1 for size in tensor.shape) > 1:
            return None
        return np.asarray(tensor.read(), np.float64).reshape(-1)

    def linear(
        self, node: int, depth: int, *, stored: Layer | None = None, bias: NDArray[np.float64] | float = 0.0
    ) -> Predicted | None:
        """What a convolution or dense layer makes of its input, bias apart.

        Of an input that is no batch norm's: as of images, near the statistics `stored` behind the bias.
        """
        flat = self.flat
        op, data = flat.ops[node], flat.data[node]
        if op not in ("Conv2D", "DepthwiseConv2dNative", "MatMul") or len(data) != 2:
            return None
        variable = self.wiring.variable(data[1])
        tensor = None if variable is None else self.stored.tensor(variable)
        if tensor is None or not is_read(tensor) or (op != "MatMul" and len(tensor.shape) != 4):
            return None
        x, windows = (data[0], []) if op == "MatMul" else self.wiring.kernel_input(node, tensor.shape[:2])
        arriving = self.signal(x, depth)
        if arriving is None and (stored is None or op != "Conv2D"):
            return None
        kernel = tensor.read()
        if op == "MatMul":
            turned = flat.attr(node, "transpose_b")
            return through_kernel(arriving, kernel.T if turned is not None and turned.b else kernel)
        if arriving is None:
            mean, variance = (None, None) if stored is None else (stored.mean.values, stored.variance.values)
            return None if mean is None or variance is None else of_images(mean - bias, variance, kernel, windows)
        return through_kernel(arriving, kernel, windows, depthwise=op == "DepthwiseConv2dNative")


def _places(flat: FlatGraph, node: int) -> int | None:
    """How many places a pooling takes together; None for all of a map, or where it does not say."""
    if flat.ops[node] == "ResizeBilinear":
        return 2
    return None if flat.ops[node] == "Mean" else math.prod(numbers_of(flat, node, "ksize"))
