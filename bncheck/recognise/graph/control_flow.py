"""When nodes of a flat graph run: under which conditions, in which loops."""

from __future__ import annotations

from typing import NamedTuple

from bncheck.recognise.graph.flat import CONDITIONALS, PORT_BITS, FlatGraph, node_of, port_of
from bncheck.recognise.graph.trace import MERGES, SWITCHES, predicate

_ENTERS = frozenset({"Enter", "RefEnter"})
_EXITS = frozenset({"Exit", "RefExit"})
_FRAMES = _ENTERS | _EXITS


class Context(NamedTuple):
    """When a node runs: the conditions that must hold, as (predicate node, value), and the loops it is in."""

    conditions: frozenset[tuple[int, bool]] = frozenset()
    loops: frozenset[str] = frozenset()

    def __or__(self, other: Context) -> Context:
        if other is _ALWAYS or self is other:
            return self
        if self is _ALWAYS or (self.conditions <= other.conditions and self.loops <= other.loops):
            return other
        if other.conditions <= self.conditions and other.loops <= self.loops:
            return self
        return Context(self.conditions | other.conditions, self.loops | other.loops)


_ALWAYS = Context()


class Contexts:
    """Contexts of nodes, computed once each: Switch opens a condition, Merge closes it, Enter and Exit frame loops."""

    def __init__(self, graph: FlatGraph) -> None:
        self._graph = graph
        self._known: dict[int, Context] = {}
        self._open: set[int] = set()
        self._v1 = any(op in graph.by_op for op in ("Switch", "RefSwitch", "Enter", "RefEnter"))

    def of(self, node: int) -> Context:
        """The context of one node."""
        if not self._v1 and not self._graph.frames:
            return _ALWAYS
        known = self._known
        if node in known:
            return known[node]
        stack = [node]
        while stack:
            current = stack[-1]
            if current in known:
                stack.pop()
                continue
            if current not in self._open:
                waiting = self._unknown(current)
                if waiting:
                    self._open.add(current)
                    stack += waiting
                    continue
            known[current] = self._join(current)
            self._open.discard(current)
            stack.pop()
        return known[node]

    def along(self, e: int) -> frozenset[tuple[int, bool]]:
        """The conditions under which an edge carries a value: those of its node, and which way a Switch sends it."""
        graph, node = self._graph, node_of(e)
        conditions = self.of(node).conditions
        if graph.ops[node] in SWITCHES and len(graph.data[node]) > 1:
            source, negated = predicate(graph, graph.data[node][1])
            conditions |= {(source, bool(port_of(e)) != negated)}
        return conditions

    def _unknown(self, node: int) -> list[int]:
        """What runs before a node and has no known context yet; back edges of loops do not count."""
        graph, known = self._graph, self._known
        found = [e >> PORT_BITS for e in graph.data[node] if e >> PORT_BITS not in known]
        if node in graph.control:
            found += [waited for waited in graph.control[node] if waited not in known]
        if node in graph.frame_of and graph.frames[graph.frame_of[node]].call not in known:
            found.append(graph.frames[graph.frame_of[node]].call)
        return [source for source in found if graph.ops[source] != "NextIteration"] if found else found

    def _join(self, node: int) -> Context:
        if self._is_plain(node):
            return _ALWAYS
        graph = self._graph
        op = graph.ops[node]
        arriving: list[Context] = []
        for e in graph.data[node]:
            known = self._known.get(e >> PORT_BITS)
            source = graph.ops[e >> PORT_BITS]
            if known is not None and source != "NextIteration":
                arriving.append(self._along(e) if source in SWITCHES else known)
        if op in MERGES and len(arriving) > 1:
            joined = Context(
                frozenset.intersection(*(c.conditions for c in arriving)),
                frozenset.intersection(*(c.loops for c in arriving)),
            )
        else:
            joined = _ALWAYS
            for context in arriving:
                joined = joined | context
        for waited in graph.control.get(node, ()):
            joined = joined | self._known.get(waited, _ALWAYS)
        if op in _ENTERS:
            joined = joined | Context(loops=frozenset({self._frame_name(node)}))
        elif op in _EXITS:
            joined = Context(joined.conditions, joined.loops - self._loops_left(node))
        frame = graph.frame_of.get(node)
        return joined if frame is None else joined | self._frame_context(frame)

    def _is_plain(self, node: int) -> bool:
        """Whether nothing bears on a node: what it reads always runs, and it neither waits nor frames a loop."""
        graph, known = self._graph, self._known
        if node in graph.control or node in graph.frame_of or graph.ops[node] in _FRAMES:
            return False
        for e in graph.data[node]:
            source = e >> PORT_BITS
            if known.get(source) is not _ALWAYS or graph.ops[source] in SWITCHES:
                return False
        return True

    def _along(self, e: int) -> Context:
        graph = self._graph
        node = node_of(e)
        context = self._known[node]
        if len(graph.data[node]) < 2:
            return context
        source, negated = predicate(graph, graph.data[node][1])
        if graph.ops[source] == "LoopCond":
            return context
        side = bool(port_of(e)) != negated
        return context | Context(conditions=frozenset({(source, side)}))

    def _frame_name(self, node: int) -> str:
        name = self._graph.attr(node, "frame_name")
        return "" if name is None else str(name.s.decode("utf-8", "replace"))

    def _loops_left(self, node: int) -> frozenset[str]:
        graph = self._graph
        for _ in range(4):
            if not graph.data[node]:
                break
            node = node_of(graph.data[node][0])
            if graph.ops[node] in _ENTERS:
                return frozenset({self._frame_name(node)})
        return frozenset()

    def _frame_context(self, number: int) -> Context:
        graph = self._graph
        frame = graph.frames[number]
        context = self._known.get(frame.call, _ALWAYS)
        if frame.loop:
            return context | Context(loops=frozenset({graph.names[frame.call]}))
        if frame.branch is None or graph.ops[frame.call] not in CONDITIONALS or not graph.data[frame.call]:
            return context
        source, negated = predicate(graph, graph.data[frame.call][0])
        return context | Context(conditions=frozenset({(source, (frame.branch == 0) != negated)}))
