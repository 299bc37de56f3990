"""Questions about one edge of a flat graph: where its value comes from, what constant or condition it is."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Switch
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of, port_of
from bncheck.sources.graph import protos

VARIABLES = frozenset({"VariableV2", "Variable", "VarHandleOp"})
PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
REF_WRITES = frozenset({"Assign", "AssignAdd", "AssignSub"})

_COPIES = """
    Identity RefIdentity ReadVariableOp Enter RefEnter Exit RefExit Switch RefSwitch _SwitchN NextIteration
    RefNextIteration
    Cast Reshape ExpandDims Squeeze BroadcastTo StopGradient PreventGradient CheckNumerics CheckNumericsV2 Snapshot
    Print EnsureShape DeepCopy DebugIdentity DebugIdentityV2 FakeQuantWithMinMaxVars FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 TPUReplicatedInput
    TPUReplicatedOutput XlaSharding Bitcast
"""
PASS = frozenset(_COPIES.split()) | REF_WRITES
"""Ops whose output is, for recognition, their first input: the same numbers in the same order."""

FAKE_QUANT = frozenset({"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"})
"""Ops that round within a range that is stored in variables."""
MERGES = frozenset({"Merge", "RefMerge"})
SWITCHES = frozenset({"Switch", "RefSwitch"})
ROWS = frozenset({"Gather", "GatherV2", "ResourceGather", "StridedSlice"})
"""Ops that take rows of a table, such as the statistics of one time step."""
SELECTS = frozenset({"Select", "SelectV2"})
_STEPS = PASS | MERGES | SELECTS | {"IdentityN", "ConcatV2", "Pack"}
_LIMIT = 400
"""Edges one question may visit; per-channel operands need a few dozen."""


def steps_back(graph: FlatGraph, e: int) -> tuple[int, ...] | None:
    """The edges whose value `e` passes on unchanged (several where a condition chooses); None at a source."""
    node = node_of(e)
    op = graph.ops[node]
    if op not in _STEPS and node not in graph.returns:
        return None
    data = graph.data[node]
    if op in PASS:
        return data[:1] or None
    if op == "Pack":  # `[value]`, as a row that is scattered
        return data if len(data) == 1 else None
    if op == "IdentityN":
        return data[port_of(e) : port_of(e) + 1] or None
    if op in MERGES:
        return data or None
    if op in SELECTS and len(data) == 3:
        return data[1:]
    if op == "ConcatV2":
        return data[:-1] or None
    if node in graph.returns:
        found = tuple(edges[port_of(e)] for edges in graph.returns[node] if port_of(e) < len(edges))
        return tuple(x for x in found if node_of(x) != node) or None
    return None


def sources(graph: FlatGraph, e: int) -> list[int]:
    """Edges at which the value of `e` originates: variables, constants, placeholders, or the op that computes it."""
    # Nearly always there is but one way back.
    for _ in range(_LIMIT):
        way = steps_back(graph, e)
        if way is None:
            return [e]
        if len(way) > 1:
            break
        e = way[0]
    found: list[int] = []
    seen = {e}
    stack = [e]
    while stack and len(seen) < _LIMIT:
        current = stack.pop()
        back = steps_back(graph, current)
        if back is None:
            found.append(current)
            continue
        for x in reversed(back):
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return found


def variable_name(graph: FlatGraph, node: int) -> str:
    """Name of a variable node; resource handles are known by their shared name."""
    known = graph.variable_names.get(node)
    if known is None:
        known = graph.variable_names[node] = _shared_name(graph, node) or graph.names[node]
    return known


def _shared_name(graph: FlatGraph, node: int) -> str:
    shared = graph.attr(node, "shared_name") if graph.ops[node] == "VarHandleOp" else None
    return "" if shared is None else str(shared.s.decode("utf-8", "replace"))


def declared_shape(graph: FlatGraph, node: int) -> tuple[int, ...] | None:
    """Shape attribute of a variable, placeholder or constant (-1 unknown); None where the rank is unknown."""
    if node not in graph.shapes:
        found = _shape(graph, node)
        graph.shapes[node] = None if found is None else tuple([dim.size for dim in found.dim])
    return graph.shapes[node]


def _shape(graph: FlatGraph, node: int) -> Any | None:
    if graph.ops[node] == "Const":
        value = graph.attr(node, "value")
        return None if value is None else value.tensor.tensor_shape
    shape = graph.attr(node, "shape")
    if shape is not None and not shape.shape.unknown_rank:
        return shape.shape
    outputs = graph.attr(node, "_output_shapes")
    if outputs is None or not outputs.list.shape or outputs.list.shape[0].unknown_rank:
        return None
    return outputs.list.shape[0]


_NUMPY: dict[str, tuple[np.dtype[Any], str]] = {
    "float": (np.dtype("<f4"), "float_val"),
    "double": (np.dtype("<f8"), "double_val"),
    "half": (np.dtype("<f2"), "half_val"),
    "int32": (np.dtype("<i4"), "int_val"),
    "int64": (np.dtype("<i8"), "int64_val"),
    "bool": (np.dtype("?"), "bool_val"),
    "uint8": (np.dtype("u1"), "int_val"),
    "int8": (np.dtype("i1"), "int_val"),
    "int16": (np.dtype("<i2"), "int_val"),
}


def tensor_value(proto: Any, limit: int = 1 << 26) -> NDArray[Any] | None:
    """A TensorProto as an array; None for other dtypes, contradictory sizes, or more than `limit` elements.

    The last listed value fills the rest (tensor.proto); half and bfloat16 are stored as 16-bit patterns.
    """
    kind = protos.data_type(proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        return None
    size = math.prod(shape)
    if size > limit:
        return None
    if kind == "bfloat16":
        if proto.tensor_content:
            if len(proto.tensor_content) != 2 * size:
                return None
            bits = np.frombuffer(proto.tensor_content, "<u2").astype(np.uint32)
        else:
            bits = _filled(np.array(list(proto.half_val), np.uint32), size)
        return (bits << 16).view(np.float32).reshape(shape)
    if kind not in _NUMPY:
        return None
    dtype, listed = _NUMPY[kind]
    if proto.tensor_content:
        if len(proto.tensor_content) != dtype.itemsize * size:
            return None
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values: list[Any] = list(getattr(proto, listed))
    if kind == "half":
        return _filled(np.array(values, np.uint16), size).view(np.float16).reshape(shape)
    if len(values) > max(size, 1):
        return None
    return _filled(np.array(values, dtype), size).reshape(shape)


def _filled(values: NDArray[Any], size: int) -> NDArray[Any]:
    if values.size >= size:
        return values[:size]
    last = values[-1:] if values.size else np.zeros(1, values.dtype)
    return np.concatenate([values, np.repeat(last, size - values.size)])


def constant(graph: FlatGraph, e: int) -> NDArray[Any] | None:
    """The constant array behind an edge, through ops that pass it on; None where it is no constant."""
    found = sources(graph, e)
    if len(found) != 1 or graph.ops[node_of(found[0])] != "Const":
        return None
    value = graph.attr(node_of(found[0]), "value")
    return None if value is None else tensor_value(value.tensor)


def scalar(graph: FlatGraph, e: int) -> float | None:
    """The one number behind an edge: a scalar constant, or one whose elements are all equal."""
    found = sources(graph, e)
    return _scalar_at(graph, node_of(found[0])) if len(found) == 1 else None


def _scalar_at(graph: FlatGraph, node: int) -> float | None:
    attribute = graph.attr(node, "value") if graph.ops[node] == "Const" else None
    if attribute is None:
        return None
    tensor = attribute.tensor
    # One float is what nearly all are; it fills the tensor, however large that is.
    if tensor.dtype == 1 and len(tensor.float_val) == 1 and not tensor.tensor_content:
        return float(tensor.float_val[0]) if all(dim.size > 0 for dim in tensor.tensor_shape.dim) else None
    value = tensor_value(tensor)
    if value is None or value.size == 0 or value.dtype == bool:
        return None
    first = float(value.reshape(-1)[0])
    return first if value.size == 1 or bool(np.all(value == value.reshape(-1)[0])) else None


def uniform_initial(graph: FlatGraph, e: int) -> float | None:
    """The one value that an initialiser gives every element: a uniform constant or a Fill; None if not uniform."""
    found = sources(graph, e)
    if len(found) != 1:
        return None
    node = node_of(found[0])
    return scalar(graph, graph.data[node][1]) if graph.ops[node] == "Fill" else _scalar_at(graph, node)


def predicate(graph: FlatGraph, e: int) -> tuple[int, bool]:
    """(node, negated): the source of a condition, through copies, casts and negations."""
    negated = False
    for _ in range(_LIMIT):
        node = node_of(e)
        op = graph.ops[node]
        if op == "LogicalNot" and graph.data[node]:
            negated = not negated
            e = graph.data[node][0]
            continue
        back = steps_back(graph, e)
        if back is None or len(back) != 1:
            return node, negated
        e = back[0]
    return node_of(e), negated


def is_condition(graph: FlatGraph, cast: int) -> bool:
    """Whether a Cast makes a number of one bool."""
    kind, shape = graph.attr(cast, "SrcT"), declared_shape(graph, cast)
    return kind is not None and protos.data_type(kind.type) == "bool" and not shape


def describe_switch(graph: FlatGraph, node: int, train_when: bool | None) -> Switch:  # noqa: FBT001 - a value of the model
    """What kind of thing the condition at `node` is, with its default where it has one."""
    op = graph.ops[node]
    if op == "PlaceholderWithDefault":
        return Switch(
            predicate=graph.names[node],
            kind="placeholder-with-default",
            default=truth(graph, graph.data[node][0]),
            train_when=train_when,
        )
    if op in PLACEHOLDERS:
        return Switch(predicate=graph.names[node], kind="placeholder", train_when=train_when)
    if op == "Const":
        return Switch(
            predicate=graph.names[node], kind="constant", default=truth(graph, edge(node)), train_when=train_when
        )
    if op in VARIABLES:
        return Switch(predicate=graph.names[node], kind="variable", train_when=train_when)
    made_of, turned_on_by = _comparison(graph, node, wanted=train_when is not False)
    return Switch(
        predicate=graph.names[node],
        kind="computed",
        train_when=train_when,
        made_of=made_of,
        turned_on_by=turned_on_by,
    )


_COMPARISONS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    "Less": ("<", operator.lt),
    "LessEqual": ("<=", operator.le),
    "Greater": (">", operator.gt),
    "GreaterEqual": (">=", operator.ge),
    "Equal": ("==", operator.eq),
    "NotEqual": ("!=", operator.ne),
}


def _comparison(graph: FlatGraph, node: int, *, wanted: bool) -> tuple[str, tuple[str, float | str] | None]:
    """(in words, (placeholder, a value that makes it as wanted)) of a number or text compared with a constant."""
    op, data = graph.ops[node], graph.data[node]
    if op not in _COMPARISONS or len(data) != 2:
        return "", None
    sign, holds = _COMPARISONS[op]
    found = [sources(graph, e) for e in data]
    limits = [
        _text(graph, of[0]) if (number := scalar(graph, e)) is None else number
        for of, e in zip(found, data, strict=True)
    ]
    words = [
        graph.names[node_of(of[0])] if limit is None else f'"{limit}"' if isinstance(limit, str) else f"{limit:g}"
        for of, limit in zip(found, limits, strict=True)
    ]
    said = f"{words[0]} {sign} {words[1]}"
    for place, limit in ((0, limits[1]), (1, limits[0])):
        fed = node_of(found[place][0])
        if limit is None or graph.ops[fed] not in PLACEHOLDERS:
            continue
        if isinstance(limit, str):
            return said, (graph.names[fed], limit) if (op == "Equal") is wanted else None
        for value in (limit / 2, limit, limit + 1, limit - 1):
            if holds(*((value, limit) if place == 0 else (limit, value))) is wanted:
                return said, (graph.names[fed], value)
    return said, None


def _text(graph: FlatGraph, e: int) -> str | None:
    """The one text that a constant holds."""
    value = graph.attr(node_of(e), "value") if graph.ops[node_of(e)] == "Const" else None
    texts = [] if value is None else value.tensor.string_val
    return texts[0].decode("utf-8", "replace") if len(texts) == 1 else None


def truth(graph: FlatGraph, e: int) -> bool | None:
    """Whether a constant of one element is true; None where it is no such constant."""
    value = constant(graph, e)
    return bool(value.reshape(-1)[0]) if value is not None and value.size == 1 else None
