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

AFFINE = {op: op for op in ("Mul", "Div", "Add", "Sub")} | {"QLinearMul": "Mul", "QLinearAdd": "Add"}
"""Op -> what it does; onnxruntime's on integers as well."""
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
    kind = AFFINE.get(node.op_type)
    places = (0, 1) if node.op_type == kind else (0, 3)  # of integers, each with scale and zero point behind it
    if kind is None or len(node.input) <= places[1] or (places == (0, 1) and len(node.input) != 2):
        return None
    slot, other = places if wiring.tensor(node.input[places[1]]) is None else reversed(places)
    if wiring.tensor(node.input[slot]) is None or wiring.tensor(node.input[other]) is not None:
        return None
    if slot == 0 and kind in ("Div", "Sub"):  # by what is divided or subtracted from, no map of this form
        return None
    shape = wiring.shape(node.input[slot])
    varying = [place - len(shape) for place, size in enumerate(shape) if size > 1] if shape is not None else []
    if shape is None or len(varying) > 1 or not 0 < math.prod(shape) <= MOST_CHANNELS:
        return None
    stored = (wiring.given(node, slot + place) for place in range(3))
    found = wiring.numbers(node.input[slot]) if node.op_type == kind else wiring.dequantized(*stored, axis=1)
    if found is None:
        return None
    axis = varying[0] if varying else None
    values, half = found.values.reshape(-1), np.broadcast_to(found.half, found.values.shape).reshape(-1)
    data = node.input[other]
    if kind == "Mul":
        return AffineNode(multiplier=values, rounding=half, axis=axis, data=data)
    if kind == "Div":
        with np.errstate(all="ignore"):
            return AffineNode(multiplier=1.0 / values, rounding=half / values**2, axis=axis, data=data)
    return AffineNode(addend=values if kind == "Add" else -values, rounding=half, axis=axis, data=data)


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
