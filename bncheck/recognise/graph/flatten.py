"""Makes a `FlatGraph` of a GraphDef: indexes its nodes, and inlines every function that the main graph reaches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.recognise.graph.flat import CONDITIONALS, LOOPS, PORT_BITS, FlatGraph, Frame, edge, port_number

MAX_NODES = 8_000_000
"""Nodes after inlining."""
GROWTH, ALLOWANCE = 64, 20_000
"""By how much a graph may grow when its functions are inlined, times its stored nodes, and nodes more: functions that
call functions twice grow exponentially in a hostile file of a few kilobytes. Of five real and made ones with functions
none grew more than 1.1-fold."""
MAX_DEPTH = 64

_OUTPUT_PORTS = {
    "batch_mean": 1,
    "batch_variance": 2,
    "reserve_space_1": 3,
    "reserve_space_2": 4,
    "reserve_space_3": 5,
    "output_true": 1,
    "value_index": 1,
}
"""Port of the named outputs that recognition tells apart; all others count within their own argument."""

_CALLS = {
    "PartitionedCall": ("f",),
    "StatefulPartitionedCall": ("f",),
    "RemoteCall": ("f",),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
    "While": ("body",),
    "StatelessWhile": ("body",),
    "Case": ("branches",),
    "StatelessCase": ("branches",),
}

_BY_NUMBER = {
    1: """
        Abs Bitcast Cast CheckNumerics CheckNumericsV2 DeepCopy EnsureShape Enter Exit Exp FakeQuantWithMinMaxArgs Floor
        Identity Inv L2Loss LogicalNot LoopCond Neg NextIteration PlaceholderWithDefault PreventGradient
        RandomStandardNormal RandomUniform Rank ReadVariableOp Reciprocal RefEnter RefExit RefIdentity RefNextIteration
        Relu Rsqrt Shape Snapshot Sqrt Square Squeeze StopGradient
    """,
    2: """
        Add AddV2 All Any Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp
        BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd BroadcastTo Conv2D Conv3D DepthwiseConv2dNative Div DivNoNan
        ExpandDims Fill Greater GreaterEqual Less LessEqual MatMul Max Maximum Mean Minimum Mul Pad Pow RealDiv
        RefSwitch Reshape SquaredDifference Sub Sum Switch Transpose
    """,
    3: """
        BatchToSpaceND ClipByValue Conv2DBackpropInput Conv3DBackpropInputV2 FakeQuantWithMinMaxVars
        FakeQuantWithMinMaxVarsPerChannel PadV2 Select SelectV2 SpaceToBatchND
    """,
    5: "BatchNormWithGlobalNormalization FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3",
}
ARITIES = {op: number for number, ops in _BY_NUMBER.items() for op in ops.split()}
"""Op -> number of its data inputs: TensorFlow loads no graph with another.

Of ops that take one number of inputs in every version (not CrossReplicaSum, which had one and has two).
"""


def flatten(path: Path, graph_def: Any) -> FlatGraph:
    """Indexes a GraphDef and inlines every function that its main graph reaches.

    Raises Malformed where an input names a node that does not exist or is one too few or too many for the op, TooLarge
    where inlining does not end.
    """
    graph = FlatGraph(path=path, main=graph_def.node)
    early = []
    index, names, ops = graph.index, graph.names, graph.ops
    data: list[Any] = graph.data
    first_output = index.get
    waiting: dict[str, int] = {}
    waited_for = waiting.get
    alike: dict[tuple[int, ...], tuple[int, ...]] = {}
    for number, node in enumerate(graph.main):
        name = node.name
        index[name] = number << PORT_BITS
        names.append(name)
        ops.append(intern(node.op))
        inputs = node.input[:]  # as a list, which is read faster than protobuf's container
        if inputs and inputs[-1][:1] == "^":
            first = next(place for place, name in enumerate(inputs) if name[:1] == "^")
            waits: Any = tuple(map(waited_for, inputs[first:]))
            if None in waits and _learn(index, waiting, inputs[first:]):
                waits = tuple(map(waited_for, inputs[first:]))
            if None not in waits:
                inputs, graph.control[number] = inputs[:first], alike.setdefault(waits, waits)
        edges = tuple(map(first_output, inputs))
        data.append(edges)
        if None in edges and _unresolved(graph, number, inputs, waiting) is not None:
            early.append(number)
    graph.main_nodes = len(graph.names)
    if len(graph.index) != graph.main_nodes:
        raise Malformed(path, "is damaged: two nodes of one name")
    for number in early:
        absent = _unresolved(graph, number, graph.main[number].input, waiting)
        if absent is not None:
            reader = graph.names[number]
            raise Malformed(path, f"is damaged: node {reader!r} reads {absent!r}, which does not exist")
    functions = {function.signature.name: function for function in graph_def.library.function}
    if functions:
        _inline_all(graph, functions)
    _check_arities(graph)
    return graph


def _check_arities(graph: FlatGraph) -> None:
    counts = np.fromiter(map(len, graph.data), np.int64, len(graph.data))
    for op, number in ARITIES.items():
        nodes = np.array(graph.by_op.get(op, ()), np.int64)
        wrong = nodes[counts[nodes] != number]
        if wrong.size:
            given = f"{counts[wrong[0]]} inputs where {op} takes {number}"
            raise Malformed(graph.path, f"is damaged: node {graph.names[wrong[0]]!r} has {given}")


def _learn(index: dict[str, int], waiting: dict[str, int], controls: list[str]) -> bool:
    """Notes the nodes of those control inputs, "^name", that `waiting` has not; whether each is one, in the index."""
    for name in controls:
        if name not in waiting:
            source = index.get(name[1:])
            if source is None or name[:1] != "^":
                return False
            waiting[name] = source >> PORT_BITS
    return True


def _unresolved(graph: FlatGraph, number: int, inputs: Iterable[str], waiting: dict[str, int]) -> str | None:
    """Notes what a node of the main graph reads and waits for, or gives the first that is not (yet) in the index.

    `waiting` learns the nodes of control inputs, by "^name".
    """
    index = graph.index
    edges = []
    waits = []
    for name in inputs:
        source = index.get(name)
        if source is not None:
            edges.append(source)
        elif name[:1] == "^":
            source = index.get(name[1:])
            if source is None:
                return name[1:]
            waiting[name] = source >> PORT_BITS
            waits.append(waiting[name])
        else:
            base, _, port = name.rpartition(":")
            source = index.get(base)
            number_of_port = port_number(port)
            if source is None or number_of_port is None:
                return base if source is None and port.isdigit() else name
            edges.append(source | number_of_port)
    graph.data[number] = tuple(edges)
    if waits:
        graph.control[number] = tuple(waits)
    return None


def _inline_all(graph: FlatGraph, functions: dict[str, Any]) -> None:
    stored = graph.main_nodes + sum(len(function.node_def) for function in functions.values())
    most = min(MAX_NODES, GROWTH * stored + ALLOWANCE)
    pending = [(node, 0) for node, op in enumerate(graph.ops) if op in _CALLS or op in functions]
    while pending:
        call, depth = pending.pop()
        for branch, function in enumerate(_called(graph, call, functions)):
            if depth >= MAX_DEPTH:
                raise TooLarge(graph.path, f"calls functions more than {MAX_DEPTH} deep at {graph.names[call]!r}")
            start = len(graph.ops)
            if start + len(function.node_def) > most:
                told = f"grows past {most:,} nodes, from {stored:,} that are stored, when its functions are inlined"
                raise TooLarge(graph.path, told)
            _inline(graph, call, branch, function)
            pending += [
                (node, depth + 1)
                for node in range(start, len(graph.ops))
                if graph.ops[node] in _CALLS or graph.ops[node] in functions
            ]


def _called(graph: FlatGraph, call: int, functions: dict[str, Any]) -> list[Any]:
    op = graph.ops[call]
    if op in functions:
        return [functions[op]]
    names: list[str] = []
    for key in _CALLS[op]:
        value = graph.attr(call, key)
        if value is not None:
            names += [f.name for f in value.list.func] if value.list.func else [value.func.name]
    return [functions[name] for name in names if name in functions]


def _inline(graph: FlatGraph, call: int, branch: int, function: Any) -> None:
    op = graph.ops[call]
    conditional = op in CONDITIONALS
    actual = graph.data[call][1:] if conditional or op == "RemoteCall" else graph.data[call]
    arguments = {formal.name: value for formal, value in zip(function.signature.input_arg, actual, strict=False)}
    frame = len(graph.frames)
    graph.frames.append(
        Frame(
            parent=graph.frame_of.get(call, -1),
            call=call,
            function=function.signature.name,
            branch=branch if conditional else None,
            loop=op in LOOPS,
        )
    )
    prefix = graph.names[call]
    start = len(graph.ops)
    local = {node.name: start + number for number, node in enumerate(function.node_def)}

    def resolve(name: str) -> int | None:
        base, _, rest = name.partition(":")
        if base in local:
            output, _, port = rest.partition(":")
            number = _OUTPUT_PORTS.get(output, port_number(port or "0"))
            if number is None:
                reads = f"function {function.signature.name!r} names the output {name!r}"
                raise Malformed(graph.path, f"is damaged: {reads}, which no op can have")
            return edge(local[base], number)
        return arguments.get(base)

    for number, node in enumerate(function.node_def):
        here = start + number
        graph.bodies.append(node)
        graph.names.append(f"{prefix}/{node.name}")
        graph.ops.append(node.op)
        graph.frame_of[here] = frame
        found = [resolve(name) for name in node.input if name[:1] != "^"]
        graph.data.append(tuple(e for e in found if e is not None))
        waits = [local[name[1:]] for name in node.input if name[:1] == "^" and name[1:] in local]
        if waits:
            graph.control[here] = tuple(waits)
    outputs = [resolve(function.ret[output.name]) for output in function.signature.output_arg]
    graph.returns.setdefault(call, []).append([e if e is not None else edge(call) for e in outputs])
    graph.effects.setdefault(call, []).extend(
        local[name] for name in (*function.signature.control_output, *function.control_ret.values()) if name in local
    )
