"""What number an edge has, its leaves and the conditions being given: how decays are read from updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, node_of, port_of
from bncheck.recognise.graph.trace import MERGES, PLACEHOLDERS, SELECTS, VARIABLES, predicate, scalar, steps_back

_LIMIT = 400
"""Edges one evaluation may visit; updates need a few dozen."""

_ARITHMETIC: dict[str, Callable[..., float]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "RealDiv": lambda a, b: a / b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: a**b,
    "Maximum": max,
    "Minimum": min,
    "Neg": lambda a: -a,
    "Square": lambda a: a * a,
    "Sqrt": math.sqrt,
    "Rsqrt": lambda a: 1 / math.sqrt(a),
    "Reciprocal": lambda a: 1 / a,
    "Exp": math.exp,
}


def evaluate(
    graph: FlatGraph,
    e: int,
    leaves: Sequence[dict[int, float]],
    contexts: Contexts,
    assume: dict[int, bool],
    *,
    in_the_end: bool = True,
) -> list[float | None]:
    """The numbers that `e` has, one for each of `leaves` (all of the same edges), as the conditions in `assume` hold.

    Used on updates, which are affine in the variable and the batch moment: with the variable at 1 and the moments at 0
    the new value is the decay, whatever way it is written. An assumed condition that enters as a number (a phase of 0
    or 1) is that number. None where anything else enters, or conditions stay open.
    A minimum with one unknown operand is, `in_the_end`, the known one: `min(decay, (1 + n) / (10 + n))` is `decay` for
    long runs.
    """
    return list(_Evaluation(graph, leaves, contexts, assume, in_the_end=in_the_end).values(e, 0))


class _Evaluation:
    def __init__(
        self,
        graph: FlatGraph,
        leaves: Sequence[dict[int, float]],
        contexts: Contexts,
        assume: dict[int, bool],
        *,
        in_the_end: bool,
    ) -> None:
        self.graph, self.leaves, self.contexts, self.assume = graph, leaves, contexts, assume
        self.in_the_end = in_the_end
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
        if op == "Const":
            return (scalar(graph, e),) * len(self.leaves)
        if node in self.assume and (op in PLACEHOLDERS or op in VARIABLES):
            return (float(self.assume[node]),) * len(self.leaves)
        if op in _ARITHMETIC and data:
            operands = [self.values(x, depth) for x in data]
            return [self._computed(op, one) for one in zip(*operands, strict=True)]
        back = [self.values(x, depth) for x in self._chosen(e)]
        if len(back) == 1:
            return back[0]
        return [one[0] if len(set(one)) == 1 else None for one in zip(*back, strict=True)] or self.unknown

    def _computed(self, op: str, operands: Sequence[float | None]) -> float | None:
        known = [x for x in operands if x is not None]
        if op == "Minimum" and len(known) == 1 and self.in_the_end:
            return known[0]
        if op == "Mul" and 0.0 in known:
            return 0.0
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
            source, negated = predicate(graph, data[0])
            if source in self.assume:
                return (data[1],) if self.assume[source] != negated else (data[2],)
        if op in CONDITIONALS and node in graph.returns and data:
            source, negated = predicate(graph, data[0])
            if source in self.assume:
                branch = 0 if self.assume[source] != negated else 1
                edges = graph.returns[node][branch : branch + 1]
                return tuple(edges[0][port_of(e) : port_of(e) + 1]) if edges else ()
        back = steps_back(graph, e) or ()
        if op in MERGES:
            return tuple(x for x in back if self._possible(x))
        return back

    def _possible(self, e: int) -> bool:
        graph = self.graph
        conditions = set(self.contexts.of(node_of(e)).conditions)
        if graph.ops[node_of(e)] in ("Switch", "RefSwitch") and len(graph.data[node_of(e)]) > 1:
            source, negated = predicate(graph, graph.data[node_of(e)][1])
            conditions.add((source, bool(port_of(e)) != negated))
        return all(self.assume.get(where, side) == side for where, side in conditions)
