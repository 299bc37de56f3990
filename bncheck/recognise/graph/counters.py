"""Scalar variables behind a decay: the count it rises with, or the decay itself, and whether anything writes them."""

from __future__ import annotations

from collections.abc import Mapping

from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.trace import VARIABLES, declared_shape, sources
from bncheck.recognise.graph.updates import WRITES
from bncheck.recognise.graph.variables import Stored

_EDGES = 80
"""What leads from an update to its decay and on to its count; both take about a dozen."""
_HANDS_ON = frozenset({"Identity", "RefIdentity", "Enter", "RefEnter", "Switch", "RefSwitch"})
_RESTORES = frozenset({"Const", "Fill", "RestoreV2", "Restore", "RestoreSlice"})


def stuck_counter(graph: FlatGraph, stored: Stored, value: int) -> int | None:
    """The variable behind a minimum in `value` that only initialisers and restores write; None: there is none.

    `min(decay, (1 + n) / (10 + n))` is how `ExponentialMovingAverage(num_updates=n)` warms up. A count that the
    checkpoint holds and that is not zero was once written, by whomever.
    """
    counters = {variable for minimum in _minima(graph, value) for variable in _scalars(graph, minimum)}
    stuck = [node for node in counters if not _written(graph, node) and _zero(stored, node)]
    return stuck[0] if len(stuck) == len(counters) == 1 else None


def fixed_numbers(graph: FlatGraph, stored: Stored, value: int, initial: Mapping[int, float]) -> dict[int, float]:
    """Scalar variables in `value` that only initialisers and restores write, with what they hold, or begin with."""
    found = {}
    for node in _scalars(graph, node_of(value)):
        tensor = stored.tensor(node)
        number = initial.get(node)
        if tensor is not None and tensor.unavailable is None:
            number = float(tensor.read().reshape(-1)[0])
        if number is not None and not _written(graph, node):
            found[node] = number
    return found


def _minima(graph: FlatGraph, value: int) -> list[int]:
    return [node for node in _behind(graph, node_of(value)) if graph.ops[node] == "Minimum"]


def _scalars(graph: FlatGraph, node: int) -> list[int]:
    return [v for v in _behind(graph, node) if graph.ops[v] in VARIABLES and declared_shape(graph, v) == ()]


def _behind(graph: FlatGraph, node: int) -> list[int]:
    """The nearest nodes that a node's value is made of, itself included."""
    stack, seen = [node], {node}
    while stack and len(seen) < _EDGES:
        for e in graph.data[stack.pop()]:
            if node_of(e) not in seen:
                seen.add(node_of(e))
                stack.insert(0, node_of(e))
    return list(seen)


def _written(graph: FlatGraph, variable: int) -> bool:
    """Whether any op gives the variable a value of its own: not an initialiser, not a restore."""
    stack, seen = [variable], {variable}
    while stack:
        node = stack.pop()
        for consumer in graph.consumers(node):
            op, data = graph.ops[consumer], graph.data[consumer]
            target = bool(data) and node_of(data[0]) == node
            if consumer in graph.returns:
                continue  # what its body does with the variable stands beside it
            if op in _HANDS_ON and target and consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
            elif op in WRITES and target and (op not in ("Assign", "AssignVariableOp") or not _given(graph, data[1])):
                return True
    return False


def _given(graph: FlatGraph, value: int) -> bool:
    return all(graph.ops[node_of(e)] in _RESTORES for e in sources(graph, value))


def _zero(stored: Stored, variable: int) -> bool:
    tensor = stored.tensor(variable)
    return tensor is None or tensor.unavailable is not None or not tensor.read().any()
