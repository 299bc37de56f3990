"""A GraphDef as one flat, indexed graph: functions inlined where they are called, edges as integers.

An edge is `node << PORT_BITS | port`. A called function's nodes follow the main graph's, named "call/node"; its
arguments are replaced by the caller's edges, and `returns` leads from the call's outputs back into the body.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed
from bncheck.facts.record import Record

PORT_BITS = 16
CONDITIONALS = frozenset({"If", "StatelessIf", "Case", "StatelessCase"})
LOOPS = frozenset({"While", "StatelessWhile"})


def edge(node: int, port: int = 0) -> int:
    """The edge that leaves `node` at `port`."""
    return node << PORT_BITS | port


def node_of(e: int) -> int:
    """The node that an edge leaves."""
    return e >> PORT_BITS


def port_of(e: int) -> int:
    """The port at which an edge leaves its node."""
    return e & ((1 << PORT_BITS) - 1)


def port_number(text: str) -> int | None:
    """The port that a tensor's name ends in; None where it is no number that an edge has room for."""
    digits = text.isascii() and text.isdigit() and len(text) < 8
    return int(text) if digits and int(text) < 1 << PORT_BITS else None


class Frame(Record):
    """One inlined function body: who called it and in which role."""

    parent: int
    call: int
    function: str
    branch: int | None
    """Index of the branch of an If (0 then, 1 else) or Case; None for plain calls and loops."""
    loop: bool


@dataclass(kw_only=True, eq=False)
class FlatGraph:
    """Nodes by index. `data[i]` holds the data edges into node i, `control[i]` the nodes it waits for.

    Nodes that wait for the same ones share one tuple: each of a thousand gradients may list a hundred updates.
    """

    path: Path
    main: Sequence[Any] = ()
    """NodeDefs of the main graph, in protobuf's own container: a million objects fewer than in a list."""
    bodies: list[Any] = field(default_factory=list)
    """NodeDefs of inlined bodies, from node `main_nodes` on."""
    names: list[str] = field(default_factory=list)
    ops: list[str] = field(default_factory=list)
    data: list[tuple[int, ...]] = field(default_factory=list)
    control: dict[int, tuple[int, ...]] = field(default_factory=dict)
    main_nodes: int = 0
    index: dict[str, int] = field(default_factory=dict)
    """Name -> edge of a node's first output, of the main graph."""
    frames: list[Frame] = field(default_factory=list)
    frame_of: dict[int, int] = field(default_factory=dict)
    """Node -> its frame, for nodes of inlined bodies."""
    returns: dict[int, list[list[int]]] = field(default_factory=dict)
    """Call node -> for each inlined body, the edges behind its outputs."""
    effects: dict[int, list[int]] = field(default_factory=dict)
    """Call node -> nodes of its bodies that run for their side effects."""
    whole: dict[int, int] = field(default_factory=dict)
    """Part of a partitioned variable -> its first part, which stands for the whole."""
    variable_names: dict[int, str] = field(default_factory=dict)
    shapes: dict[int, tuple[int, ...] | None] = field(default_factory=dict)
    """What `trace.variable_name` and `trace.declared_shape` were asked already."""

    def proto(self, node: int) -> Any:
        """NodeDef of a node; in a body, its name and inputs are the function's."""
        return self.main[node] if node < self.main_nodes else self.bodies[node - self.main_nodes]

    def attr(self, node: int, name: str) -> Any | None:
        """AttrValue of a node, None where it is not set (then the op's default holds)."""
        return self.proto(node).attr.get(name)

    def lookup(self, tensor: str) -> int | None:
        """Edge of a main-graph tensor or node name ("a/b:1", "a/b", "^a/b"); None where there is no such node.

        Raises Malformed for an output of it that no op can have.
        """
        name, _, port = tensor.lstrip("^").partition(":")
        first = self.index.get(name)
        if first is None or not port:
            return first
        number = port_number(port)
        if number is None:
            raise Malformed(self.path, f"is damaged: it names the output {tensor!r}, which no op can have")
        return first | number

    @cached_property
    def by_op(self) -> dict[str, list[int]]:
        """Op -> its nodes, in file order."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for node, op in enumerate(self.ops):
            found[op].append(node)
        return dict(found)

    @cached_property
    def _edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(sources, targets) of `predecessors`, side by side."""
        edges, target = _pairs(self.data, range(len(self.data)))
        waits, waiting = _pairs(self.control.values(), self.control)
        inside = {
            call: [*(node_of(e) for outputs in bodies for e in outputs), *self.effects.get(call, ())]
            for call, bodies in self.returns.items()
        }
        bodies, calls = _pairs(inside.values(), inside)
        return np.concatenate([edges >> PORT_BITS, waits, bodies]), np.concatenate([target, waiting, calls])

    @cached_property
    def _consumers(self) -> tuple[memoryview, memoryview]:
        source, target = self._edges
        order = np.argsort(source, kind="stable")
        starts = np.searchsorted(source[order], np.arange(len(self.data) + 1))
        return target[order].data, starts.data  # a memoryview gives its numbers faster than an array

    def consumers(self, node: int) -> list[int]:
        """Nodes that read any output of `node` or wait for it, each once a use."""
        targets, starts = self._consumers
        found: list[int] = targets[starts[node] : starts[node + 1]].tolist()
        return found

    def predecessors(self, node: int) -> Iterator[int]:
        """Nodes that must run before `node`: its data and control inputs, and, for a call, what its bodies do."""
        for e in self.data[node]:
            yield e >> PORT_BITS
        yield from self.control.get(node, ())
        for edges in self.returns.get(node, ()):
            for e in edges:
                yield e >> PORT_BITS
        yield from self.effects.get(node, ())

    def ancestors(self, roots: list[int]) -> bytearray:
        """A flag for every node: 1 where running `roots` runs it, the roots included."""
        seen = bytearray(len(self.ops))
        stack = list(roots)
        for root in roots:
            seen[root] = 1
        data, control, returns, effects = self.data, self.control, self.returns, self.effects
        walked: set[int] = set()  # hundreds of nodes may share one list
        while stack:
            node = stack.pop()
            for e in data[node]:
                source = e >> PORT_BITS
                if not seen[source]:
                    seen[source] = 1
                    stack.append(source)
            waits = control.get(node)
            if waits is not None and id(waits) not in walked:
                walked.add(id(waits))
                for source in waits:
                    if not seen[source]:
                        seen[source] = 1
                        stack.append(source)
            if node in returns:
                inside = [e >> PORT_BITS for edges in returns[node] for e in edges] + effects.get(node, [])
                for source in inside:
                    if not seen[source]:
                        seen[source] = 1
                        stack.append(source)
        return seen

    def data_ancestors(self, roots: list[int]) -> bytearray:
        """As `ancestors`, through data alone: what the values of `roots` depend on."""
        seen = bytearray(len(self.ops))
        stack = list(roots)
        while stack:
            node = stack.pop()
            edges = self.data[node]
            if node in self.returns:
                edges = (*edges, *chain.from_iterable(self.returns[node]))
            for e in edges:
                source = e >> PORT_BITS
                if not seen[source]:
                    seen[source] = 1
                    stack.append(source)
        return seen

    @cached_property
    def position(self) -> list[int]:
        """Where each node stands in `order`."""
        places = [0] * len(self.ops)
        for place, node in enumerate(self.order):
            places[node] = place
        return places

    @cached_property
    def order(self) -> list[int]:
        """Nodes in an order in which every node follows its predecessors, as near to the file's as that allows.

        Back edges of loops are left out. Only nodes that stand before one of their predecessors have to be moved.
        """
        size = len(self.ops)
        source, target = self._edges
        backwards = np.flatnonzero(source >= target)
        pairs = zip(source[backwards].tolist(), target[backwards].tolist(), strict=True)
        early = {after for before, after in pairs if self.ops[before] != "NextIteration"}
        ready: list[int] = []
        met = bytearray(size)  # 1 while its predecessors are being placed, 2 once it is placed
        for node in range(size):
            if node not in early and not met[node]:
                met[node] = 2
                ready.append(node)
            stack = [] if met[node] else [node]
            while stack:
                current = stack[-1]
                before = [] if met[current] else self._unmet(current, met)
                if before:
                    met[current] = 1
                    stack += reversed(before)
                    continue
                stack.pop()
                if met[current] < 2:
                    met[current] = 2
                    ready.append(current)
        return ready

    def _unmet(self, node: int, met: bytearray) -> list[int]:
        """As `predecessors`, those not met yet and no back edge of a loop."""
        found = [e >> PORT_BITS for e in self.data[node] if not met[e >> PORT_BITS]]
        if node in self.control:
            found += [source for source in self.control[node] if not met[source]]
        if node in self.returns or node in self.effects:
            found = [source for source in self.predecessors(node) if not met[source]]
        return [source for source in found if self.ops[source] != "NextIteration"] if found else found


def _pairs(sources: Collection[Collection[int]], targets: Collection[int]) -> tuple[NDArray[np.int64], ...]:
    """(source, target) of every source, side by side: the first sources belong to the first target, and so on."""
    counts = np.fromiter(map(len, sources), np.int64, len(sources))
    source = np.fromiter(chain.from_iterable(sources), np.int64, int(counts.sum()))
    return source, np.repeat(np.fromiter(targets, np.int64, len(targets)), counts)
