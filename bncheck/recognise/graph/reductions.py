"""Reductions over a batch: which ops are one, over what and which axes, and which numbers are only its count."""

from __future__ import annotations

from typing import NamedTuple

from bncheck.recognise.graph.flat import FlatGraph, node_of, port_of
from bncheck.recognise.graph.trace import (
    VARIABLES,
    constant,
    declared_shape,
    sources,
    steps_back,
    uniform_initial,
)
from bncheck.sources.graph import protos

REDUCTIONS = frozenset({"Mean", "Sum"})
MAY_REDUCE = REDUCTIONS | {"MatMul", "Einsum"}
"""Ops among which `reduction_at` finds reductions."""
ALL_REDUCE = frozenset(
    "CrossReplicaSum CollectiveReduce CollectiveReduceV2 NcclAllReduce NcclReduce HorovodAllreduce".split()
)
"""Sums over replicas of their first input; the others name the group."""
ELEMENTWISE = frozenset(
    "Add AddV2 AddN AccumulateNV2 Sub Mul RealDiv Div DivNoNan Neg Square SquaredDifference Sqrt Rsqrt Pow Reciprocal "
    "Inv Maximum Minimum Relu Abs ClipByValue".split()
)
"""Ops that combine vectors into vectors of the same channels."""
_COUNTED = frozenset({"Shape", "Size", "Rank", "ShapeN"})
_OF_COUNTS = _COUNTED | frozenset(
    "Prod Gather GatherV2 StridedSlice Slice Pack Unpack Split SplitV ConcatV2 Concat Range FloorDiv FloorMod".split()
)
_TAKES = frozenset({"Unpack", "Split", "SplitV", "StridedSlice"})
_VECTOR = "constant vector"
_EDGES = 60


class Reduction(NamedTuple):
    """One linear reduction."""

    of: int
    """Edge of what is reduced."""
    axes: tuple[int, ...] | None
    """None where the graph computes them."""
    factor: float | None
    """Weight of each element: 1 in a sum; None where it is one by the count, as in a mean."""


def reduction_at(graph: FlatGraph, node: int) -> Reduction | None:
    """The reduction that a node computes: a mean, a sum (as `nc->c` too), or a product with a row of equal numbers."""
    op, data = graph.ops[node], graph.data[node]
    if op == "Einsum" and len(data) == 1:
        summed = _summed(graph, node)
        return None if summed is None else Reduction(data[0], summed, 1.0)
    if len(data) != 2:
        return None
    if op in REDUCTIONS:
        axes = constant(graph, data[1])
        reduced = None if axes is None else tuple(int(axis) for axis in axes.reshape(-1))
        return Reduction(data[0], reduced, 1.0 if op == "Sum" else None)
    if op == "MatMul":
        left, right = data
        if (row := uniform_initial(graph, left)) is not None and uniform_initial(graph, right) is None:
            return Reduction(right, (1 if _turned(graph, node, "transpose_b") else 0,), _row(graph, left, row))
    return None


def _summed(graph: FlatGraph, node: int) -> tuple[int, ...] | None:
    """Axes that an equation of one operand sums over, the others in their order; None of any other equation."""
    equation = graph.attr(node, "equation")
    before, _, after = ("" if equation is None else equation.s.decode("ascii", "replace")).partition("->")
    kept = [letter for letter in before if letter in after]
    if len(set(before)) < len(before) or "".join(kept) != after or kept == list(before):
        return None
    return tuple(axis for axis, letter in enumerate(before) if letter not in after)


def _turned(graph: FlatGraph, node: int, name: str) -> bool:
    turned = graph.attr(node, name)
    return turned is not None and bool(turned.b)


def _row(graph: FlatGraph, e: int, value: float) -> float | None:
    """Ones make a sum; a constant row of 1/n makes a mean."""
    known = constant(graph, e)
    return None if known is not None and known.size * value == 1.0 else value


def is_count(graph: FlatGraph, e: int) -> bool:
    """Whether a value is made of shapes and constants alone: how many elements a reduction has."""
    leaves = _leaves(graph, e, ELEMENTWISE | _OF_COUNTS, _COUNTED)
    return leaves is not None and leaves <= _COUNTED | {"Const"}


def is_count_op(op: str) -> bool:
    """Whether an op is one by which counts are taken from shapes."""
    return op in _OF_COUNTS


def is_number(graph: FlatGraph, e: int) -> bool:
    """Whether a value is made of constants alone, such as the counter of a loop."""
    return _leaves(graph, e, ELEMENTWISE) == frozenset({"Const"})


def is_of_weights(graph: FlatGraph, e: int) -> bool:
    """Whether a value is made of variables and constants by arithmetic alone: weights, and no activations.

    Weight standardisation reduces those; they hold no batch.
    """
    leaves = _leaves(graph, e, ELEMENTWISE | REDUCTIONS | {"Transpose"})
    return leaves is not None and leaves <= VARIABLES | {"Const", _VECTOR}


def piece(graph: FlatGraph, e: int) -> int | None:
    """The edge that was stacked or joined with others, summed over replicas with them, and is taken out again."""
    node = node_of(e)
    op, data = graph.ops[node], graph.data[node]
    if op not in _TAKES or not data:
        return None
    number = port_of(e)
    if op == "StridedSlice":
        begin = constant(graph, data[1]) if len(data) > 1 else None
        if begin is None or begin.size != 1:
            return None
        number = int(begin.reshape(-1)[0])
    joined = _joined(graph, data[1] if op == "Split" else data[0])
    if joined is None:
        return None
    kind, inputs = graph.ops[joined], graph.data[joined]
    inputs = inputs[:-1] if kind == "ConcatV2" else inputs
    if kind == "ConcatV2" and op == "StridedSlice":
        number = 0 if number == 0 else len(inputs) - 1  # of two, which is what is joined
        return inputs[number] if len(inputs) == 2 else None
    return inputs[number] if number < len(inputs) else None


def _joined(graph: FlatGraph, e: int) -> int | None:
    """The Pack or ConcatV2 behind sums over replicas and a division by a number."""
    for _ in range(_EDGES):
        node = node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in ("Pack", "ConcatV2"):
            return node
        if op in ALL_REDUCE:
            e = data[0]
        elif op in ("Mul", "RealDiv", "Div") and len(data) == 2:
            e = data[1] if op == "Mul" and is_number(graph, data[0]) else data[0]
        else:
            back = steps_back(graph, e)
            if back is None or len(back) != 1:
                return None
            e = back[0]
    return None


def is_shifted_by(graph: FlatGraph, e: int, variable: int) -> bool:
    """Whether a reduction is one of data shifted by a variable: `moments(x, axes, shift=moving_mean)`."""
    reduction = reduction_at(graph, node_of(e))
    if reduction is None:
        return False
    node = node_of(sources(graph, reduction.of)[0])
    if graph.ops[node] == "Square":
        node = node_of(sources(graph, graph.data[node][0])[0])
    if graph.ops[node] not in ("Sub", "SquaredDifference"):
        return False
    shift = graph.data[node][1]
    for _ in range(_EDGES):
        found = sources(graph, shift)
        if node_of(found[0]) == variable:
            return True
        if graph.ops[node_of(found[0])] not in ("Add", "AddV2"):  # a copy by `+ 0`
            return False
        shift = graph.data[node_of(found[0])][0]
    return False


def _leaves(
    graph: FlatGraph, e: int, through: frozenset[str], ends: frozenset[str] = frozenset()
) -> frozenset[str] | None:
    """Ops at which a value begins, behind copies and ops of `through`; None where there are many or others.

    A constant counts as a vector where it is neither one number nor whole numbers, as sizes are.
    """
    stack, seen, found = [e], {e}, set()
    while stack:
        current = stack.pop()
        node = node_of(current)
        op = graph.ops[node]
        if op in ends or op == "Const" or op in VARIABLES:
            found.add(_VECTOR if op == "Const" and _is_vector(graph, node) else op)
            continue
        back = graph.data[node] if op in through else steps_back(graph, current)
        if not back or len(seen) > _EDGES:
            return None
        for x in back:
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return frozenset(found)


def _is_vector(graph: FlatGraph, node: int) -> bool:
    dtype = graph.attr(node, "dtype")
    whole = dtype is not None and "int" in protos.data_type(dtype.type)
    return not whole and declared_shape(graph, node) != ()
