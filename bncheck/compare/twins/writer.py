"""Writes one twin into the GraphDef that holds both: names, constants, nodes, and what is still to be written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.twins.inference_path import Plan, taken
from bncheck.facts.errors import BncheckError
from bncheck.recognise.graph.feeds import is_input
from bncheck.recognise.graph.flat import node_of, port_of
from bncheck.recognise.graph.trace import FAKE_QUANT, VARIABLES
from bncheck.recognise.graph.view import GraphView

EVAL, TRAIN, WEIGHTS = "eval", "train", "weights"
"""First part of the name of a node: of one twin, or of both."""
INPUT = "input"
"""Name of the placeholder at which the data enter; that of a second input ends in _1."""

FLOAT, DOUBLE, INT32, BOOL, BFLOAT16, HALF = 1, 2, 3, 10, 14, 19
"""tensorflow.DataType (types.proto)."""
_DATA_TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


@dataclass(kw_only=True, eq=False)
class TwinWriter:
    """One twin being written."""

    plan: Plan
    twin: str
    """EVAL or TRAIN."""
    graph_def: Any
    written: set[str]
    """Names in `graph_def`, those of the other twin and of the weights included."""
    entries: dict[int, str]
    """Edge at which data enter -> the placeholder in its place; what the outputs need besides the first joins."""
    pending: list[int] = field(default_factory=list)
    """Nodes that are named and still to be written."""

    def name(self, node: int) -> str:
        """Of a node of the graph in this twin; weights, which depend on no other node, stand once for both."""
        flat = self.plan.view.flat
        shared = flat.ops[node] in VARIABLES or flat.ops[node] == "Const" or node in self.plan.settled
        # a node in a function's body may be called like one of the main graph
        inner = node >= flat.main_nodes and flat.names[node] in flat.index
        label = f"{flat.names[node]}/{node}" if inner else flat.names[node]
        return f"{WEIGHTS if shared and not flat.control.get(node) else self.twin}/{label}"

    def tensor(self, e: int) -> str:
        """Name of what inference takes for an edge; its node becomes pending where it is not written yet."""
        e = taken(self.plan, e)
        node, flat = node_of(e), self.plan.view.flat
        beside = not self.plan.fed[node]
        if e not in self.entries and beside and is_input(flat, flat.ops[node], node):
            self.entries[e] = f"{INPUT}_{len(self.entries)}"
        if e in self.entries:
            return self.entries[e]
        name = self.name(node)
        if name not in self.written:
            self.written.add(name)
            self.pending.append(node)
        port = 0 if node in self.plan.sites else port_of(e)
        return name if port == 0 else f"{name}:{port}"

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Writes a Const and gives its name. Raises BncheckError for types that have no place in a frozen graph."""
        number = _DATA_TYPES.get(value.dtype.name)
        if number is None:
            raise BncheckError(f"{name.removeprefix(f'{WEIGHTS}/')} is of type {value.dtype}, which cannot be frozen")
        node = self.graph_def.node.add(name=name, op="Const")
        tensor = node.attr["value"].tensor
        node.attr["dtype"].type = tensor.dtype = number
        for size in value.shape:
            tensor.tensor_shape.dim.add(size=size)
        little_endian = value.dtype.newbyteorder("<")
        tensor.tensor_content = np.ascontiguousarray(value).astype(little_endian, copy=False).tobytes()
        return name

    def node(self, name: str, op: str, inputs: list[str], **types: int) -> str:
        """Writes an op with attributes of types alone and gives its name."""
        node = self.graph_def.node.add(name=name, op=op, input=inputs)
        for key, value in types.items():
            node.attr[key].type = value
        return name


def data_type(view: GraphView, e: int) -> int:
    """DataType of an edge, from the op's attributes; float where they do not tell."""
    node = node_of(e)
    for key in ("output_types", "component_types"):
        listed = view.flat.attr(node, key)
        if listed is not None and len(listed.list.type) > port_of(e):
            return int(listed.list.type[port_of(e)])
    for key in ("dtype", "DstT", "T"):
        value = view.flat.attr(node, key)
        if value is not None and value.type:
            return int(value.type)
    return FLOAT


def without_rounding(graph_def: Any) -> Any:
    """A copy of the graph of both twins in which FakeQuant ops of the eval twin pass on what enters them."""
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    for node in copy.node:
        if node.op in FAKE_QUANT and node.name.startswith(f"{EVAL}/"):
            pass_through(node)
    return copy


def pass_through(node: Any) -> None:
    """Turns an op on floats into an Identity of its first input."""
    node.op = "Identity"
    del node.input[1:]
    node.attr.clear()
    node.attr["T"].type = FLOAT
