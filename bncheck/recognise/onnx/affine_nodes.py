"""Multiplications and additions by constants in an ONNX graph, and which of them follow one another."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.onnx.nodes import OnnxNode
from bncheck.recognise.onnx.values import OnnxWiring

Array = NDArray[np.float64]

_AFFINE = ("Mul", "Div", "Add", "Sub")
PASSED = ("Identity", "Cast", "QuantizeLinear", "DequantizeLinear")
"""Ops that leave the numbers what they are, up to rounding."""
_MOST_PASSED = 16
MOST_CHANNELS = 1 << 16
"""No batch norm has more; longer constants are not read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AffineNode:
    """One multiplication or addition by constants."""

    multiplier: Array | None = None
    addend: Array | None = None
    """(channels,) or (1,), the one that is not None."""
    rounding: Array | float = 0.0
    """How far rounding may have moved them."""
    axis: int | None = None
    """The axis along which they vary, counted from the last, -1; None: it is one number."""
    data: str = ""
    """Name of what is multiplied or added to."""


def affine_node(wiring: OnnxWiring, node: OnnxNode) -> AffineNode | None:
    """The node as such; None where it is none, or its constants vary along several axes. Raises ReadError."""
    if node.op_type not in _AFFINE or len(node.input) != 2:
        return None
    slot = 1 if wiring.tensor(node.input[1]) is not None else 0
    if wiring.tensor(node.input[slot]) is None or wiring.tensor(node.input[1 - slot]) is not None:
        return None
    if slot == 0 and node.op_type in ("Div", "Sub"):  # by what is divided or subtracted from, no map of this form
        return None
    shape = wiring.shape(node.input[slot])
    varying = [place - len(shape) for place, size in enumerate(shape) if size > 1] if shape is not None else []
    if shape is None or len(varying) > 1 or not 0 < math.prod(shape) <= MOST_CHANNELS:
        return None
    found = wiring.numbers(node.input[slot])
    if found is None:
        return None
    axis = varying[0] if varying else None
    values, half = found.values.reshape(-1), np.broadcast_to(found.half, found.values.shape).reshape(-1)
    data = node.input[1 - slot]
    if node.op_type == "Mul":
        return AffineNode(multiplier=values, rounding=half, axis=axis, data=data)
    if node.op_type == "Div":
        with np.errstate(all="ignore"):
            return AffineNode(multiplier=1.0 / values, rounding=half / values**2, axis=axis, data=data)
    return AffineNode(addend=values if node.op_type == "Add" else -values, rounding=half, axis=axis, data=data)


def follower(wiring: OnnxWiring, number: int, among: Collection[int]) -> int | None:
    """The node of these that alone reads what a node gives, what leaves numbers as they are looked through."""
    for _ in range(_MOST_PASSED):
        outputs = [name for name in wiring.nodes[number].output if name]
        if not outputs or outputs[0] in wiring.outputs:
            return None
        readers = wiring.readers.get(outputs[0], ())
        if len(readers) != 1:
            return None
        number = readers[0]
        if number in among:
            return number
        if wiring.nodes[number].op_type not in PASSED:
            return None
    return None
