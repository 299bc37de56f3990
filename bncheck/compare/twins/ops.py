"""The ops of a twin that are no batch norm: copied as they are, with variables as values and dropout left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.twins.loops import RESOURCE, take_values
from bncheck.compare.twins.writer import TwinWriter, data_type
from bncheck.facts.errors import BncheckError
from bncheck.recognise.graph.flat import LOOPS, FlatGraph, edge, node_of
from bncheck.recognise.graph.trace import VARIABLES, declared_shape, sources
from bncheck.recognise.graph.upstream import dropout_input, is_dropout

_DEREFERENCED = {
    "RefSwitch": "Switch",
    "RefMerge": "Merge",
    "RefIdentity": "Identity",
    "RefEnter": "Enter",
    "RefExit": "Exit",
    "RefNextIteration": "NextIteration",
    "ReadVariableOp": "Identity",
}
_PIVOTS = frozenset({"Identity", "Switch", "Merge", "NoOp"})
"""Ops that a branch or a loop ties its other ops to."""
_DROPPED_ATTRIBUTES = ("_class", "_output_shapes", "_tpu_replicate", "_XlaCompile", "_gradient_op_type")
_STEPS = 200
"""Nested calls and branches that a variable's handle is passed through."""


def write_op(writer: TwinWriter, node: int) -> None:
    """Writes a node of the graph. Raises BncheckError where it cannot be run."""
    flat = writer.plan.view.flat
    name = writer.name(node)
    if node in writer.plan.settled:
        writer.constant(name, np.array(writer.plan.settled[node]))
    elif flat.ops[node] in VARIABLES:
        writer.constant(name, weights_of(writer, node))
    elif is_dropout(flat, node):
        data = dropout_input(flat, node)
        writer.node(name, "Identity", [writer.tensor(data)], T=data_type(writer.plan.view, data))
    else:
        _refuse(writer, node)
        _copy(writer, node, name)


def _refuse(writer: TwinWriter, node: int) -> None:
    flat = writer.plan.view.flat
    op = flat.ops[node]
    if op in ("Placeholder", "PlaceholderV2"):
        raise BncheckError(
            f"the output depends on {flat.names[node]} ({op}), a value that no data supply: choose outputs that do "
            "not need it with --outputs"
        )
    inside = (flat.frames[flat.frame_of[site]].call for site in writer.plan.sites if site in flat.frame_of)
    if op in LOOPS and node in inside:
        raise BncheckError(
            f"{flat.names[node]} is a loop with batch norm in it, which cannot be run in two modes: choose "
            "outputs that do not need it with --outputs"
        )


def _copy(writer: TwinWriter, node: int, name: str) -> None:
    view = writer.plan.view
    flat, original = view.flat, view.flat.proto(node)
    op = flat.ops[node]
    proto = writer.graph_def.node.add(name=name, op=_DEREFERENCED.get(op, op))
    proto.input.extend(writer.tensor(e) for e in flat.data[node])
    proto.input.extend(f"^{source}" for source in _kept_control(writer, node))
    for key in original.attr:
        if key not in _DROPPED_ATTRIBUTES:
            proto.attr[key].CopyFrom(original.attr[key])
    if "frame_name" in proto.attr:
        # a loop is told by the name of its frame, and there are two of each
        proto.attr["frame_name"].s = writer.twin.encode() + b"/" + proto.attr["frame_name"].s
    if op == "ReadVariableOp":
        proto.attr["T"].type = proto.attr["dtype"].type
        del proto.attr["dtype"]
    elif op in LOOPS:
        handles = {place: _handle(flat, e) for place, e in enumerate(flat.data[node])}
        kinds = {place: data_type(view, e) for place, e in handles.items() if flat.ops[node_of(e)] in VARIABLES}
        resources = [place for place, kind in enumerate(proto.attr["T"].list.type) if kind == RESOURCE]
        take_values(proto, writer.graph_def.library, {place: kinds[place] for place in resources if place in kinds})
    elif "T" in proto.attr and proto.attr["T"].type == RESOURCE and flat.data[node]:
        # a variable's handle on its way into a branch or loop: here it is the value; an array's handle stays one
        handle = _handle(flat, flat.data[node][0])
        if flat.ops[node_of(handle)] in VARIABLES:
            proto.attr["T"].type = data_type(view, handle)


def _handle(flat: FlatGraph, e: int) -> int:
    """The variable behind a resource."""
    for _ in range(_STEPS):
        if flat.ops[node_of(e)] in VARIABLES or not flat.data[node_of(e)]:
            return e
        e = flat.data[node_of(e)][0]
    return e


def _kept_control(writer: TwinWriter, node: int) -> list[str]:
    """Control inputs that hold a node inside a branch or loop; updates, assertions and the like fall away."""
    flat, contexts = writer.plan.view.flat, writer.plan.view.contexts
    return [
        writer.tensor(edge(source)).partition(":")[0]
        for source in flat.control.get(node, ())
        if flat.ops[source] in _PIVOTS and (contexts.of(source).conditions or contexts.of(source).loops)
    ]


def weights_of(writer: TwinWriter, node: int) -> NDArray[Any]:
    """The values of a variable or constant node. Raises BncheckError where they are not at hand."""
    view = writer.plan.view
    tensor, name = view.stored.tensor(node), view.stored.name(node)
    if tensor is None:
        raise BncheckError(f"no checkpoint holds the variable {name}, which the forward pass reads")
    if tensor.unavailable is not None:
        raise BncheckError(f"the values of {name} could not be read: {tensor.unavailable}")
    return _part(view.flat, node, tensor.read())


def _part(flat: FlatGraph, node: int, whole: NDArray[Any]) -> NDArray[Any]:
    """What a variable holds of a stored tensor: all of it, or the slice of a partition that the Saver writes it to."""
    declared = declared_shape(flat, node)
    if declared is None or declared == whole.shape or len(declared) != whole.ndim or min(declared, default=0) < 0:
        return whole
    for save in flat.by_op.get("SaveV2", ()):
        value = flat.attr(node_of(flat.data[save][2]), "value")
        told = [] if value is None else [item.decode() for item in value.tensor.string_val]
        for text, e in zip(told, flat.data[save][3:], strict=False):
            if not text or [node_of(x) for x in sources(flat, e)] != [node]:
                continue
            parts = text.rpartition(" ")[2].split(":")
            ends = [tuple(map(int, part.split(","))) if part != "-" else (0, None) for part in parts]
            return whole[tuple(slice(a, None if n is None else a + n) for a, n in ends)]
    return whole
