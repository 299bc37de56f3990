"""Graphs of mixed or double precision as graphs of float32, in which TFLite's kernels compute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.twins.writer import BFLOAT16, DOUBLE, FLOAT, HALF

_OTHERS = frozenset({HALF, BFLOAT16, DOUBLE})


def in_float32(graph_def: Any) -> None:
    """Makes every half, bfloat16 and double of a GraphDef and its functions a float32."""
    for node in graph_def.node:
        _attributes(node.attr)
    for function in graph_def.library.function:
        _attributes(function.attr)
        _arguments((*function.signature.input_arg, *function.signature.output_arg))
        for node in function.node_def:
            _attributes(node.attr)


def _arguments(arguments: Iterable[Any]) -> None:
    for argument in arguments:
        if argument.type in _OTHERS:
            argument.type = FLOAT


def _attributes(held: Mapping[str, Any]) -> None:
    for value in held.values():
        if value.type in _OTHERS:
            value.type = FLOAT
        for place, kind in enumerate(value.list.type):
            if kind in _OTHERS:
                value.list.type[place] = FLOAT
        if value.tensor.dtype in _OTHERS:
            _tensor(value.tensor)


def _tensor(tensor: Any) -> None:
    values = _values(tensor).astype("<f4")
    for field in ("tensor_content", "half_val", "double_val"):
        tensor.ClearField(field)
    tensor.dtype = FLOAT
    if values.size == int(np.prod([dim.size for dim in tensor.tensor_shape.dim])):
        tensor.tensor_content = values.tobytes()
    else:  # fewer than the shape has: the last of them stands for the rest
        tensor.float_val.extend(values.tolist())


def _values(tensor: Any) -> NDArray[Any]:
    if tensor.dtype == DOUBLE:
        return np.frombuffer(tensor.tensor_content, "<f8") if tensor.tensor_content else np.array(tensor.double_val)
    bits = np.frombuffer(tensor.tensor_content, "<u2") if tensor.tensor_content else np.array(tensor.half_val, "<u2")
    return bits.view("<f2") if tensor.dtype == HALF else (bits.astype("<u4") << 16).view("<f4")
