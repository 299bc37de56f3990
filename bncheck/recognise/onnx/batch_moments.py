"""Batch norm in train mode that an exporter wrote out in parts: a linear layer's output over its own batch moments."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.recognise.onnx.nodes import OnnxNode
from bncheck.recognise.onnx.values import OnnxWiring

_SHAPED = frozenset({"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose"})
_LINEAR = frozenset({"Conv", "ConvTranspose", "MatMul", "Gemm"})
_MOST_STEPS = 8


def normalised_by_batch_moments(wiring: OnnxWiring) -> Iterator[OnnxNode]:
    """The Sqrt nodes of deviations by which something is divided, taken over the batch at hand.

    Of x, which a convolution or dense layer gives: sqrt(mean((x - mean(x))^2) + epsilon), both means over the batch
    axis; norms of each sample by itself leave that axis out. tf2onnx writes Keras 3's layers so.
    """
    for node in wiring.nodes:
        if node.op_type == "Sqrt" and _divides(wiring, node) and _is_deviation(wiring, node):
            yield node


def _divides(wiring: OnnxWiring, root: OnnxNode) -> bool:
    readers = [wiring.nodes[number] for name in root.output for number in wiring.readers.get(name, ())]
    return any(r.op_type == "Reciprocal" or (r.op_type == "Div" and r.input[1:] == root.output) for r in readers)


def _is_deviation(wiring: OnnxWiring, root: OnnxNode) -> bool:
    padded = _made(wiring, root.input[0] if root.input else "")
    if padded is None or padded.op_type != "Add" or len(padded.input) != 2:
        return False
    variances = [_made(wiring, name) for name in padded.input if wiring.tensor(name) is None]
    if len(variances) != 1 or not _over_batch(wiring, variances[0]):
        return False
    squared = _made(wiring, variances[0].input[0]) if variances[0] is not None else None
    twice = squared is not None and squared.op_type == "Mul" and len(set(squared.input)) == 1
    if squared is None or not (twice or (squared.op_type == "Pow" and len(squared.input) == 2)):
        return False
    apart = _made(wiring, squared.input[0])
    if apart is None or apart.op_type != "Sub" or not _over_batch(wiring, _made(wiring, apart.input[1])):
        return False
    given = _made(wiring, apart.input[0])
    if given is not None and given.op_type == "Add" and len(given.input) == 2:  # a dense layer's bias
        given = next((_made(wiring, name) for name in given.input if wiring.tensor(name) is None), None)
    return given is not None and given.op_type in _LINEAR


def _over_batch(wiring: OnnxWiring, node: OnnxNode | None) -> bool:
    axes = wiring.axes(node) if node is not None and node.op_type == "ReduceMean" else None
    return axes is not None and 0 in axes


def _made(wiring: OnnxWiring, name: str) -> OnnxNode | None:
    """The node that gives a value, but for its shape."""
    node = wiring.producers.get(name)
    for _ in range(_MOST_STEPS):
        if node is None or node.op_type not in _SHAPED or not node.input:
            return node
        node = wiring.producers.get(node.input[0])
    return None
