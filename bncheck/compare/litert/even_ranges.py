"""Ranges of weights that int8 kernels take: as far below 0 as above."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.graph.trace import FAKE_QUANT


def with_even_ranges(graph_def: Any) -> Any:
    """A GraphDef whose weights are rounded within ranges that are even in both directions; itself where they are.

    Quantization-aware training of TensorFlow 1 records the lowest and the highest weight, for uint8 kernels; the range
    of the larger of the two costs at most one bit. Constants alone are looked at, as the twins hold them.
    """
    nodes = {node.name: node for node in graph_def.node}
    uneven = [name for name, node in nodes.items() if node.op in FAKE_QUANT and _uneven(nodes, node)]
    if not uneven:
        return graph_def
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    copies = {node.name: node for node in copy.node}
    for name in uneven:
        low, high = (copies[end] for end in copies[name].input[1:3])
        furthest = np.maximum(np.abs(_values(low)), np.abs(_values(high)))
        low.attr["value"].tensor.tensor_content = (-furthest).tobytes()
        high.attr["value"].tensor.tensor_content = furthest.tobytes()
    return copy


def _uneven(nodes: dict[str, Any], node: Any) -> bool:
    """Whether it rounds weights (the lowest level is left out) by constants that are not each other's negative."""
    ends = [nodes[name] for name in node.input[1:3] if name in nodes]
    if not node.attr["narrow_range"].b or [end.op for end in ends] != ["Const", "Const"]:
        return False
    low, high = map(_values, ends)
    return low.shape == high.shape and bool(np.any(low != -high))


def _values(constant: Any) -> NDArray[np.float32]:
    return np.frombuffer(constant.attr["value"].tensor.tensor_content, "<f4")
