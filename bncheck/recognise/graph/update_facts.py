"""One write of a statistic -> Update: its decay, what runs it, when, and what waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from bncheck.facts.layers import Role, Switch, Update
from bncheck.recognise.graph.counters import fixed_numbers, stuck_counter
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, node_of
from bncheck.recognise.graph.sites import FoundSite
from bncheck.recognise.graph.trace import describe_switch, variable_name
from bncheck.recognise.graph.updates import Write, decay_of, row_written
from bncheck.recognise.graph.view import BEHIND_AN_UPDATE, GraphView


def update_facts(
    graph: GraphView,
    write: Write,
    role: Role,
    site: FoundSite | None,
    switch: tuple[int, bool] | None,
    *,
    before: Mapping[int, AbstractSet[int]],
) -> Update:
    """`before`: a site's node -> nodes that its own arithmetic waits for."""
    flat, contexts = graph.flat, graph.contexts
    context = contexts.of(write.node)
    assume = dict(context.conditions)
    on, off = dict(assume), dict(assume)
    if switch is not None and switch[0] not in assume:
        on[switch[0]], off[switch[0]] = switch[1], not switch[1]
    behind = write.debias_of if write.derived_from is None else write.derived_from
    source = write if behind is None else graph.writes.first_of.get(behind, write)
    decay = decay_of(flat, contexts, source, on)
    fixed = {} if decay is not None else fixed_numbers(flat, graph.stored, source.value, graph.writes.initial)
    if fixed:
        decay = decay_of(flat, contexts, source, on, fixed=fixed)
    rises = (
        decay is not None
        and "Minimum" in flat.by_op  # without one, the end is all there is
        and decay_of(flat, contexts, source, on, in_the_end=False, fixed=fixed) is None
    )
    counter = stuck_counter(flat, graph.stored, source.value) if rises else None
    if counter is not None:
        decay, rises = decay_of(flat, contexts, source, on | {counter: False}), False  # it stays at 0
    listing = sorted(graph.listed_behind.get(write.node, ()))
    branch = _branch(graph, context.conditions, switch)
    # In a loop whose body is the whole step the parameters wait for the update in its own frame.
    beside_training = bool(graph.optimizers) and all(
        context.conditions <= c.conditions and context.loops <= c.loops for c in graph.training_contexts
    )
    runs = [op for op in graph.train_ops if op.runs[write.node]]
    return Update(
        name=flat.names[write.node],
        op=flat.ops[write.node],
        role=role,
        variable=variable_name(flat, write.variable),
        row=row_written(flat, write),
        decay=decay,
        decay_rises=rises,
        stuck_counter="" if counter is None else variable_name(flat, counter),
        decay_when_off=decay_of(flat, contexts, source, off, fixed=fixed) if off != on else None,
        resource=flat.ops[write.variable] == "VarHandleOp",
        in_collection="update_ops" in listing,
        collections=tuple(name for name in listing if name != "update_ops"),
        train_ops=tuple(op.name for op in runs),
        outputs=tuple(name for name, reached in graph.outputs.items() if reached[write.node]),
        waited_for_by=() if runs else _waiters(graph, write.node),
        site=None if site is None else flat.names[site.node],
        inputs=graph.feeds.of(write.node),
        branch=branch,
        in_loop=bool(context.loops) and not beside_training,
        collected_in_branch=write.node in graph.collection
        and bool(context.conditions or context.loops)
        and not beside_training,
        debiased=write.debias_of is not None,
        runs_with_site=None if site is None else _runs_with(flat, write.node, site.node, before[site.node]),
    )


def _runs_with(flat: FlatGraph, update: int, site: int, before: AbstractSet[int]) -> bool:
    """Whether computing a site's output runs the update: its statistics or something right behind both wait for it."""
    if update in before:
        return True
    # Backwards from the site: an update may have every gradient waiting for it.
    frontier = seen = _right_behind(flat, site)
    for _ in range(4):
        before = {node for current in frontier for node in flat.predecessors(current)}
        if update in before:
            return True
        frontier = {node for node in before - seen if flat.ops[node] in BEHIND_AN_UPDATE}
        seen = seen | frontier
    return False


def right_before(flat: FlatGraph, site: FoundSite) -> set[int]:
    """Nodes that a site's own arithmetic waits for, its input left out."""
    outside = -1 if site.x is None else node_of(site.x)
    seen, stack = {site.node}, [site.node]
    while stack and len(seen) < 80:
        for node in flat.predecessors(stack.pop()):
            if node not in seen and node != outside:
                seen.add(node)
                stack.append(node)
    return seen


def _right_behind(flat: FlatGraph, node: int) -> set[int]:
    """Nodes within a few copies of a node, in the direction of the data."""
    seen: set[int] = set()
    frontier = [node]
    for _ in range(4):
        frontier = [
            c
            for current in frontier
            for c in flat.consumers(current)
            if c not in seen and flat.ops[c] in BEHIND_AN_UPDATE and _hands_on(flat, c, current)
        ]
        seen.update(frontier)
    return seen


def _hands_on(flat: FlatGraph, consumer: int, node: int) -> bool:
    """Whether a condition gives the value out, and does not only take it in, as that of its gradients does."""
    return flat.ops[consumer] not in CONDITIONALS or any(
        node_of(e) == node for edges in flat.returns.get(consumer, ()) for e in edges
    )


def _branch(
    graph: GraphView, conditions: frozenset[tuple[int, bool]], switch: tuple[int, bool] | None
) -> Switch | None:
    if not conditions:
        return None
    node, side = next(((w, s) for w, s in conditions if switch is not None and w == switch[0]), min(conditions))
    return describe_switch(graph.flat, node, side)


def _waiters(graph: GraphView, node: int) -> tuple[str, ...]:
    """Ops outside the train op that wait for an update: the ends of what depends on it.

    Copies of what was written are left out, as is what a collection lists: that is the update, for a script to run.
    """
    flat = graph.flat
    copies = _copies(flat, node)
    seen, stack, ends = {node}, [node], []
    while stack and len(seen) < 200:
        current = stack.pop()
        following = flat.consumers(current)
        if not following and current not in copies and current not in graph.listed:
            ends.append(flat.names[current])
        for consumer in following:
            if consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
    return tuple(sorted(ends)[:3])


def _copies(flat: FlatGraph, write: int) -> set[int]:
    """The write and nodes that hand on what it wrote, a variable's value read behind it among them."""
    seen, stack = {write}, [write]
    while stack and len(seen) < 200:
        current = stack.pop()
        for consumer in flat.consumers(current):
            by_data = any(node_of(e) == current for e in flat.data[consumer])
            hands_on = flat.ops[consumer] == "ReadVariableOp" or (by_data and flat.ops[consumer] in BEHIND_AN_UPDATE)
            if consumer not in seen and hands_on:
                seen.add(consumer)
                stack.append(consumer)
    return seen
