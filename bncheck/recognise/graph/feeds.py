"""Which placeholders, iterators and queues feed a node with data."""

from __future__ import annotations

import re

from bncheck.recognise.graph.flat import CONDITIONALS, PORT_BITS, FlatGraph
from bncheck.recognise.graph.trace import PLACEHOLDERS, VARIABLES, declared_shape

_QUEUES = re.compile(
    r"(\w*Iterator\w*GetNext\w*|Queue\w*Dequeue\w*|ReaderRead\w*|(Eager)?PyFunc\w*|TensorArrayReadV3)\Z"
)
_MAX_FEEDS = 256


class Feeds:
    """One pass over the graph: for every node the set of its feeds, as a bit mask."""

    def __init__(self, graph: FlatGraph) -> None:
        kinds = [op for op in graph.by_op if op in PLACEHOLDERS or _QUEUES.match(op)]
        feeds = sorted(node for op in kinds for node in graph.by_op[op] if is_feed(graph, op, node))[:_MAX_FEEDS]
        self._names = [graph.names[node] for node in feeds]
        self._masks = _masks(graph, {node: 1 << number for number, node in enumerate(feeds)})

    def reach(self, node: int) -> bool:
        """Whether any data reach `node`."""
        return bool(self._masks) and self._masks[node] != 0

    def of(self, node: int) -> tuple[str, ...]:
        """Names of the feeds whose data reach `node`, sorted."""
        mask = self._masks[node] if self._masks else 0
        return tuple(sorted(name for number, name in enumerate(self._names) if mask >> number & 1))


def is_feed(graph: FlatGraph, op: str, node: int) -> bool:
    """Feeds of data: queues, iterators, and placeholders that are no scalar (scalars are switches and rates)."""
    if op in PLACEHOLDERS:
        shape = declared_shape(graph, node)
        dtype = graph.attr(node, "dtype")
        is_bool = dtype is not None and dtype.type == 10
        return not is_bool and (shape is None or len(shape) > 0)
    return _QUEUES.match(op) is not None


def is_input(graph: FlatGraph, op: str, node: int) -> bool:
    """Feeds at which somebody has to give data; those that a loop reads from its own arrays are none."""
    return op not in ("PlaceholderWithDefault", "TensorArrayReadV3") and is_feed(graph, op, node)


def _masks(graph: FlatGraph, bits: dict[int, int]) -> list[int]:
    if not bits:
        return []
    masks = [0] * len(graph.ops)
    data, ops, returns = graph.data, graph.ops, graph.returns
    for node in graph.order:
        if node in bits:
            masks[node] = bits[node]
            continue
        op = ops[node]
        if op in VARIABLES:
            continue
        edges = data[node]
        if op in ("Switch", "RefSwitch", "_SwitchN"):
            edges = edges[:1]
        elif op in ("Select", "SelectV2") or op in CONDITIONALS:
            edges = edges[1:]
        mask = 0
        for e in edges:
            mask |= masks[e >> PORT_BITS]
        if node in returns:
            for branch in returns[node]:
                for e in branch:
                    mask |= masks[e >> PORT_BITS]
        masks[node] = mask
    return masks
