"""What of a graph depends on what: on the input, on other data, on batch norm, on the backward pass."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from bncheck.recognise.graph.feeds import is_feed, is_input
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph.operands import FUSED
from bncheck.recognise.graph.trace import VARIABLES, declared_shape
from bncheck.recognise.graph.updates import WRITES
from bncheck.recognise.graph.upstream import dropout_input, is_dropout
from bncheck.recognise.graph.view import GraphView

_SHAPE_ONLY = frozenset({"Shape", "ShapeN", "Size", "Rank"})
NO_OUTPUT = (
    frozenset("Assert NoOp Const L2Loss ArgMax AsString LookupTableFindV2 Print PrintV2 StringFormat InTopK".split())
    | {"InTopKV2"}
    | _SHAPE_ONLY
    | WRITES
    | VARIABLES
)
_PASSES = 4
_GRADIENT = re.compile(r"(^|/)gradients(_\d+)?/")
"""The scope that `tf.gradients`, and with it every optimizer, opens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
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


_INTEGERS = (3, 9)
"""tensorflow.DataType: int32, int64."""
_WEIGHTED = frozenset(
    "Conv2D Conv3D DepthwiseConv2dNative MatMul BatchMatMul BatchMatMulV2 Conv2DBackpropInput "
    "Conv3DBackpropInputV2".split()
)


def inputs_beside(view: GraphView, input_edge: int) -> list[int]:
    """Other data that join those of the input within the network: weights or batch norm follow. Labels join behind."""
    flat = view.flat
    feeds = [e for e in dict.fromkeys(all_feeds(flat)) if e != input_edge and _may_be_samples(flat, node_of(e))]
    if not feeds:
        return []
    ours, backward = reached(flat, [input_edge]), _backward(flat)
    sites = {site.node for layer in view.layers for site in layer.sites}
    weighted = {node for op in _WEIGHTED for node in flat.by_op.get(op, ())}
    within = [node for node in sites | weighted if ours[node] and not backward[node]]
    found = []
    for e in feeds:
        theirs = reached(flat, [e])
        if any(theirs[node] and (node in sites or not _of_data(flat, node, ours, theirs)) for node in within):
            found.append(e)
    return found


def _may_be_samples(flat: FlatGraph, node: int) -> bool:
    """Whether a feed may be samples: an integer for each is a label or a length, which loops compare with."""
    if not is_input(flat, flat.ops[node], node):
        return False
    shape, kind = declared_shape(flat, node), flat.attr(node, "dtype")
    return kind is None or kind.type not in _INTEGERS or shape is None or len(shape) > 1


def _of_data(flat: FlatGraph, node: int, ours: bytearray, theirs: bytearray) -> bool:
    """Whether all that a product multiplies is data, as where a loss compares predictions."""
    return all(ours[node_of(e)] or theirs[node_of(e)] for e in flat.data[node][:2])


def parts_of(view: GraphView, inputs: Sequence[int], entries: Sequence[int]) -> Parts:
    """The parts of a graph whose data enter at `inputs` (edges); what counts of them begins at `entries`."""
    flat = view.flat
    sites = frozenset(site.node for layer in view.layers for site in layer.sites)
    ours = reached(flat, entries)
    # arrays that a loop reads hold what was written to them
    others = [
        e
        for e in all_feeds(flat)
        if e not in inputs and (is_input(flat, flat.ops[node_of(e)], node_of(e)) or not ours[node_of(e)])
    ]
    return Parts(
        flat=flat,
        sites=sites,
        ours=ours,
        others=reached(flat, others),
        behind=reached(flat, [edge(node) for node in sites]),
        backward=_backward(flat),
        within_dropout=_within_dropout(flat),
    )


def feeding(flat: FlatGraph, e: int) -> list[int]:
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


def all_feeds(flat: FlatGraph) -> list[int]:
    """Every edge at which data enter, that somebody reads."""
    feeds = {node for op, nodes in flat.by_op.items() for node in nodes if is_feed(flat, op, node)}
    return [e for edges in flat.data for e in edges if node_of(e) in feeds]


def reached(flat: FlatGraph, edges: Sequence[int]) -> bytearray:
    """Nodes whose data depend on any of the edges; what only chooses a branch, or drops out, is no data."""
    flags = bytearray(len(flat.ops))
    wanted = set(edges)
    # around a loop the values come back to nodes that were passed already
    for _ in range(_PASSES if "NextIteration" in flat.by_op else 1):
        before = bytes(flags)
        for node in flat.order:
            data = data_of(flat, node)
            if any(e in wanted or flags[node_of(e)] for e in data) or any(
                e in wanted or flags[node_of(e)] for branch in flat.returns.get(node, ()) for e in branch
            ):
                flags[node] = 1
        if flags == before:
            break
    return flags


def data_of(flat: FlatGraph, node: int) -> tuple[int, ...]:
    """The inputs of a node that carry data: no predicates, shapes, moments for updates, or masks of dropout."""
    data, op = flat.data[node], flat.ops[node]
    if op in _SHAPE_ONLY:
        return ()
    if any(port_of(e) and flat.ops[node_of(e)] in FUSED for e in data):
        data = tuple(e for e in data if not (port_of(e) and flat.ops[node_of(e)] in FUSED))  # moments, for updates
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
    flags = reached(flat, seeds)
    for e in seeds:
        flags[node_of(e)] = 1
    return flags


def _within_dropout(flat: FlatGraph) -> frozenset[int]:
    dropouts = [n for op in ("Mul", "Select", "SelectV2") for n in flat.by_op.get(op, ()) if is_dropout(flat, n)]
    kept = {node_of(dropout_input(flat, node)) for node in dropouts}
    return frozenset({node_of(e) for node in dropouts for e in flat.data[node]} - kept)


def ends(parts: Parts) -> list[int]:
    """Nodes of the forward pass, behind batch norm, that nothing of it follows."""
    flat = parts.flat
    forward = [
        node
        for node in flat.order
        if parts.ours[node] and parts.behind[node] and not parts.backward[node] and not tells_only(flat, node)
    ]
    among = set(forward)
    return [
        node
        for node in forward
        if not any(reader in among or flat.ops[reader] in WRITES for reader in flat.consumers(node))
    ]


def tells_only(flat: FlatGraph, node: int) -> bool:
    """Ops whose results are for people, or no numbers."""
    return flat.ops[node] in NO_OUTPUT or "Summary" in flat.ops[node]
