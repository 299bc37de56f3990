"""Batch norm that the graph itself folds into the weights of a linear op, as quantization-aware training writes it.

`linear(x, [FakeQuant](weights * gamma / sigma)) + (beta - mean * gamma / sigma)`: what `create_training_graph` and
`create_eval_graph` of tf.contrib.quantize make (arXiv 1806.08342, section 3.2.2). In training, factors between the two
take the deviation of the moving statistics out again and that of the batch in, until batch norm is frozen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph.operands import per_channel_shape
from bncheck.recognise.graph.trace import (
    FAKE_QUANT,
    MERGES,
    VARIABLES,
    constant,
    predicate,
    scalar,
    sources,
    steps_back,
)
from bncheck.recognise.graph.upstream import LINEAR

_ADD = frozenset({"Add", "AddV2"})
_COMPARE = {"GreaterEqual": 0, "Greater": 1}
"""Op -> what is added to its limit to make it a step from which on it holds."""
_PASSED = frozenset({"Identity", "Reshape", "BatchToSpaceND"})
_STEPS = 12


@dataclass(frozen=True, kw_only=True)
class Reached:
    """`counter >= step`: when a part of the training changes."""

    predicate: int
    counter: int
    """Variable node."""
    step: int


@dataclass(frozen=True, kw_only=True)
class Fold:
    """The parts of one folded batch norm; nodes and edges."""

    output: int
    """The op that adds the folded bias: its output is the normalised value."""
    linear: int
    x: int
    """Edge that enters the linear op."""
    kernel: int
    """Edge of the weights as they are trained."""
    after: tuple[int, ...]
    """Ops between the linear op and its output that move values about, first to last (BatchToSpaceND)."""
    fake_quant: int | None
    """Rounds the folded weights."""
    corrected: bool
    """Whether factors lie between, which only a graph of training has."""
    freeze: Reached | None
    """From when on training normalises with the moving statistics; None: never."""


def fold_around(graph: FlatGraph, contexts: Contexts, bias: int) -> Fold | None:
    """The fold that adds `bias`, the node of `beta - mean * gamma / sigma`; None where nothing does."""
    for output, other in _sums(graph, bias):
        found = _linear(graph, other)
        if found is None:
            continue
        linear, after, factors = found
        weights = _weights(graph, graph.data[linear][1])
        if weights is not None:
            kernel, fake_quant = weights
            return Fold(
                output=output,
                linear=linear,
                x=graph.data[linear][0],
                kernel=kernel,
                after=after,
                fake_quant=fake_quant,
                corrected=bool(factors),
                freeze=next((r for e in factors if (r := _choice(graph, contexts, e)) is not None), None),
            )
    return None


def reached(graph: FlatGraph, node: int) -> Reached | None:
    """A condition as a counter and the step from which it holds; None where it is another one."""
    data = graph.data[node]
    if graph.ops[node] not in _COMPARE or len(data) != 2:
        return None
    limit = constant(graph, data[1])
    counters = {node_of(e) for e in sources(graph, data[0])}
    if limit is None or limit.size != 1 or len(counters) != 1:
        return None
    counter = counters.pop()
    if graph.ops[counter] not in VARIABLES:
        return None
    return Reached(predicate=node, counter=counter, step=int(limit.reshape(-1)[0]) + _COMPARE[graph.ops[node]])


def rounding(graph: FlatGraph) -> dict[int, bool]:
    """Conditions that let values be rounded only from some step of training on -> the value with which they are."""
    found: dict[int, bool] = {}
    for op in FAKE_QUANT:
        for node in graph.by_op.get(op, ()):
            for switch in graph.consumers(node):
                if graph.ops[switch] != "Switch" or graph.data[switch][0] != edge(node):
                    continue
                where, negated = predicate(graph, graph.data[switch][1])
                for side in (False, True):
                    taken_on = edge(switch, int(side))
                    if any(_merges(graph, user, taken_on) for user in graph.consumers(switch)):
                        found[where] = side != negated
    return found


def _merges(graph: FlatGraph, node: int, e: int) -> bool:
    """Whether a node merges an edge, at once or through a copy."""
    if e not in graph.data[node]:
        return False
    if graph.ops[node] in MERGES:
        return True
    copied = graph.ops[node] == "Identity"
    return copied and any(graph.ops[user] in MERGES for user in graph.consumers(node))


def _sums(graph: FlatGraph, bias: int) -> Iterator[tuple[int, int]]:
    """(node, other operand) of each sum that takes a folded bias."""
    reading = [edge(bias)]
    for e in reading[:_STEPS]:
        for node in graph.consumers(node_of(e)):
            data = graph.data[node]
            if graph.ops[node] in _ADD and len(data) == 2 and e in data:
                yield node, data[1] if data[0] == e else data[0]
            elif graph.ops[node] in ("Reshape", "Identity") and data[0] == e:
                reading.append(edge(node))


def _linear(graph: FlatGraph, e: int) -> tuple[int, tuple[int, ...], tuple[int, ...]] | None:
    """(linear op, ops after it, edges of the factors and offsets between) behind an operand of the last sum."""
    ways: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = [(e, (), ())]
    for _ in range(_STEPS):
        if not ways:
            break
        current, after, factors = ways.pop(0)
        node = node_of(current)
        op, data = graph.ops[node], graph.data[node]
        if op in LINEAR and len(data) > 1:
            return node, after, factors
        if op in _ADD | {"Mul"} and len(data) == 2:
            ways += [(data[0], after, (*factors, data[1])), (data[1], after, (*factors, data[0]))]
        elif op in _PASSED and data:
            ways.append((data[0], (node, *after) if op == "BatchToSpaceND" else after, factors))
    return None


def _weights(graph: FlatGraph, e: int) -> tuple[int, int | None] | None:
    """(edge of the trained weights, FakeQuant on their product with the scale) behind a linear op's kernel."""
    fake_quant, scaled = None, False
    for _ in range(_STEPS):
        node = node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in FAKE_QUANT and not scaled:
            fake_quant, e = node, data[0]
        elif op in MERGES and not scaled:
            # quantization that starts late: one of the two ways is rounded
            ways = [found for way in data if (found := _behind_switch(graph, way)) is not None]
            e = next((way for way in ways if graph.ops[node_of(way)] in FAKE_QUANT), ways[0])
        elif op == "Mul" and len(data) == 2:
            scaled = True
            kernel = next((way for way in data if _is_kernel(graph, way)), None)
            if kernel is not None:
                return kernel, fake_quant
            e = next((way for way in data if graph.ops[node_of(way)] == "Mul"), data[0])
        else:
            back = steps_back(graph, e)
            if back is None or len(back) != 1:
                return None
            e = back[0]
    return None


def _behind_switch(graph: FlatGraph, e: int) -> int | None:
    for _ in range(_STEPS):
        node = node_of(e)
        if graph.ops[node] not in ("Switch", "Identity") or not graph.data[node]:
            return e
        e = graph.data[node][0]
    return None


def _is_kernel(graph: FlatGraph, e: int) -> bool:
    """Whether an edge brings stored weights, which have more axes than that of the channels."""
    found = [node_of(x) for x in sources(graph, e)]
    return bool(found) and all(
        graph.ops[node] in VARIABLES | {"Const"}
        and not per_channel_shape(graph, node)
        and scalar(graph, edge(node)) is None
        for node in found
    )


def _choice(graph: FlatGraph, contexts: Contexts, e: int) -> Reached | None:
    """The condition behind a factor that is chosen by one."""
    for _ in range(_STEPS):
        node = node_of(e)
        if graph.ops[node] in MERGES:
            for way in graph.data[node]:
                inside = node_of(way)
                conditions = [where for where, _ in contexts.of(inside).conditions]
                if graph.ops[inside] == "Switch":
                    conditions.append(predicate(graph, graph.data[inside][1])[0])
                found = next((r for where in conditions if (r := reached(graph, where)) is not None), None)
                if found is not None:
                    return found
            return None
        if node in graph.returns and graph.data[node]:
            return reached(graph, predicate(graph, graph.data[node][0])[0])
        if graph.ops[node] not in ("Reshape", "Identity") or not graph.data[node]:
            return None
        e = graph.data[node][0]
    return None
