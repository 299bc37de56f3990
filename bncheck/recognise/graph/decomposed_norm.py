"""Batch norm written out as arithmetic: from 1 / sqrt(variance + epsilon) to the op that gives the normalised value."""

from __future__ import annotations

from collections.abc import Container, Iterator

from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph.operands import classify
from bncheck.recognise.graph.trace import scalar

_SAME = frozenset({"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "BroadcastTo", "StopGradient", "Enter"})
"""Ops between the parts of decomposed batch norm that change no number."""
_COPIES = 100
"""Copies that are followed in a row; what TensorFlow writes has a handful."""
_ADD = frozenset({"Add", "AddV2"})
_DIVIDE = frozenset({"RealDiv", "Div", "DivNoNan"})
_AT_LEAST = _ADD | {"Maximum"}
_ROOTS = _AT_LEAST | {"Sqrt"}
"""What gives a deviation: a root of a variance with epsilon, or epsilon beside a root."""
_INVERTS = frozenset({"Reciprocal", "Inv"})
_MAX_EPSILON = 0.5
_USES = 40
"""Copies of one edge whose users are looked at."""


class Match(Record):
    """The parts of one normalisation: a node, and edges."""

    output: int
    x: int | None
    mean: int
    gamma: int | None
    beta: int | None


def inverse_deviations(graph: FlatGraph) -> Iterator[tuple[int, int, float]]:
    """(edge of 1/sqrt(v + eps) or of sqrt(v + eps), edge of v, eps).

    `sqrt(v) + e` counts as `sqrt(v + e**2)`: the same where v is 0, and where e is small beside it.
    """
    for op in ("Rsqrt", "Sqrt"):
        for node in graph.by_op.get(op, ()):
            found = _plus_epsilon(graph, graph.data[node][0]) if graph.data[node] else None
            if found is not None:
                yield edge(node), *found
            elif op == "Sqrt" and graph.data[node]:
                yield from _epsilon_behind(graph, node)
    for node in graph.by_op.get("Pow", ()):
        exponent = scalar(graph, graph.data[node][1]) if len(graph.data[node]) == 2 else None
        if exponent in (-0.5, 0.5):
            found = _plus_epsilon(graph, graph.data[node][0])
            if found is not None:
                yield edge(node), *found


def match_around(graph: FlatGraph, contexts: Contexts, deviation: int) -> Match | None:
    """The arithmetic around an edge of `inverse_deviations`; None where it is not that of batch norm."""
    node = node_of(deviation)
    op = graph.ops[node]
    is_root = op in _ROOTS or (op == "Pow" and scalar(graph, graph.data[node][1]) == 0.5)
    if not is_root:
        return _multiplied(graph, contexts, deviation, None)
    inverses = _inverted(graph, contexts, deviation)
    matches = (_multiplied(graph, contexts, inverse, gamma) for inverse, gamma in inverses)
    return _divided(graph, contexts, deviation) or next((match for match in matches if match is not None), None)


def _inverted(graph: FlatGraph, contexts: Contexts, deviation: int) -> Iterator[tuple[int, int | None]]:
    """(edge, gamma) of each `gamma / deviation`; gamma is None where the numerator is a constant."""
    for node, e in _users(graph, deviation):
        data = graph.data[node]
        if graph.ops[node] in _INVERTS:
            yield edge(node), None
        elif graph.ops[node] in _DIVIDE and data[1] == e:
            if scalar(graph, data[0]) is not None:
                yield edge(node), None
            elif _vector(graph, contexts, data[0]):
                yield edge(node), data[0]


def _vector(graph: FlatGraph, contexts: Contexts, e: int) -> bool:
    """Gamma or beta: a stored vector; batch renorm corrects it by moments."""
    operand = classify(graph, contexts, e)
    return bool(operand.stored) and not operand.other


def _statistic(graph: FlatGraph, contexts: Contexts, e: int) -> bool:
    operand = classify(graph, contexts, e)
    return bool(operand.stored or (operand.moments and not operand.unclear_axes)) and not operand.other


def _multiplied(graph: FlatGraph, contexts: Contexts, inverse: int, gamma: int | None) -> Match | None:
    """`x * m + (beta - mean * m)` and `(x - mean) * m [+ beta]` with m = inverse [* gamma].

    A gamma that the graph computes (one a class, from a style) is taken in the first form only, which nothing else has.
    """
    scales: list[tuple[int, int | None]] = [(inverse, gamma)]
    computed: list[int] = []
    if gamma is None:
        for node, e in _users(graph, inverse):
            other = _other(graph, node, e)
            if graph.ops[node] == "Mul" and other is not None:
                if _vector(graph, contexts, other):
                    scales.append((edge(node), other))
                else:
                    computed.append(edge(node))
    for scale, scale_gamma in scales:
        found = _affine(graph, contexts, scale, scale_gamma) or _centred(graph, contexts, scale, scale_gamma)
        if found is not None:
            return found
    matches = (_affine(graph, contexts, scale, None) for scale in computed)
    return next((match for match in matches if match is not None), None)


def _affine(graph: FlatGraph, contexts: Contexts, scale: int, gamma: int | None) -> Match | None:
    products = [
        (node, other)
        for node, e in _users(graph, scale)
        if graph.ops[node] == "Mul" and (other := _other(graph, node, e)) is not None
    ]
    without_beta = _negated_mean(graph, contexts, products, gamma)
    if without_beta is not None:
        return without_beta
    for shift, mean in products:
        for node, e in _users(graph, edge(shift)):
            op, data = graph.ops[node], graph.data[node]
            if op == "Neg" or (op == "Sub" and data[1] == e):
                minuend = None if op == "Neg" else data[0]
                direct = next((p for p in products if minuend == edge(p[0]) and p[0] != shift), None)
                if not _statistic(graph, contexts, mean):
                    continue
                if direct is not None:
                    return _with_affine(
                        graph, contexts, Match(output=node, x=direct[1], mean=mean, gamma=gamma, beta=None)
                    )
                output = _sum_with(graph, edge(node), products)
                if output is not None:
                    return Match(output=output[0], x=output[1], mean=mean, gamma=gamma, beta=minuend)
                if minuend is not None and _vector(graph, contexts, minuend):
                    return Match(output=node, x=None, mean=mean, gamma=gamma, beta=minuend)
    return None


def _negated_mean(
    graph: FlatGraph, contexts: Contexts, products: list[tuple[int, int]], gamma: int | None
) -> Match | None:
    """`x * m + (-mean * m)`: how tf.nn.batch_normalization writes a layer without beta."""
    for shift, negated in products:
        node = node_of(negated)
        if graph.ops[node] == "Neg" and _statistic(graph, contexts, graph.data[node][0]):
            output = _sum_with(graph, edge(shift), products)
            if output is not None:
                return Match(output=output[0], x=output[1], mean=graph.data[node][0], gamma=gamma, beta=None)
    return None


def _sum_with(graph: FlatGraph, offset: int, products: list[tuple[int, int]]) -> tuple[int, int] | None:
    """(output node, x) of `x * m + offset`."""
    by_edge = {edge(node): x for node, x in products}
    for node, e in _users(graph, offset):
        other = _other(graph, node, e)
        product = None if other is None else _behind_copies(graph, other, by_edge)
        if graph.ops[node] in _ADD and product in by_edge:
            return node, by_edge[product]
    return None


def _centred(graph: FlatGraph, contexts: Contexts, scale: int, gamma: int | None) -> Match | None:
    for node, e in _users(graph, scale):
        other = _other(graph, node, e)
        if graph.ops[node] != "Mul" or other is None:
            continue
        found = _deviation(graph, contexts, other)
        if found is not None:
            x, mean, factor = found
            return _with_affine(graph, contexts, Match(output=node, x=x, mean=mean, gamma=gamma or factor, beta=None))
    return None


def _divided(graph: FlatGraph, contexts: Contexts, deviation: int) -> Match | None:
    """`(x - mean) / sqrt(v + eps)`, in any order with gamma."""
    for node, e in _users(graph, deviation):
        data = graph.data[node]
        if graph.ops[node] not in _DIVIDE or data[1] != e:
            continue
        found = _deviation(graph, contexts, data[0])
        if found is not None:
            x, mean, factor = found
            return _with_affine(graph, contexts, Match(output=node, x=x, mean=mean, gamma=factor, beta=None))
    return None


def _deviation(graph: FlatGraph, contexts: Contexts, e: int) -> tuple[int, int, int | None] | None:
    """(x, mean, gamma) of `x - mean` or `gamma * (x - mean)`."""
    node = node_of(_behind_copies(graph, e))
    data = graph.data[node]
    if graph.ops[node] == "Sub" and len(data) == 2 and _statistic(graph, contexts, data[1]):
        return data[0], data[1], None
    if graph.ops[node] == "Mul" and len(data) == 2:
        for vector, rest in ((data[0], data[1]), (data[1], data[0])):
            inner = node_of(rest)
            if (
                graph.ops[inner] == "Sub"
                and _vector(graph, contexts, vector)
                and _statistic(graph, contexts, graph.data[inner][1])
            ):
                return graph.data[inner][0], graph.data[inner][1], vector
    return None


def _with_affine(graph: FlatGraph, contexts: Contexts, match: Match) -> Match:
    """Takes in a multiplication by gamma and an addition of beta that follow."""
    for _ in range(2):
        for node, e in _users(graph, edge(match.output)):
            other = _other(graph, node, e)
            if other is None or not _vector(graph, contexts, other):
                continue
            if graph.ops[node] == "Mul" and match.gamma is None and match.beta is None:
                match = Match(output=node, x=match.x, mean=match.mean, gamma=other, beta=None)
                break
            if graph.ops[node] in _ADD and match.beta is None:
                match = Match(output=node, x=match.x, mean=match.mean, gamma=match.gamma, beta=other)
                break
    return match


def _behind_copies(graph: FlatGraph, e: int, known: Container[int] = ()) -> int:
    """The edge behind ops that change no number, or the first one known; copies of a damaged graph may circle."""
    for _ in range(_COPIES):
        data = graph.data[node_of(e)]
        if e in known or graph.ops[node_of(e)] not in _SAME or not data:
            break
        e = data[0]
    return e


def _plus_epsilon(graph: FlatGraph, e: int) -> tuple[int, float] | None:
    node = node_of(_behind_copies(graph, e))
    if graph.ops[node] not in _AT_LEAST or len(graph.data[node]) != 2:
        return None
    left, right = graph.data[node]
    for operand, other in ((right, left), (left, right)):
        value = scalar(graph, operand)
        if value is not None and 0 <= value <= _MAX_EPSILON:
            return other, float(f"{value:.6g}")
    return None


def _epsilon_behind(graph: FlatGraph, root: int) -> Iterator[tuple[int, int, float]]:
    """As `inverse_deviations`, where epsilon is added to a root."""
    for node, e in _users(graph, edge(root)):
        other = _other(graph, node, e)
        epsilon = None if other is None or graph.ops[node] not in _AT_LEAST else scalar(graph, other)
        if epsilon is not None and 0 <= epsilon <= _MAX_EPSILON:
            yield edge(node), graph.data[root][0], float(f"{epsilon**2:.6g}")


def _users(graph: FlatGraph, e: int) -> Iterator[tuple[int, int]]:
    """(node, edge it reads) of the consumers of an edge, through ops that change no number."""
    stack = [e]
    seen = {e}
    while stack and len(seen) < _USES:
        current = stack.pop()
        for node in graph.consumers(node_of(current)):
            if current not in graph.data[node]:
                continue
            if graph.ops[node] in _SAME and graph.data[node][0] == current:
                if edge(node) not in seen:
                    seen.add(edge(node))
                    stack.append(edge(node))
            else:
                yield node, current


def _other(graph: FlatGraph, node: int, e: int) -> int | None:
    data = graph.data[node]
    if len(data) != 2:
        return None
    return data[1] if data[0] == e else data[0]
