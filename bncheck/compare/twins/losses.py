"""What losses are made of: the way back from them to what the network put out."""

from __future__ import annotations

from collections.abc import Iterable

from bncheck.compare.twins.reach import Parts, data_of, ends, tells_only
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph.trace import VARIABLES, constant, sources

_LOGITS_OF = frozenset(
    "SparseSoftmaxCrossEntropyWithLogits SoftmaxCrossEntropyWithLogits LogSoftmax CTCLoss CTCLossV2".split()
)
"""Losses, and what new TensorFlow makes them of, whose first input is the logits."""
_BEHIND_LOGITS = frozenset("Identity Cast ArgMax Softmax LogSoftmax TopKV2 Enter Transpose StopGradient".split())
"""Ops between the logits and what reads them, or that change no more than their layout."""
_LAST_OPERAND = {"TensorArrayScatterV3": 2, "TensorArrayWriteV3": 2, "TensorArrayReadV3": 2}
"""Which operand is the tensor, where it is not the first."""
_OF_A_LOSS = frozenset(
    "Mean Sum Max Min Prod AddN Add AddV2 BiasSub Sub Mul RealDiv Div DivNoNan Square SquaredDifference Sqrt Rsqrt Abs "
    "Neg Log Log1p Exp Expm1 Pow Maximum Minimum Softplus L2Loss Select SelectV2 Greater GreaterEqual Less LessEqual "
    "Equal NotEqual Cast Identity Reshape Squeeze ExpandDims StopGradient ClipByValue LogSoftmax ZerosLike "
    "OnesLike Xlogy Transpose".split()
)
"""Ops that turn predictions into a number: passed on the way back from the loss to what the network put out."""
_FACTORS = 4
"""By which scores are scaled one after another, such as a temperature."""
_OF_A_SOFTPLUS = frozenset("Exp Neg Abs Select SelectV2 Reshape Squeeze ExpandDims".split())


def logits_of_losses(parts: Parts) -> list[int]:
    """What losses on classes take; not where it holds samples against each other."""
    flat = parts.flat
    found = [_before_flattening(flat, node) for node in flat.order if flat.ops[node] in _LOGITS_OF]
    return [e for e in found if _of_the_input_alone(parts, e) and not _among_samples(parts, e)]


def samples_compared(parts: Parts) -> list[int]:
    """Scores of a batch's samples against each other, as contrastive losses take them."""
    flat = parts.flat
    found = [_before_flattening(flat, node) for node in flat.order if flat.ops[node] in _LOGITS_OF]
    return [e for e in found if _of_the_input_alone(parts, e) and _among_samples(parts, e)]


def _of_the_input_alone(parts: Parts, e: int) -> bool:
    node = node_of(e)
    return bool(parts.ours[node] and parts.behind[node] and not parts.others[node])


def _before_flattening(flat: FlatGraph, loss: int) -> int:
    """The logits of a loss; before the reshape by which the loss itself makes pixels rows."""
    e = _logits(flat, flat.data[loss][0])
    scope = flat.names[node_of(e)].rpartition("/")[0]
    own = flat.ops[node_of(e)] == "Reshape" and scope in (flat.names[loss].rpartition("/")[0] or None, flat.names[loss])
    return _logits(flat, flat.data[node_of(e)][0]) if own else e


def _among_samples(parts: Parts, e: int) -> bool:
    """Whether it is a product of predictions with predictions, scaled or not: (samples, samples)."""
    flat = parts.flat
    for _ in range(_FACTORS):
        node = node_of(e)
        behind = [x for x in flat.data[node] if parts.behind[node_of(x)]]
        if _is_product(parts, node):
            return True
        if flat.ops[node] not in ("Mul", "RealDiv", "Neg") or len(behind) != 1 or _of_the_network(parts, node):
            return False
        e = _logits(flat, behind[0])
    return False


def _is_product(parts: Parts, node: int) -> bool:
    """Whether a matrix product has predictions on both sides; behind attention there are weights."""
    flat = parts.flat
    return flat.ops[node] == "MatMul" and all(parts.behind[node_of(x)] for x in flat.data[node])


def logits_of_sigmoids(flat: FlatGraph) -> frozenset[int]:
    """What losses on sigmoids take: TensorFlow writes them as `log1p(exp(-|x|))`, its own |x| being a choice."""
    found: set[int] = set()
    stack = [e for op in ("Log1p", "Softplus") for node in flat.by_op.get(op, ()) for e in flat.data[node]]
    seen = set(stack)
    while stack:
        e = _logits(flat, stack.pop())
        op, data = flat.ops[node_of(e)], flat.data[node_of(e)]
        if op not in _OF_A_SOFTPLUS:
            found.add(e)
            continue
        following = set(data[1:] if op in ("Select", "SelectV2") else data) - seen
        seen |= following
        stack += following
    return frozenset(found)


def where_labels_join(parts: Parts) -> list[int]:
    """What the ops that need labels as well take from the forward pass, back to what the network put out."""
    flat = parts.flat
    joined = [
        e
        for node in flat.order
        if parts.ours[node] and parts.others[node] and not parts.backward[node] and not tells_only(flat, node)
        if node not in parts.within_dropout
        for e in data_of(flat, node)
        if parts.behind[node_of(e)] and not parts.others[node_of(e)] and not tells_only(flat, node_of(e))
    ]
    return put_out(parts, [*joined, *samples_compared(parts)])


def before_the_loss(parts: Parts) -> list[int]:
    """A loss that takes no labels (an autoencoder's, a generator's): what it is made of.

    Nothing of the forward pass follows it.
    """
    if not any(parts.backward):
        return []
    return put_out(parts, [edge(node) for node in ends(parts) if parts.flat.ops[node] in _OF_A_LOSS])


def put_out(parts: Parts, edges: Iterable[int]) -> list[int]:
    """The first tensors behind batch norm that are no part of a loss, going back from `edges`; in forward order."""
    flat = parts.flat
    logits = set(logits_of_losses(parts))
    found: list[int] = []
    stack = [_logits(flat, e) for e in edges]
    seen = set(stack)
    while stack:
        e = stack.pop()
        node = node_of(e)
        of_a_loss = flat.ops[node] in _OF_A_LOSS or _is_product(parts, node)
        passed = e not in logits and of_a_loss and not _of_the_network(parts, node)
        inner = [x for x in data_of(flat, node) if parts.behind[node_of(x)]] if passed else []
        if not inner and parts.behind[node]:
            found.append(e)
        for x in inner:
            following = _logits(flat, x)
            if following not in seen:
                seen.add(following)
                stack.append(following)
    place = {node: number for number, node in enumerate(flat.order)}
    return sorted(set(found), key=lambda e: place[node_of(e)])


def _of_the_network(parts: Parts, node: int) -> bool:
    """Whether an op that losses use as well is a batch norm, adds a bias, scales by weights, or pools."""
    flat = parts.flat
    if node in parts.sites or any(_weights(flat, e) for e in flat.data[node]):
        return True
    if flat.ops[node] != "Mean" or len(flat.data[node]) < 2:
        return False
    axes = constant(flat, flat.data[node][1])
    return axes is not None and sorted(axes.reshape(-1).tolist()) in ([1, 2], [2, 3], [-3, -2], [-2, -1])


def _weights(flat: FlatGraph, e: int) -> bool:
    found = sources(flat, e)
    return bool(found) and all(flat.ops[node_of(x)] in VARIABLES for x in found)


def _logits(flat: FlatGraph, e: int) -> int:
    for _ in range(64):
        op, data = flat.ops[node_of(e)], flat.data[node_of(e)]
        place = _LAST_OPERAND.get(op, 0)
        if (op not in _BEHIND_LOGITS and op not in _LAST_OPERAND) or len(data) <= place:
            return e
        e = data[place]
    return e
