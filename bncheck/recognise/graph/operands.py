"""What a per-channel operand of a site is: stored statistics, batch moments, or a choice between the two."""

from __future__ import annotations

from typing import NamedTuple

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.evaluate import evaluate
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph.trace import PLACEHOLDERS, VARIABLES, constant, declared_shape, predicate, steps_back
from bncheck.sources.graph import protos

FUSED = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "_FusedBatchNormEx"})
REDUCTIONS = frozenset({"Mean", "Sum"})
_ARITHMETIC = frozenset(
    "Add AddV2 AddN Sub Mul RealDiv Div DivNoNan Neg Square SquaredDifference Sqrt Rsqrt Pow Reciprocal Maximum "
    "Minimum Relu Abs CrossReplicaSum CollectiveReduce CollectiveReduceV2 NcclAllReduce HorovodAllreduce "
    "AccumulateNV2 ClipByValue".split()
)
"""Ops that combine per-channel vectors into per-channel vectors."""
_LIMIT = 120


class Operand(NamedTuple):
    """Where a per-channel vector comes from; there are many, and a tuple is made in a fifth of the time."""

    stored: tuple[int, ...] = ()
    """Variable nodes, or constant vectors of a frozen graph."""
    moments: frozenset[int] = frozenset()
    """Edges of reductions over the batch axis, or of a fused op's batch outputs."""
    other: tuple[int, ...] = ()
    """Nodes that are neither."""
    switch: tuple[int, bool] | None = None
    """(predicate node, value that selects the moments), where a condition chooses."""
    unclear_axes: bool = False
    """Moments over axes that the graph computes."""
    axes: tuple[int, ...] = ()
    """Reduced axes of the moments."""
    scalars: tuple[int, ...] = ()
    """Scalar placeholders that enter (a scalar variable is something else, such as the count under a sum)."""
    reshaped: tuple[int, ...] = ()
    """Shape a stored vector is reshaped to ("1, C, 1, 1" tells channels first), where it is."""

    @property
    def chooses(self) -> bool:
        """Whether both stored statistics and batch moments can arrive."""
        return bool(self.stored) and bool(self.moments)


_NOTHING = Operand()


def classify(graph: FlatGraph, contexts: Contexts, e: int) -> Operand:
    """The operand behind an edge."""
    found = _Classifier(graph, contexts).operand(e, 0)
    if found.chooses and found.switch is None and len(found.scalars) == 1:
        return found._replace(switch=_weighed(graph, contexts, e, found))
    return found


def _weighed(graph: FlatGraph, contexts: Contexts, e: int, found: Operand) -> tuple[int, bool] | None:
    """The scalar t of `t * moment + (1 - t) * stored`, and the value of it that selects the moments."""
    leaves = dict.fromkeys(found.moments, 0.0) | {edge(node): 1.0 for node in found.stored}
    stored_part = [
        value for on in (False, True) for value in evaluate(graph, e, [leaves], contexts, {found.scalars[0]: on})
    ]
    if sorted(part for part in stored_part if part is not None) != [0.0, 1.0]:
        return None
    return found.scalars[0], stored_part[1] == 0.0


class _Classifier:
    def __init__(self, graph: FlatGraph, contexts: Contexts) -> None:
        self.graph, self.contexts = graph, contexts
        self.seen: set[int] = set()

    def operand(self, e: int, depth: int) -> Operand:
        if e in self.seen or len(self.seen) > _LIMIT or depth > 40:
            return _NOTHING
        self.seen.add(e)
        graph, node = self.graph, node_of(e)
        op = graph.ops[node]
        if op in VARIABLES or op == "Const":
            return Operand(stored=(node,)) if per_channel_shape(graph, node) else self._scalar(node)
        if op in FUSED and port_of(e) in (1, 2):
            return Operand(moments=frozenset({e}))
        if op in REDUCTIONS:
            return self._reduction(e, depth)
        data = graph.data[node]
        if op in ("Select", "SelectV2") and len(data) == 3:
            return self._choice([data[1], data[2]], [predicate(graph, data[0])] * 2, depth)
        if op in CONDITIONALS and node in graph.returns and data:
            edges = [branch[port_of(e)] for branch in graph.returns[node] if port_of(e) < len(branch)]
            return self._choice(edges, [predicate(graph, data[0])] * 2, depth)
        back = steps_back(graph, e)
        if op in ("Merge", "RefMerge") and back is not None and len(back) == 2:
            return self._merge(back, depth)
        if back is None and op in _ARITHMETIC:
            back = data
        if back is None:
            return self._scalar(node)
        found = _union([self.operand(x, depth + 1) for x in back])
        if op == "Reshape" and found.stored and len(data) > 1:
            shape = constant(graph, data[1])
            if shape is not None and shape.size > 1:
                return found._replace(reshaped=tuple(int(size) for size in shape.reshape(-1)))
        return found

    def _scalar(self, node: int) -> Operand:
        op = self.graph.ops[node]
        if op == "Const":
            return Operand()
        scalar = op in PLACEHOLDERS and _is_scalar(self.graph, node)
        return Operand(scalars=(node,)) if scalar else Operand(other=(node,))

    def _reduction(self, e: int, depth: int) -> Operand:
        data = self.graph.data[node_of(e)]
        if len(data) < 2:
            return Operand(other=(node_of(e),))
        axes = constant(self.graph, data[1])
        if axes is None:
            return Operand(moments=frozenset({e}), unclear_axes=True)
        reduced = tuple(int(axis) for axis in axes.reshape(-1))
        if reduces_batch(reduced):
            return Operand(moments=frozenset({e}), axes=reduced)
        inner = self.operand(data[0], depth + 1)
        if inner.moments and not inner.unclear_axes:
            return inner
        return Operand(other=(node_of(e),))

    def _merge(self, edges: tuple[int, ...], depth: int) -> Operand:
        sides = [self._conditions(e) for e in edges]
        opposite = [(where, side) for where, side in sides[0] if (where, not side) in sides[1]]
        if not opposite:
            return _union([self.operand(x, depth + 1) for x in edges])
        where, side = opposite[0]
        return self._choice(list(edges) if side else list(reversed(edges)), [(where, False)] * 2, depth)

    def _conditions(self, e: int) -> frozenset[tuple[int, bool]]:
        graph, node = self.graph, node_of(e)
        conditions = self.contexts.of(node).conditions
        if graph.ops[node] in ("Switch", "RefSwitch") and len(graph.data[node]) > 1:
            source, negated = predicate(graph, graph.data[node][1])
            conditions |= {(source, bool(port_of(e)) != negated)}
        return conditions

    def _choice(self, edges: list[int], predicates: list[tuple[int, bool]], depth: int) -> Operand:
        """`edges[0]` is taken where the predicate holds, `edges[1]` where it does not."""
        branches = [self.operand(x, depth + 1) for x in edges]
        found = _union(branches)
        if len(branches) == 2 and found.switch is None:
            source, negated = predicates[0]
            if branches[0].moments and not branches[0].stored and branches[1].stored:
                return found._replace(switch=(source, not negated))
            if branches[1].moments and not branches[1].stored and branches[0].stored:
                return found._replace(switch=(source, negated))
        return found


def _union(operands: list[Operand]) -> Operand:
    operands = [operand for operand in operands if operand is not _NOTHING]
    if len(operands) < 2:
        return operands[0] if operands else _NOTHING
    stored: dict[int, None] = {}
    other: dict[int, None] = {}
    scalars: dict[int, None] = {}
    for operand in operands:
        scalars |= dict.fromkeys(operand.scalars)
        stored |= dict.fromkeys(operand.stored)
        other |= dict.fromkeys(operand.other)
    return Operand(
        stored=tuple(stored),
        moments=frozenset().union(*(operand.moments for operand in operands)),
        other=tuple(other),
        scalars=tuple(scalars),
        switch=next((operand.switch for operand in operands if operand.switch is not None), None),
        unclear_axes=any(operand.unclear_axes for operand in operands),
        axes=next((operand.axes for operand in operands if operand.axes), ()),
        reshaped=next((operand.reshaped for operand in operands if operand.reshaped), ()),
    )


def _is_scalar(graph: FlatGraph, node: int) -> bool:
    dtype = graph.attr(node, "dtype")
    return declared_shape(graph, node) == () or (dtype is not None and protos.data_type(dtype.type) == "bool")


def per_channel_shape(graph: FlatGraph, node: int) -> bool:
    """Whether a variable or constant is a vector over channels: rank 1, or rank n with one axis that is not 1.

    A single channel is per-channel too, unless it is a scalar.
    """
    shape = declared_shape(graph, node)
    if shape is None:
        return graph.ops[node] != "Const"
    return len(shape) > 0 and 0 not in shape and sum(size != 1 for size in shape) <= 1


def reduces_batch(axes: tuple[int, ...]) -> bool:
    """Whether a reduction over `axes` is over the batch and keeps channels: what batch moments do.

    Layer norm reduces the last axes, instance and group norm the spatial ones; neither reduces axis 0. Negative axes
    count from an unknown rank: two or more that leave out -1 include the batch of a rank 3 to 5 tensor.
    """
    if 0 in axes:
        return True
    return len(axes) >= 2 and all(axis < -1 for axis in axes) and min(axes) <= -3
