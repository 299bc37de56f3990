"""Finds every place in a flat graph that applies batch norm, by its arithmetic and not by its names."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from bncheck.model import Mode
from bncheck.recognise.contexts import Contexts
from bncheck.recognise.flat import FlatGraph, edge, node_of
from bncheck.recognise.operands import FUSED, Operand, classify
from bncheck.recognise.trace import declared_shape, scalar
from bncheck.recognise.upstream import leading_one_reshape

_SAME = frozenset({"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "BroadcastTo", "StopGradient", "Enter"})
"""Ops between the parts of decomposed batch norm that change no number."""
_COPIES = 100
"""Copies that are followed in a row; what TensorFlow writes has a handful."""
_ADD = frozenset({"Add", "AddV2"})
_DIVIDE = frozenset({"RealDiv", "Div"})
_MAX_EPSILON = 0.5
_FUSED_EPSILON = 1e-4
"""The op's own default for `epsilon` (nn_ops.cc)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundSite:
    """One normalisation, with edges into the graph."""

    node: int
    """The op whose output is the normalised value."""
    form: str
    mode: Mode
    mean: Operand
    variance: Operand
    x: int | None
    gamma: int | None = None
    beta: int | None = None
    epsilon: float | None = None
    axis: int | None = None
    rank: int | None = None

    @property
    def switch(self) -> tuple[int, bool] | None:
        """(predicate node, value that selects batch statistics)."""
        return self.variance.switch or self.mean.switch


def find_sites(graph: FlatGraph, contexts: Contexts) -> tuple[list[FoundSite], list[int]]:
    """(sites, nodes that look like batch norm but could not be resolved)."""
    sites = [site for op in sorted(FUSED) for node in graph.by_op.get(op, ()) for site in _fused(graph, contexts, node)]
    sites += [
        _global_normalization(graph, contexts, node) for node in graph.by_op.get("BatchNormWithGlobalNormalization", ())
    ]
    unclear: list[int] = []
    for inverse, variance, epsilon in _inverse_deviations(graph):
        found = _decomposed(graph, contexts, inverse, variance, epsilon)
        if isinstance(found, int):
            unclear.append(found)
        elif found is not None:
            sites.append(found)
    return sites, unclear


def _fused(graph: FlatGraph, contexts: Contexts, node: int) -> Iterator[FoundSite]:
    data = graph.data[node]
    if len(data) < 5:
        return
    training = graph.attr(node, "is_training")
    is_training = True if training is None else bool(training.b)
    if is_training and leading_one_reshape(graph, data[0]):
        return
    mean, variance = classify(graph, contexts, data[3]), classify(graph, contexts, data[4])
    mode = Mode.TRAIN if is_training else _mode(mean, variance, stored_otherwise=True)
    data_format = graph.attr(node, "data_format")
    layout = data_format.s.decode("ascii", "replace") if data_format is not None and data_format.s else "NHWC"
    epsilon = graph.attr(node, "epsilon")
    yield FoundSite(
        node=node,
        form=graph.ops[node],
        mode=mode,
        mean=mean,
        variance=variance,
        x=data[0],
        gamma=data[1],
        beta=data[2],
        epsilon=_FUSED_EPSILON if epsilon is None else float(f"{epsilon.f:.6g}"),
        axis=1 if layout.startswith("NC") else -1,
        rank=len(layout),
    )


def _global_normalization(graph: FlatGraph, contexts: Contexts, node: int) -> FoundSite:
    data = graph.data[node]
    mean, variance = classify(graph, contexts, data[1]), classify(graph, contexts, data[2])
    epsilon, scaled = graph.attr(node, "variance_epsilon"), graph.attr(node, "scale_after_normalization")
    return FoundSite(
        node=node,
        form="BatchNormWithGlobalNormalization",
        mode=_mode(mean, variance),
        mean=mean,
        variance=variance,
        x=data[0],
        gamma=data[4] if scaled is not None and scaled.b else None,
        beta=data[3],
        epsilon=None if epsilon is None else float(f"{epsilon.f:.6g}"),
        axis=-1,
        rank=4,
    )


def _mode(mean: Operand, variance: Operand, *, stored_otherwise: bool = False) -> Mode:
    """Statistics stored, from the batch, or chosen between; unknown where both arrive and nothing chooses."""
    if variance.switch is not None or mean.switch is not None:
        return Mode.SWITCHED
    if variance.chooses or mean.chooses:
        return Mode.UNKNOWN
    if variance.moments:
        return Mode.TRAIN
    if variance.stored or stored_otherwise:
        return Mode.EVAL
    return Mode.UNKNOWN


def _inverse_deviations(graph: FlatGraph) -> Iterator[tuple[int, int, float]]:
    """(edge of 1/sqrt(v + eps) or of sqrt(v + eps), edge of v, eps)."""
    for op in ("Rsqrt", "Sqrt"):
        for node in graph.by_op.get(op, ()):
            found = _plus_epsilon(graph, graph.data[node][0]) if graph.data[node] else None
            if found is not None:
                yield edge(node), *found
    for node in graph.by_op.get("Pow", ()):
        exponent = scalar(graph, graph.data[node][1]) if len(graph.data[node]) == 2 else None
        if exponent in (-0.5, 0.5):
            found = _plus_epsilon(graph, graph.data[node][0])
            if found is not None:
                yield edge(node), *found


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
    if graph.ops[node] not in _ADD | {"Maximum"} or len(graph.data[node]) != 2:
        return None
    left, right = graph.data[node]
    for operand, other in ((right, left), (left, right)):
        value = scalar(graph, operand)
        if value is not None and 0 <= value <= _MAX_EPSILON:
            return other, float(f"{value:.6g}")
    return None


def _users(graph: FlatGraph, e: int) -> Iterator[tuple[int, int]]:
    """(node, edge it reads) of the consumers of an edge, through ops that change no number."""
    stack = [e]
    seen = {e}
    while stack and len(seen) < 40:
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


def _decomposed(
    graph: FlatGraph, contexts: Contexts, inverse: int, variance_edge: int, epsilon: float
) -> FoundSite | int | None:
    """The site around one 1/sqrt(v + eps); None where it is no batch norm; a node where it may be one."""
    variance = classify(graph, contexts, variance_edge)
    if not (variance.stored or variance.moments):
        return None
    divides = graph.ops[node_of(inverse)] == "Sqrt" or (
        graph.ops[node_of(inverse)] == "Pow" and scalar(graph, graph.data[node_of(inverse)][1]) == 0.5
    )
    match = None
    if divides:
        match = _divided(graph, contexts, inverse)
        for node, e in _users(graph, inverse) if match is None else ():
            data = graph.data[node]
            is_inverse = graph.ops[node] in ("Reciprocal", "Inv") or (
                graph.ops[node] in _DIVIDE
                and data[1] == e
                and (scalar(graph, data[0]) is not None or _vector(graph, contexts, data[0]))
            )
            if is_inverse and match is None:
                gamma = data[0] if graph.ops[node] in _DIVIDE and scalar(graph, data[0]) is None else None
                match = _multiplied(graph, contexts, edge(node), gamma)
    else:
        match = _multiplied(graph, contexts, inverse, None)
    if match is None:
        return None
    mean = classify(graph, contexts, match.mean)
    if variance.unclear_axes and not variance.stored:
        return match.output
    if not _is_batch_norm(graph, variance, mean, match):
        return None
    return FoundSite(
        node=match.output,
        form="decomposed",
        mode=_mode(mean, variance),
        mean=mean,
        variance=variance,
        x=match.x,
        gamma=match.gamma,
        beta=match.beta,
        epsilon=epsilon,
        axis=_axis(variance),
        rank=_rank(graph, match.x),
    )


@dataclass(frozen=True, kw_only=True)
class _Match:
    output: int
    x: int | None
    mean: int
    gamma: int | None
    beta: int | None


def _is_batch_norm(graph: FlatGraph, variance: Operand, mean: Operand, match: _Match) -> bool:
    """Stored vectors, or batch moments that keep a channel axis; whitening by one scalar is no batch norm."""
    if variance.other and not variance.stored and not variance.moments:
        return False
    if not (mean.stored or mean.moments):
        return False
    if variance.stored or mean.stored:
        return True
    affine = match.gamma is not None or match.beta is not None
    rank = _rank(graph, match.x)
    if rank is not None:
        return len(variance.axes) < rank
    return affine or variance.axes in ((0,), (0, 1, 2), (0, 2, 3), (0, 1, 2, 3))


def _axis(variance: Operand) -> int | None:
    if variance.axes:
        return 1 if 1 not in variance.axes and len(variance.axes) > 1 and 2 in variance.axes else -1
    shape = variance.reshaped
    if len(shape) > 1:
        wide = [number for number, size in enumerate(shape) if size != 1]
        if len(wide) == 1:
            return -1 if wide[0] == len(shape) - 1 else wide[0]
        return None
    return -1 if variance.stored else None


def _rank(graph: FlatGraph, x: int | None) -> int | None:
    if x is None:
        return None
    shape = declared_shape(graph, node_of(x))
    return None if shape is None else len(shape)


def _vector(graph: FlatGraph, contexts: Contexts, e: int) -> bool:
    """Gamma or beta: a stored vector; batch renorm corrects it by moments."""
    operand = classify(graph, contexts, e)
    return bool(operand.stored) and not operand.other


def _statistic(graph: FlatGraph, contexts: Contexts, e: int) -> bool:
    operand = classify(graph, contexts, e)
    return bool(operand.stored or (operand.moments and not operand.unclear_axes)) and not operand.other


def _multiplied(graph: FlatGraph, contexts: Contexts, inverse: int, gamma: int | None) -> _Match | None:
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


def _affine(graph: FlatGraph, contexts: Contexts, scale: int, gamma: int | None) -> _Match | None:
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
                        graph, contexts, _Match(output=node, x=direct[1], mean=mean, gamma=gamma, beta=None)
                    )
                output = _sum_with(graph, edge(node), products)
                if output is not None:
                    return _Match(output=output[0], x=output[1], mean=mean, gamma=gamma, beta=minuend)
                if minuend is not None and _vector(graph, contexts, minuend):
                    return _Match(output=node, x=None, mean=mean, gamma=gamma, beta=minuend)
    return None


def _negated_mean(
    graph: FlatGraph, contexts: Contexts, products: list[tuple[int, int]], gamma: int | None
) -> _Match | None:
    """`x * m + (-mean * m)`: how tf.nn.batch_normalization writes a layer without beta."""
    for shift, negated in products:
        node = node_of(negated)
        if graph.ops[node] == "Neg" and _statistic(graph, contexts, graph.data[node][0]):
            output = _sum_with(graph, edge(shift), products)
            if output is not None:
                return _Match(output=output[0], x=output[1], mean=graph.data[node][0], gamma=gamma, beta=None)
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


def _centred(graph: FlatGraph, contexts: Contexts, scale: int, gamma: int | None) -> _Match | None:
    for node, e in _users(graph, scale):
        other = _other(graph, node, e)
        if graph.ops[node] != "Mul" or other is None:
            continue
        found = _deviation(graph, contexts, other)
        if found is not None:
            x, mean, factor = found
            return _with_affine(graph, contexts, _Match(output=node, x=x, mean=mean, gamma=gamma or factor, beta=None))
    return None


def _divided(graph: FlatGraph, contexts: Contexts, deviation: int) -> _Match | None:
    """`(x - mean) / sqrt(v + eps)`, in any order with gamma."""
    for node, e in _users(graph, deviation):
        data = graph.data[node]
        if graph.ops[node] not in _DIVIDE or data[1] != e:
            continue
        found = _deviation(graph, contexts, data[0])
        if found is not None:
            x, mean, factor = found
            return _with_affine(graph, contexts, _Match(output=node, x=x, mean=mean, gamma=factor, beta=None))
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


def _with_affine(graph: FlatGraph, contexts: Contexts, match: _Match) -> _Match:
    """Takes in a multiplication by gamma and an addition of beta that follow."""
    for _ in range(2):
        for node, e in _users(graph, edge(match.output)):
            other = _other(graph, node, e)
            if other is None or not _vector(graph, contexts, other):
                continue
            if graph.ops[node] == "Mul" and match.gamma is None and match.beta is None:
                match = _Match(output=node, x=match.x, mean=match.mean, gamma=other, beta=None)
                break
            if graph.ops[node] in _ADD and match.beta is None:
                match = _Match(output=node, x=match.x, mean=match.mean, gamma=match.gamma, beta=other)
                break
    return match
