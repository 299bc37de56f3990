"""One graph and what recognition found in it, as node numbers: what facts and forward graphs are made of."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from bncheck.facts.layers import Saver
from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Context, Contexts
from bncheck.recognise.graph.feeds import Feeds
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, node_of
from bncheck.recognise.graph.flatten import flatten
from bncheck.recognise.graph.group_sites import FoundLayer, group, without_copies
from bncheck.recognise.graph.root_functions import variables_of_objects, with_root_functions
from bncheck.recognise.graph.sites import find_sites
from bncheck.recognise.graph.trace import VARIABLES, variable_name
from bncheck.recognise.graph.train import (
    FoundTrainOp,
    find_savers,
    find_train_ops,
    optimizer_writes,
    serving_outputs,
    with_accumulation,
)
from bncheck.recognise.graph.updates import Writes, find_writes
from bncheck.recognise.graph.variables import Stored, join_parts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawGraph, RawModel

BEHIND_AN_UPDATE = frozenset({"Identity", "Merge", "Switch", "ReadVariableOp", "NoOp"}) | CONDITIONALS
"""Ops that only hand on what an update wrote, or that it ran."""
_STEPS_BEHIND = 4
_MAX_OUTPUTS = 16
_OF_NO_UPDATES = frozenset(
    "train_op losses regularization_losses summaries variables trainable_variables model_variables local_variables "
    "moving_average_variables init_op local_init_op ready_op summary_op savers".split()
)
"""Collections that TensorFlow itself fills with something else."""


class GraphView(Record, eq=False):
    """A flat graph and what was found in it."""

    flat: FlatGraph
    raw: RawGraph
    contexts: Contexts
    writes: Writes
    stored: Stored
    feeds: Feeds
    train_ops: list[FoundTrainOp]
    optimizers: dict[int, int]
    outputs: dict[str, bytearray]
    """Serving output -> nodes that its run runs."""
    position: list[int]
    collection: frozenset[int]
    """Nodes in UPDATE_OPS."""
    trainable: frozenset[str]
    layers: list[FoundLayer]
    copies: list[FoundLayer]
    """Of `layers`, for other towers, which no Saver keeps."""
    unclear: list[int]
    """Nodes that look like batch norm and could not be resolved."""
    savers: list[Saver]
    serving: bool
    """Meant to be served: it has signatures, or its variables are constants."""
    learning: bytearray | None
    """Nodes whose output reaches an optimizer through data; None without an optimizer."""

    @cached_property
    def training_contexts(self) -> frozenset[Context]:
        """The conditions and loops in which optimizers were written.

        Seen from the variable, which is handed into them: what an optimizer waits for may lie in others.
        """
        return frozenset(self._written_in(node) for node in self.optimizers)

    def _written_in(self, optimizer: int) -> Context:
        if optimizer in self.flat.frame_of:
            return self.contexts.of(optimizer)
        variable = self.flat.data[optimizer][0]
        return Context(self.contexts.along(variable), self.contexts.of(node_of(variable)).loops)

    @cached_property
    def variable_names(self) -> frozenset[str]:
        """Names of all variables."""
        flat = self.flat
        return frozenset(variable_name(flat, node) for op in sorted(VARIABLES) for node in flat.by_op.get(op, ()))

    @cached_property
    def listed(self) -> dict[int, list[str]]:
        """Node -> collections that list it; those of train ops, losses and variables are no such lists."""
        found: dict[int, list[str]] = {}
        for name, items in self.raw.collections.items():
            for e in [] if name in _OF_NO_UPDATES else map(self.flat.lookup, items):
                if e is not None:
                    found.setdefault(node_of(e), []).append(name)
        return found

    @cached_property
    def listed_behind(self) -> dict[int, frozenset[str]]:
        """Node -> collections that list it or, a few steps behind it, what only hands on what it did."""
        flat, found = self.flat, {node: frozenset(names) for node, names in self.listed.items()}
        bodies: dict[int, list[int]] = {}
        for node, frame in flat.frame_of.items():
            bodies.setdefault(flat.frames[frame].call, []).append(node)
        last = found
        for _ in range(_STEPS_BEHIND):
            before: dict[int, frozenset[str]] = {}
            for node, names in last.items():
                if flat.ops[node] in BEHIND_AN_UPDATE:
                    for one in (*flat.predecessors(node), *bodies.get(node, ())):
                        before[one] = before.get(one, names) | names
            found = found | {node: found.get(node, names) | names for node, names in before.items()}
            last = before
        return found

    @cached_property
    def optimizers_of(self) -> dict[int | None, list[int]]:
        """Variable -> the optimizer nodes that write it."""
        found: dict[int | None, list[int]] = {}
        for node, variable in self.optimizers.items():
            found.setdefault(variable, []).append(node)
        return found


def view_graph(raw: RawModel, hints: Options) -> GraphView:
    """Recognises the graph that serves, or the only one; raises ReadError where it is damaged."""
    chosen = chosen_graph(raw)
    flat = flatten(chosen.path, with_root_functions(chosen, raw.object_graph))
    join_parts(flat)
    contexts = Contexts(flat)
    sites, unclear = find_sites(flat, contexts)
    writes = find_writes(flat, contexts)
    found = group(flat, contexts, sites, writes)
    savers, keys = find_savers(flat)
    found, copies = without_copies(flat, found, frozenset(name for saver in savers for name in saver.variables))
    trainable = _trainable(chosen, raw.object_graph, flat, keys)
    statistics = frozenset(v for layer in found + copies for v in (layer.mean, layer.variance) if v is not None)
    feeds = Feeds(flat)
    optimizers = optimizer_writes(flat, feeds, statistics, trainable)
    averages = statistics | {write.variable for write in writes.from_moments}
    train_ops = find_train_ops(flat, contexts, chosen, optimizers, tuple(hints.train_ops))
    train_ops = with_accumulation(flat, feeds, train_ops, optimizers, averages)
    gathering = {node for op in train_ops for node in op.gathering}
    serving = bool(chosen.served) or not any(op in flat.by_op for op in VARIABLES)
    outputs = serving_outputs(flat, chosen) if serving else {}
    return GraphView(
        flat=flat,
        raw=chosen,
        contexts=contexts,
        writes=writes,
        stored=Stored(raw, flat, keys, chosen),
        feeds=feeds,
        train_ops=train_ops,
        optimizers=optimizers,
        outputs=_reach(flat, outputs, optimizers),
        position=flat.position,
        collection=_collected(flat, chosen),
        trainable=trainable,
        layers=found,
        copies=copies,
        unclear=unclear,
        savers=savers,
        serving=serving,
        learning=flat.data_ancestors([*optimizers, *gathering]) if optimizers else None,
    )


def chosen_graph(raw: RawModel) -> RawGraph:
    """The MetaGraph that serves; training ones of the same folder share its variables."""
    serving = [graph for graph in raw.graphs if "serve" in graph.tags]
    return (serving or [graph for graph in raw.graphs if "train" not in graph.tags] or list(raw.graphs))[0]


def _trainable(raw: RawGraph, stored: Any | None, flat: FlatGraph, keys: dict[int, str]) -> frozenset[str]:
    """Names of trainable variables, from the collection or the object graph, where several objects may share a name."""
    found = set(raw.collections.get("trainable_variables", ()))
    if raw.object_graph is None:
        return frozenset(found)
    objects = raw.object_graph.nodes
    other = {node.variable.name for node in objects if not node.variable.trainable}
    by_key = {key: variable_name(flat, node) for node, key in keys.items()}
    by_name = {node.variable.name: node.variable.name for node in objects if node.variable.name not in other}
    names = variables_of_objects(raw.object_graph, stored, by_key, by_name)
    trained = {name for name, node in zip(names, objects, strict=True) if name and node.variable.trainable}
    return frozenset(found | trained | set(by_name))


def _reach(flat: FlatGraph, outputs: dict[str, int], optimizers: dict[int, int]) -> dict[str, bytearray]:
    """Output -> nodes that its run runs; a signature that trains does not serve."""
    if len(outputs) > _MAX_OUTPUTS:
        reached = {f"{len(outputs)} outputs": flat.ancestors(list(outputs.values()))}
    else:
        reached = {name: flat.ancestors([node]) for name, node in outputs.items()}
    return {name: runs for name, runs in reached.items() if not any(runs[node] for node in optimizers)}


def _collected(flat: FlatGraph, raw: RawGraph) -> frozenset[int]:
    edges = [flat.lookup(name) for name in raw.collections.get("update_ops", ())]
    return frozenset(node_of(e) for e in edges if e is not None)
