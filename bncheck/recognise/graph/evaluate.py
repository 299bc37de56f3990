"""What number an edge has, its leaves and the conditions being given: how decays are read from updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph.reductions import ALL_REDUCE, MAY_REDUCE, is_count, is_count_op, is_number, reduction_at
from bncheck.recognise.graph.trace import (
    MERGES,
    ROWS,
    SELECTS,
    predicate,
    scalar,
    sources,
    steps_back,
    truth,
)

_LIMIT = 400
"""Edges one evaluation may visit; updates need a few dozen."""

_DIVISIONS = frozenset({"RealDiv", "Div", "DivNoNan"})
_QUOTIENTS = _DIVISIONS | {"Mul"}
_SUMS = ALL_REDUCE | MAY_REDUCE
_OF_ELEMENTS = frozenset({"Sub", "SquaredDifference", "Square", "Mul"})
_INSIDE = 3
"""Steps of arithmetic between data and their moments; data themselves are not taken apart."""

_ARITHMETIC: dict[str, Callable[..., float]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "RealDiv": lambda a, b: a / b,
    "Div": lambda a, b: a / b,
    "DivNoNan": lambda a, b: a / b,
    "Pow": math.pow,
    "Maximum": max,
    "Minimum": min,
    "Neg": lambda a: -a,
    "Square": lambda a: a * a,
    "Sqrt": math.sqrt,
    "Rsqrt": lambda a: 1 / math.sqrt(a),
    "Reciprocal": lambda a: 1 / a,
    "Inv": lambda a: 1 / a,
    "SquaredDifference": lambda a, b: (a - b) ** 2,
    "AddN": lambda *terms: sum(terms),
    "Exp": math.exp,
    "LogicalNot": lambda a: 1 - a,
}


def evaluate(
    graph: FlatGraph,
    e: int,
    leaves: Sequence[dict[int, float]],
    contexts: Contexts,
    assume: dict[int, bool],
    *,
    in_the_end: bool = True,
    batch: float | None = None,
) -> list[float | None]:
    """The numbers that `e` has, one for each of `leaves` (all of the same edges), as the conditions in `assume` hold.

    Used on updates, which are affine in the variable and the batch moment: with the variable at 1 and the moments at 0
    the new value is the decay, whatever way it is written. An assumed condition that enters as a number (a phase of 0
    or 1) is that number. None where anything else enters, or conditions stay open.
    A minimum with one unknown operand is, `in_the_end`, the known one: `min(decay, (1 + n) / (10 + n))` is `decay` for
    long runs. With `batch`, reductions that are no leaves are those of a batch whose elements all have this value: a
    mean is that value and a variance 0, however they are shifted, summed and counted.
    """
    return list(_Evaluation(graph, leaves, contexts, assume, in_the_end=in_the_end, batch=batch).values(e, 0))


class _Evaluation:
    def __init__(
        self,
        graph: FlatGraph,
        leaves: Sequence[dict[int, float]],
        contexts: Contexts,
        assume: dict[int, bool],
        *,
        in_the_end: bool,
        batch: float | None,
    ) -> None:
        self.graph, self.leaves, self.contexts, self.assume = graph, leaves, contexts, assume
        self.in_the_end, self.batch = in_the_end, batch
        self.unknown: Sequence[float | None] = (None,) * len(leaves)
        self.known: dict[int, Sequence[float | None]] = {}

    def values(self, e: int, depth: int) -> Sequence[float | None]:
        if e in self.known:
            return self.known[e]
        if depth > 60 or len(self.known) > _LIMIT:
            return self.unknown
        self.known[e] = self.unknown
        result = self._values(e, depth + 1)
        self.known[e] = result
        return result

    def _values(self, e: int, depth: int) -> Sequence[float | None]:
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if e in self.leaves[0]:
            return [leaves[e] for leaves in self.leaves]
        if node in self.assume:
            return (float(self.assume[node]),) * len(self.leaves)
        if op == "Const":
            return (scalar(graph, e),) * len(self.leaves)
        if self.batch is not None and (found := self._of_batch(e, depth)) is not None:
            return found
        if op in _ARITHMETIC and data:
            operands = [self.values(x, depth) for x in data]
            return [self._computed(op, one) for one in zip(*operands, strict=True)]
        back = [self.values(x, depth) for x in self._chosen(e)]
        if len(back) == 1:
            return back[0]
        return [one[0] if len(set(one)) == 1 else None for one in zip(*back, strict=True)] or self.unknown

    def _of_batch(self, e: int, depth: int) -> Sequence[float | None] | None:
        """Reductions, their counts (1: sums count as means), and sums divided by a count that is a constant."""
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if len(data) < (2 if op == "Split" else 1):  # a damaged graph
            return None
        if is_count_op(op):
            whole = data[1] if op == "Split" else data[0]
            return (1.0,) * len(self.leaves) if is_count(graph, e) else self.values(whole, depth)
        if op in MAY_REDUCE and (reduction := reduction_at(graph, node)) is not None:
            return self._element(reduction.of, depth, 0)
        if op in ALL_REDUCE:
            return self.values(data[0], depth)
        if op in _QUOTIENTS and len(data) == 2:
            for total, count in ((data[0], data[1]), (data[1], data[0])) if op == "Mul" else (data,):
                if self._is_sum(total) and is_number(graph, count):
                    return self.values(total, depth)
        return None

    def _is_sum(self, e: int) -> bool:
        graph = self.graph
        node = node_of(next(iter(sources(graph, e)), e))
        if graph.ops[node] not in _SUMS:
            return False
        reduction = reduction_at(graph, node)
        return graph.ops[node] in ALL_REDUCE or (reduction is not None and reduction.factor is not None)

    def _element(self, e: int, depth: int, inside: int) -> Sequence[float | None]:
        """What each element of a reduced tensor is: data, shifted, squared or weighed a few times."""
        data_value: Sequence[float | None] = (self.batch,) * len(self.leaves)
        found = sources(self.graph, e)
        node = node_of(found[0])
        op, data = self.graph.ops[node], self.graph.data[node]
        if len(found) != 1 or inside > _INSIDE or op not in _OF_ELEMENTS or not data:
            return data_value
        if op in ("Sub", "SquaredDifference"):
            shift = self.values(data[1], depth)
            if None in shift:
                return data_value
            operands = [self._element(data[0], depth, inside + 1), shift]
        else:
            operands = [self._element(x, depth, inside + 1) for x in data]
        return [self._computed(op, one) for one in zip(*operands, strict=True)]

    def _computed(self, op: str, operands: Sequence[float | None]) -> float | None:
        known = [x for x in operands if x is not None]
        if op == "Minimum" and len(known) == 1 and self.in_the_end:
            return known[0]
        if (op == "Mul" and 0.0 in known) or (op in _DIVISIONS and operands[0] == 0.0):
            return 0.0  # of a moment that is 0, whatever it is weighed and counted by
        if len(known) < len(operands):
            return None
        try:
            return float(_ARITHMETIC[op](*known))
        except (ArithmeticError, ValueError):
            return None

    def _chosen(self, e: int) -> tuple[int, ...]:
        """The inputs that pass on under the assumed conditions."""
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in SELECTS and len(data) == 3:
            holds = self._holds(data[0])
            if holds is not None:
                return (data[1],) if holds else (data[2],)
        if op in CONDITIONALS and node in graph.returns and data:
            holds = self._holds(data[0])
            if holds is not None:
                branch = 0 if holds else 1
                edges = graph.returns[node][branch : branch + 1]
                return tuple(edges[0][port_of(e) : port_of(e) + 1]) if edges else ()
        if op in ROWS and data:
            return data[:1]  # of equal numbers
        back = steps_back(graph, e) or ()
        if op in MERGES:
            return tuple(x for x in back if self._possible(x))
        return back

    def _holds(self, condition: int) -> bool | None:
        """Whether a condition is true, by assumption or because it is a constant."""
        source, negated = predicate(self.graph, condition)
        value = self.assume.get(source, self._constant(source))
        return None if value is None else value != negated

    def _constant(self, source: int) -> bool | None:
        return truth(self.graph, edge(source)) if self.graph.ops[source] == "Const" else None

    def _possible(self, e: int) -> bool:
        return all(
            self.assume.get(where, self._constant(where)) in (side, None) for where, side in self.contexts.along(e)
        )
