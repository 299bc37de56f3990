"""Where a graph's forward pass begins and ends, when nobody says: data that feeds batch norm, logits of the loss."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, replace

from bncheck.compare.outputs import Kind
from bncheck.errors import UsageError
from bncheck.recognise.feeds import is_feed
from bncheck.recognise.flat import CONDITIONALS, FlatGraph, edge, node_of
from bncheck.recognise.graph_view import GraphView
from bncheck.recognise.operands import FUSED
from bncheck.recognise.trace import VARIABLES, constant, sources
from bncheck.recognise.updates import WRITES
from bncheck.recognise.upstream import dropout_input, is_dropout
from bncheck.sources.raw import RawSignature

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
_SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank"})
_NO_OUTPUT = (
    frozenset("Assert NoOp Const L2Loss ArgMax AsString LookupTableFindV2 Print PrintV2 StringFormat InTopK".split())
    | {"InTopKV2"}
    | _SHAPE_ONLY
    | WRITES
    | VARIABLES
)
_OF_A_SOFTPLUS = frozenset("Exp Neg Abs Select SelectV2 Reshape Squeeze ExpandDims".split())
_RESHAPES = frozenset({"Reshape", "Squeeze", "ExpandDims", "Transpose"})
_RECTIFIERS = frozenset("Relu Relu6 LeakyRelu Elu Selu Minimum Maximum".split())
_PASSES = 4
_HEADS = 8
"""More ends than that are no heads."""
_GRADIENT = re.compile(r"(^|/)gradients(_\d+)?/")
"""The scope that `tf.gradients`, and with it every optimizer, opens."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One output to compare at."""

    name: str
    edge: int
    kind: Kind


@dataclass(frozen=True, kw_only=True, eq=False)
class _Parts:
    """Which nodes of a graph belong to what."""

    flat: FlatGraph
    sites: Container[int]
    """Batch norms."""
    ours: bytearray
    """Depend on the input."""
    others: bytearray
    """Depend on other data, as labels are."""
    behind: bytearray
    """Depend on a batch norm."""
    backward: bytearray
    """Belong to the backward pass, or to the optimizer behind it."""
    within_dropout: Container[int]
    """Scale or thin out, with a rate that may be fed."""


def find_input(view: GraphView, named: str | None = None) -> int:
    """The edge at which data enters; raises UsageError where the graph does not tell."""
    flat = view.flat
    if named is not None:
        return _named(flat, named)
    counts: dict[int, int] = {}
    for layer in view.layers:
        for site in layer.sites:
            if site.x is not None:
                for e in _feeding(view.flat, site.x):
                    counts[e] = counts.get(e, 0) + 1
    if not counts:
        raise UsageError("no placeholder, iterator or queue feeds the batch norm of this graph: name one with --inputs")
    best = max(counts.values())
    found = [e for e, count in counts.items() if count == best]
    signature = _signature(view)
    if signature is not None and len(found) > 1:
        found = [e for e in found if e in {flat.lookup(name) for name in signature.inputs.values()}] or found
    if len(found) > 1:
        found = [e for e in found if not _reached(flat, [x for x in found if x != e])[node_of(e)]] or found
    if len(found) > 1 and _alike(view, found):
        found = found[:1]  # towers that share their layers: one stands for all
    if len(found) > 1:
        names = ", ".join(_tensor(view.flat, e) for e in found)
        raise UsageError(f"several inputs feed batch norm ({names}): choose one with --inputs")
    return found[0]


def find_outputs(view: GraphView, input_edge: int, named: tuple[str, ...] = ()) -> list[Exit]:
    """Where to compare: what is named, else what the signature gives, else what the loss takes, else the ends."""
    flat = view.flat
    if named:
        return [_exit(view, name, _named(flat, name)) for name in named]
    ours = _reached(flat, [input_edge])
    signature = _signature(view)
    if signature is not None:
        return _served(view, {key: _named(flat, tensor) for key, tensor in signature.outputs.items()}, ours)
    sites = frozenset(site.node for layer in view.layers for site in layer.sites)
    parts = _Parts(
        flat=flat,
        sites=sites,
        ours=ours,
        others=_reached(flat, [e for e in _all_feeds(flat) if e != input_edge]),
        behind=_reached(flat, [edge(node) for node in sites]),
        backward=_backward(flat),
        within_dropout=_within_dropout(flat),
    )
    logits = _logits_of_losses(parts)
    learned = [*logits, *_put_out(parts, [*logits, *_where_labels_join(parts)])] or _before_the_loss(parts)
    found = learned or _of_inference(parts)
    if not found:
        raise UsageError("no output was found behind the batch norm of this graph: name one with --outputs")
    exits = [_exit(view, _told(flat, e), e) for e in dict.fromkeys(found)]
    binary = _logits_of_sigmoids(flat) if learned else frozenset()
    return [replace(e, kind=_by_the_loss(e, logits, binary)) if learned else e for e in exits]


def _told(flat: FlatGraph, e: int) -> str:
    return flat.names[node_of(e)] + (f":{e & 0xFFFF}" if e & 0xFFFF else "")


def _exit(view: GraphView, name: str, e: int) -> Exit:
    flat = view.flat
    sites = {site.node for layer in view.layers for site in layer.sites}
    behind = _through_calls(flat, e, also=_RESHAPES)
    if flat.ops[node_of(behind)] == "Sigmoid":
        return Exit(name=name, edge=e, kind=Kind.PROBABILITIES)
    rectified = node_of(behind) in sites or flat.ops[node_of(behind)] in _RECTIFIERS
    return Exit(name=name, edge=e, kind=Kind.FEATURES if rectified else Kind.UNKNOWN)


def _by_the_loss(found: Exit, logits: Container[int], binary: Container[int]) -> Kind:
    if found.kind is Kind.PROBABILITIES:
        return found.kind
    return Kind.SCORES if found.edge in logits else Kind.LOGITS if found.edge in binary else Kind.NUMBERS


def _served(view: GraphView, outputs: dict[str, int], ours: bytearray) -> list[Exit]:
    """The outputs of a signature that are numbers computed from the input; a class's number gives way to its scores."""
    flat = view.flat
    numbers = {
        key: e
        for key, e in outputs.items()
        if ours[node_of(e)] and flat.ops[node_of(_through_calls(flat, e))] not in _NO_OUTPUT
    }
    return [_exit(view, key, e) for key, e in (numbers or outputs).items()]


def _through_calls(flat: FlatGraph, e: int, also: Container[str] = ()) -> int:
    """The edge behind a call and what merely passes it on."""
    for _ in range(64):
        node = node_of(e)
        if node in flat.returns and flat.ops[node] not in CONDITIONALS and flat.returns[node]:
            behind = flat.returns[node][0]
            if (e & 0xFFFF) >= len(behind):
                return e
            e = behind[e & 0xFFFF]
        elif (flat.ops[node] in ("Identity", "IdentityN", "Cast") or flat.ops[node] in also) and flat.data[node]:
            e = flat.data[node][e & 0xFFFF if flat.ops[node] == "IdentityN" else 0]
        else:
            return e
    return e


def _alike(view: GraphView, feeds: list[int]) -> bool:
    """Whether every feed reaches the same layers, at sites of its own."""
    reached: dict[int, set[int]] = {e: set() for e in feeds}
    for number, layer in enumerate(view.layers):
        for site in layer.sites:
            by = [e for e in _feeding(view.flat, site.x) if e in reached] if site.x is not None else []
            if len(by) > 1:
                return False
            for e in by:
                reached[e].add(number)
    return len({frozenset(layers) for layers in reached.values()}) == 1


def _signature(view: GraphView) -> RawSignature | None:
    """The signature that serves: `serving_default`, else the first whose run writes no weights."""
    names = [name.partition("/")[0] for name in view.outputs]
    serving = [s for s in view.raw.signatures if s.name in names]
    return next((s for s in serving if s.name == "serving_default"), serving[0] if serving else None)


def _named(flat: FlatGraph, name: str) -> int:
    e = flat.lookup(name)
    if e is None:
        last = name.partition(":")[0].rpartition("/")[2]
        near = [n for n in flat.names[: flat.main_nodes] if last in n][:3]
        raise UsageError(f"the graph has no tensor {name!r}" + (f"; near: {', '.join(near)}" if near else ""))
    return e


def _tensor(flat: FlatGraph, e: int) -> str:
    return f"{flat.names[node_of(e)]}:{e & 0xFFFF}"


def _feeding(flat: FlatGraph, e: int) -> list[int]:
    """The feed edges that reach `e`."""
    found: list[int] = []
    seen = {e}
    stack = [e]
    while stack:
        current = stack.pop()
        node = node_of(current)
        if is_feed(flat, flat.ops[node], node):
            found.append(current)
            continue
        for x in (*flat.data[node], *(b for branch in flat.returns.get(node, ()) for b in branch)):
            if x not in seen and flat.ops[node_of(x)] not in VARIABLES:
                seen.add(x)
                stack.append(x)
    return found


def _all_feeds(flat: FlatGraph) -> list[int]:
    feeds = {node for op, nodes in flat.by_op.items() for node in nodes if is_feed(flat, op, node)}
    return [e for edges in flat.data for e in edges if node_of(e) in feeds]


def _reached(flat: FlatGraph, edges: list[int]) -> bytearray:
    """Nodes whose data depend on any of the edges; what only chooses a branch, or drops out, is no data."""
    flags = bytearray(len(flat.ops))
    wanted = set(edges)
    # around a loop the values come back to nodes that were passed already
    for _ in range(_PASSES if "NextIteration" in flat.by_op else 1):
        before = bytes(flags)
        for node in flat.order:
            data = _data(flat, node)
            if any(e in wanted or flags[node_of(e)] for e in data) or any(
                e in wanted or flags[node_of(e)] for branch in flat.returns.get(node, ()) for e in branch
            ):
                flags[node] = 1
        if flags == before:
            break
    return flags


def _data(flat: FlatGraph, node: int) -> tuple[int, ...]:
    data, op = flat.data[node], flat.ops[node]
    if op in _SHAPE_ONLY:
        return ()
    if any(e & 0xFFFF and flat.ops[e >> 16] in FUSED for e in data):
        data = tuple(e for e in data if not (e & 0xFFFF and flat.ops[e >> 16] in FUSED))  # moments, for updates
    if op in ("Switch", "RefSwitch", "_SwitchN"):
        return data[:1]
    if op in CONDITIONALS:
        return data[1:]
    if op in ("Mul", "Select", "SelectV2") and is_dropout(flat, node):
        return (dropout_input(flat, node),)
    return data


def _backward(flat: FlatGraph) -> bytearray:
    """Nodes of the backward pass and of the optimizer behind it."""
    seeds = [edge(node) for node, name in enumerate(flat.names) if "gradients" in name and _GRADIENT.search(name)]
    flags = _reached(flat, seeds)
    for e in seeds:
        flags[node_of(e)] = 1
    return flags


def _within_dropout(flat: FlatGraph) -> frozenset[int]:
    dropouts = [n for op in ("Mul", "Select", "SelectV2") for n in flat.by_op.get(op, ()) if is_dropout(flat, n)]
    kept = {node_of(dropout_input(flat, node)) for node in dropouts}
    return frozenset({node_of(e) for node in dropouts for e in flat.data[node]} - kept)


def _logits_of_losses(parts: _Parts) -> list[int]:
    flat = parts.flat
    found = [_logits(flat, flat.data[node][0]) for node in flat.order if flat.ops[node] in _LOGITS_OF]
    return [e for e in found if parts.ours[node_of(e)] and parts.behind[node_of(e)] and not parts.others[node_of(e)]]


def _logits_of_sigmoids(flat: FlatGraph) -> frozenset[int]:
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


def _where_labels_join(parts: _Parts) -> list[int]:
    """What the ops that need labels as well take from the forward pass, back to what the network put out."""
    flat = parts.flat
    joined = [
        e
        for node in flat.order
        if parts.ours[node] and parts.others[node] and not parts.backward[node] and not _tells_only(flat, node)
        if node not in parts.within_dropout
        for e in _data(flat, node)
        if parts.behind[node_of(e)] and not parts.others[node_of(e)] and not _tells_only(flat, node_of(e))
    ]
    return _put_out(parts, joined)


def _before_the_loss(parts: _Parts) -> list[int]:
    """A loss that takes no labels (an autoencoder's, a generator's): what it is made of.

    Nothing of the forward pass follows it.
    """
    if not any(parts.backward):
        return []
    return _put_out(parts, [edge(node) for node in _ends(parts) if parts.flat.ops[node] in _OF_A_LOSS])


def _put_out(parts: _Parts, edges: Iterable[int]) -> list[int]:
    """The first tensors behind batch norm that are no part of a loss, going back from `edges`; in forward order."""
    flat = parts.flat
    logits = set(_logits_of_losses(parts))
    found: list[int] = []
    stack = [_logits(flat, e) for e in edges]
    seen = set(stack)
    while stack:
        e = stack.pop()
        node = node_of(e)
        passed = e not in logits and flat.ops[node] in _OF_A_LOSS and not _of_the_network(parts, node)
        inner = [x for x in _data(flat, node) if parts.behind[node_of(x)]] if passed else []
        if not inner and parts.behind[node]:
            found.append(e)
        for x in inner:
            following = _logits(flat, x)
            if following not in seen:
                seen.add(following)
                stack.append(following)
    place = {node: number for number, node in enumerate(flat.order)}
    return sorted(set(found), key=lambda e: place[node_of(e)])


def _ends(parts: _Parts) -> list[int]:
    """Nodes of the forward pass, behind batch norm, that nothing of it follows."""
    flat = parts.flat
    forward = [
        node
        for node in flat.order
        if parts.ours[node] and parts.behind[node] and not parts.backward[node] and not _tells_only(flat, node)
    ]
    among = set(forward)
    return [
        node
        for node in forward
        if not any(reader in among or flat.ops[reader] in WRITES for reader in flat.consumers(node))
    ]


def _of_inference(parts: _Parts) -> list[int]:
    """All ends of a graph, each head of a detector being one; the last, where there are too many to mean that."""
    ends = _ends(parts)
    return [edge(node) for node in (ends if len(ends) <= _HEADS else ends[-1:])]


def _tells_only(flat: FlatGraph, node: int) -> bool:
    """Ops whose results are for people, or no numbers."""
    return flat.ops[node] in _NO_OUTPUT or "Summary" in flat.ops[node]


def _of_the_network(parts: _Parts, node: int) -> bool:
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
