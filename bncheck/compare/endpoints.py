"""Where a graph's forward pass begins and ends, when nobody says: data that feeds batch norm, logits of the loss."""

from __future__ import annotations

from bncheck.errors import UsageError
from bncheck.recognise.feeds import is_feed
from bncheck.recognise.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph_view import GraphView
from bncheck.recognise.trace import VARIABLES
from bncheck.recognise.updates import WRITES
from bncheck.sources.raw import RawSignature

_CROSS_ENTROPY = ("SparseSoftmaxCrossEntropyWithLogits", "SoftmaxCrossEntropyWithLogits")
_BEHIND_LOGITS = frozenset("Identity Cast ArgMax Softmax LogSoftmax TopKV2 Enter".split())
"""Ops between the logits and what reads them."""
_NO_OUTPUT = (
    frozenset("Shape Size Rank Assert NoOp Const ShapeN L2Loss ScalarSummary HistogramSummary ArgMax".split())
    | WRITES
    | VARIABLES
)


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
        names = ", ".join(_tensor(view.flat, e) for e in found)
        raise UsageError(f"several inputs feed batch norm ({names}): choose one with --inputs")
    return found[0]


def find_outputs(view: GraphView, input_edge: int, named: tuple[str, ...] = ()) -> list[int]:
    """The edges to compare at: those named, the signature's, the logits of the loss, else the ends of the graph."""
    flat = view.flat
    if named:
        return [_named(flat, name) for name in named]
    signature = _signature(view)
    if signature is not None:
        return [_named(flat, tensor) for tensor in signature.outputs.values()]
    ours = _reached(flat, [input_edge])
    for op in _CROSS_ENTROPY:
        for node in flat.by_op.get(op, ()):
            logits = _logits(flat, flat.data[node][0])
            if ours[node_of(logits)]:
                return [logits]
    joined = _where_labels_join(view, ours, _reached(flat, [e for e in _all_feeds(flat) if e != input_edge]))
    if joined is not None:
        return [joined]
    ends = _ends(view, ours)
    if not ends:
        raise UsageError("no output was found behind the batch norm of this graph: name one with --outputs")
    return [edge(ends[-1])]


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
    """Nodes whose data depend on any of the edges."""
    flags = bytearray(len(flat.ops))
    wanted = set(edges)
    for node in flat.order:
        if any(e in wanted or flags[node_of(e)] for e in flat.data[node]) or any(
            e in wanted or flags[node_of(e)] for branch in flat.returns.get(node, ()) for e in branch
        ):
            flags[node] = 1
    return flags


def _where_labels_join(view: GraphView, ours: bytearray, others: bytearray) -> int | None:
    """What the first op that needs labels as well takes from the forward pass.

    Graphs are written in the order of their making: the loss comes before its gradients.
    """
    flat = view.flat
    behind = _behind_batch_norm(view)
    for node in flat.order:
        if ours[node] and others[node]:
            taken = [e for e in flat.data[node] if behind[node_of(e)] and not others[node_of(e)]]
            if taken:
                return _logits(flat, taken[0])
    return None


def _ends(view: GraphView, ours: bytearray) -> list[int]:
    """Nodes behind batch norm that nothing follows."""
    flat = view.flat
    behind = _behind_batch_norm(view)
    return [
        node
        for node in flat.order
        if ours[node] and behind[node] and flat.ops[node] not in _NO_OUTPUT and not flat.consumers(node)
    ]


def _behind_batch_norm(view: GraphView) -> bytearray:
    return _reached(view.flat, [edge(site.node) for layer in view.layers for site in layer.sites])


def _logits(flat: FlatGraph, e: int) -> int:
    while flat.ops[node_of(e)] in _BEHIND_LOGITS and flat.data[node_of(e)]:
        e = flat.data[node_of(e)][0]
    return e
