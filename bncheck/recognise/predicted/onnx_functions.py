"""The elementwise functions of ONNX, by their nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bncheck.numerics.propagation import FUNCTIONS, Function
from bncheck.recognise.onnx.nodes import OnnxNode, number
from bncheck.recognise.onnx.values import OnnxWiring

Array = NDArray[np.float64]

_PLAIN: Mapping[str, Function] = {
    **{op: FUNCTIONS[op.lower()] for op in ("Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Abs", "Neg", "Exp")},
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "Erf": np.vectorize(math.erf, otypes=[np.float64]),
}
_SCALED = ("Selu", "Elu")
"""Those whose usual parameters alone are known."""
_USUAL = {"alpha": (1.0, 1.67326), "gamma": (1.0, 1.0507)}


def function_of(wiring: OnnxWiring, node: OnnxNode, per_channel: Callable[[str], Array | None]) -> Function | None:
    """The function that a node applies to its first input; None where it applies none, or another."""
    op = node.op_type
    if op in _PLAIN:
        return _PLAIN[op]
    if op in _SCALED:
        usual = all(
            abs(number(node, name, told[1]) - told[op == "Selu"]) < 1e-3
            for name, told in _USUAL.items()
            if name in node.attributes
        )
        return FUNCTIONS[op.lower()] if usual else None
    if op == "HardSigmoid":
        slope, at_zero = number(node, "alpha", 0.2), number(node, "beta", 0.5)
        return lambda x: np.clip(slope * x + at_zero, 0, 1)
    if op == "LeakyRelu":
        leak = number(node, "alpha", 0.01)
        return lambda x: np.where(x > 0, x, leak * x)
    if op == "PRelu" and len(node.input) == 2:
        slopes = per_channel(node.input[1])
        return None if slopes is None else lambda x: np.where(x > 0, x, slopes * x)
    if op == "Clip":
        return _clip(wiring, node)
    if op == "Gelu":
        return lambda x: 0.5 * x * (1 + _PLAIN["Erf"](x / math.sqrt(2)))
    return None


def _clip(wiring: OnnxWiring, node: OnnxNode) -> Function | None:
    """Its ends are attributes before version 11 of the operator set, inputs since."""
    ends = [number(node, "min", -math.inf), number(node, "max", math.inf)]
    for slot, name in enumerate(node.input[1:3]):
        known = wiring.numbers(name) if name else None
        if name and (known is None or known.values.size != 1):
            return None
        ends[slot] = ends[slot] if known is None else float(known.values.reshape(-1)[0])
    low, high = ends
    return lambda x: np.clip(x, low, high)
