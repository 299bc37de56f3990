"""What a per-channel operand of a site is: stored statistics, batch moments, or a choice between the two."""

from __future__ import annotations

from typing import NamedTuple

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.evaluate import evaluate
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph.reductions import (
    ALL_REDUCE,
    ELEMENTWISE,
    MAY_REDUCE,
    is_count,
    is_count_op,
    is_number,
    is_of_weights,
    piece,
    reduction_at,
)
from bncheck.recognise.graph.trace import (
    PLACEHOLDERS,
    ROWS,
    VARIABLES,
    constant,
    declared_shape,
    is_condition,
    predicate,
    sources,
    steps_back,
)
from bncheck.sources.graph import protos

FUSED = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3", "_FusedBatchNormEx"})
_PARTS = frozenset({"StridedSlice", "Slice", "Split", "SplitV"})
"""Parts of a vector: of partitioned variables, whose parts take their share of the moments."""
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
    """Scalar placeholders and conditions that enter as a number (a scalar variable is something else, such as the
    count under a sum)."""
    reshaped: tuple[int, ...] = ()
    """Shape a stored vector is reshaped to ("1, C, 1, 1" tells channels first), where it is."""
    rows: frozenset[int] = frozenset()
    """Constant numbers of the rows that are taken of a table."""

    @property
    def chooses(self) -> bool:
        """Whether both stored statistics and batch moments can arrive."""
        return bool(self.stored) and bool(self.moments)


_NOTHING = Operand()


def classify(graph: FlatGraph, contexts: Contexts, e: int) -> Operand:
    """The operand behind an edge."""
    found = _Classifier(graph, contexts).of_branch(e, 0)
    if found.chooses and found.switch is None and len(found.scalars) == 1:
        return found._replace(switch=_weighed(graph, contexts, e, found))
    return found


def is_free_of(graph: FlatGraph, contexts: Contexts, e: int, stored: tuple[int, ...]) -> bool:
    """Whether a value made of batch moments and stored vectors is the same whatever these hold: they are a shift.

    Tried on a batch of equal elements, where a mean is the element and a variance 0 through any shift.
    """
    leaves = [{edge(node): value for node in stored} for value in (0.0, 1.0, 3.0)]
    values = evaluate(graph, e, leaves, contexts, {}, batch=2.0)
    return None not in values and len({round(value, 9) for value in values if value is not None}) == 1


def _weighed(graph: FlatGraph, contexts: Contexts, e: int, found: Operand) -> tuple[int, bool] | None:
    """The scalar t of `t * moment + (1 - t) * stored`, and the value of it that selects the moments."""
    leaves = dict.fromkeys(found.moments, 0.0) | {edge(node): 1.0 for node in found.stored}
    stored_part = [
        value
        for on in (False, True)
        for value in evaluate(graph, e, [leaves], contexts, {found.scalars[0]: on}, batch=0.0)
    ]
    if sorted(part for part in stored_part if part is not None) != [0.0, 1.0]:
        return None
    return found.scalars[0], stored_part[1] == 0.0


class _Classifier:
    def __init__(self, graph: FlatGraph, contexts: Contexts) -> None:
        self.graph, self.contexts = graph, contexts
        self.known: dict[int, Operand] = {}

    def of_branch(self, e: int, depth: int) -> Operand:
        """As `operand`; a stored vector by which data are only shifted, and shifted back, does not count."""
        found = self.operand(e, depth)
        if found.chooses and found.switch is None and is_free_of(self.graph, self.contexts, e, found.stored):
            found = self.known[e] = found._replace(stored=(), reshaped=())
        return found

    def operand(self, e: int, depth: int) -> Operand:
        """The operand behind an edge; nothing where it runs in a circle, or goes on for too long."""
        if e in self.known:
            return self.known[e]
        if len(self.known) > _LIMIT or depth > 40:
            return _NOTHING
        self.known[e] = _NOTHING
        found = self.known[e] = self._operand(e, depth)
        return found

    def _operand(self, e: int, depth: int) -> Operand:
        source = self._source(e, depth)
        if source is not None:
            return source
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in ("Select", "SelectV2") and len(data) == 3:
            return self._choice([data[1], data[2]], [predicate(graph, data[0])] * 2, depth)
        if op in CONDITIONALS and node in graph.returns and data:
            edges = [branch[port_of(e)] for branch in graph.returns[node] if port_of(e) < len(branch)]
            return self._choice(edges, [predicate(graph, data[0])] * 2, depth)
        back = self._back(e)
        if back is None:
            return self._scalar(node)
        if op in ("Merge", "RefMerge") and len(back) == 2:
            return self._merge(back, depth)
        found = _union([self.operand(x, depth + 1) for x in back])
        if op == "Reshape" and found.stored and len(data) > 1:
            shape = constant(graph, data[1])
            if shape is not None and shape.size > 1:
                return found._replace(reshaped=tuple(int(size) for size in shape.reshape(-1)))
        return found

    def _source(self, e: int, depth: int) -> Operand | None:
        """The operand that begins at an edge: a variable, a constant, moments, a count."""
        graph, node = self.graph, node_of(e)
        op = graph.ops[node]
        if op in VARIABLES or op == "Const":
            stored = graph.whole.get(node, node)
            vector = per_channel_shape(graph, node) or keeps_several_axes(graph, node)
            return Operand(stored=(stored,)) if vector else self._scalar(node)
        if op in FUSED and port_of(e) in (1, 2):
            return Operand(moments=frozenset({e}))
        if op in MAY_REDUCE:
            return self._reduction(e, depth)
        if op == "Cast" and is_condition(graph, node):
            return Operand(scalars=(predicate(graph, e)[0],))
        if op in ROWS and (variable := self._table(node)) is not None:
            row = row_number(graph, graph.data[node][1])
            return Operand(stored=(variable,), rows=frozenset() if row is None else frozenset({row}))
        return _NOTHING if is_count_op(op) and is_count(graph, e) else None

    def _back(self, e: int) -> tuple[int, ...] | None:
        """The edges of which a per-channel vector is made; None where its channels begin."""
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in ELEMENTWISE:
            return data
        if (taken := piece(graph, e)) is not None:
            return (taken,)
        if op in ALL_REDUCE or op in _PARTS:
            return data[1:] if op == "Split" else data[:1]
        return steps_back(graph, e)

    def _scalar(self, node: int) -> Operand:
        op = self.graph.ops[node]
        if op == "Const":
            return Operand()
        scalar = op in PLACEHOLDERS and _is_scalar(self.graph, node)
        return Operand(scalars=(node,)) if scalar else Operand(other=(node,))

    def _reduction(self, e: int, depth: int) -> Operand | None:
        graph, node = self.graph, node_of(e)
        reduction = reduction_at(graph, node)
        if reduction is None:
            return None
        if is_of_weights(graph, reduction.of):
            return Operand(other=(node,))
        if reduction.axes is None:
            return Operand(moments=frozenset({e}), unclear_axes=True)
        if reduces_batch(reduction.axes):
            return Operand(moments=frozenset({e}), axes=reduction.axes)
        inner = self.operand(reduction.of, depth + 1)
        if inner.moments and not inner.unclear_axes:
            return inner
        return Operand(other=(node,))

    def _table(self, node: int) -> int | None:
        """The variable that holds one row of statistics for each time step, of which a row is taken."""
        graph, data = self.graph, self.graph.data[node]
        held = {node_of(x) for x in sources(graph, data[0])} if len(data) > 1 else set()
        if len(held) != 1 or graph.ops[variable := held.pop()] not in VARIABLES or not is_table(graph, variable):
            return None
        return variable if is_number(graph, data[1]) else None

    def _merge(self, edges: tuple[int, ...], depth: int) -> Operand:
        sides = [self.contexts.along(e) for e in edges]
        opposite = [(where, side) for where, side in sides[0] if (where, not side) in sides[1]]
        if not opposite:
            return _union([self.operand(x, depth + 1) for x in edges])
        where, side = opposite[0]
        return self._choice(list(edges) if side else list(reversed(edges)), [(where, False)] * 2, depth)

    def _choice(self, edges: list[int], predicates: list[tuple[int, bool]], depth: int) -> Operand:
        """`edges[0]` is taken where the predicate holds, `edges[1]` where it does not."""
        branches = [self.of_branch(x, depth + 1) for x in edges]
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
        rows=frozenset().union(*(operand.rows for operand in operands)),
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


def keeps_several_axes(graph: FlatGraph, node: int) -> bool:
    """Whether a variable or constant has the shape of statistics of several axes, as `axis=[1, 3]` keeps: (1, H, 1, C).

    The batch is the first axis, and one axis besides it is averaged over too.
    """
    shape = declared_shape(graph, node)
    if shape is None or len(shape) < 4 or shape[0] != 1:
        return False
    return min(shape) > 0 and sum(size != 1 for size in shape) > 1 and 1 in shape[1:]


def is_table(graph: FlatGraph, node: int) -> bool:
    """Whether a variable is a matrix: per-channel vectors of several time steps."""
    shape = declared_shape(graph, node)
    return shape is not None and len(shape) == 2 and min(shape) > 1


def row_number(graph: FlatGraph, e: int) -> int | None:
    """The one row that a constant index tells; None where it is computed, or tells several."""
    index = constant(graph, e)
    return int(index.reshape(-1)[0]) if index is not None and index.size == 1 else None


def reduces_batch(axes: tuple[int, ...]) -> bool:
    """Whether a reduction over `axes` is over the batch and keeps channels: what batch moments do.

    Layer norm reduces the last axes, instance and group norm the spatial ones; neither reduces axis 0. Negative axes
    count from an unknown rank: two or more that leave out -1 include the batch of a rank 3 to 5 tensor.
    """
    if 0 in axes:
        return True
    return len(axes) >= 2 and all(axis < -1 for axis in axes) and min(axes) <= -3
