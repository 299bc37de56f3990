"""Who runs what: train ops, serving outputs, savers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from bncheck.facts.layers import Saver
from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.feeds import Feeds
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.trace import VARIABLES, declared_shape, sources, steps_back, variable_name
from bncheck.recognise.graph.updates import WRITES, written_variable
from bncheck.sources.graph import protos
from bncheck.sources.raw import RawGraph

_OPTIMIZER = re.compile(r"(Resource)?(Sparse)?Apply[A-Z]\w*\Z")
_MAX_TRAIN_OPS = 12
_MAX_WALKED = 48
"""Train ops that are told apart; the graph is walked once for each, and no known model has a tenth as many."""
_SIDE = frozenset({"Assert", "NoOp", "MergeSummary", "MergeV2Checkpoints", "SaveV2", "Save", "ShardedFilename"})

_TAKE = frozenset({"AccumulatorTakeGradient", "SparseAccumulatorTakeGradient", "ResourceAccumulatorTakeGradient"})
_GATHER = frozenset({"AccumulatorApplyGradient", "SparseAccumulatorApplyGradient", "ResourceAccumulatorApplyGradient"})
_GRADIENT_ARITHMETIC = frozenset("Add AddV2 AddN Sub Mul RealDiv Div Neg Maximum Minimum ClipByValue Where".split())
"""What happens to gathered gradients before they are applied: divided by their number, clipped, decayed."""
_GRADIENT_EDGES = 60
_RESTORE_NODES = 20_000
"""Copies between a restore and the variables that it fills; there is one of each a variable."""


class FoundTrainOp(Record, eq=False):
    """An op whose run trains, with everything that run executes."""

    node: int
    name: str
    found_by: str
    optimized: frozenset[int]
    """Optimizer nodes it runs."""
    runs: bytearray
    gathering: frozenset[int] = frozenset()
    """Ops that gather its gradients over several runs, or workers: `runs` then holds what these run as well."""


def optimizer_writes(
    graph: FlatGraph, feeds: Feeds, statistics: frozenset[int], trainable: frozenset[str]
) -> dict[int, int]:
    """Optimizer node -> variable it writes: `Apply*` ops, or, where there are none, assignments to trainable variables
    of values that depend on data (a training step written by hand, or by Keras), which initialisers and restores do
    not. Momentum and Adam depend on data through slots: variables that are themselves assigned such values.
    """
    found = {
        node: variable
        for op, nodes in graph.by_op.items()
        if _OPTIMIZER.match(op)
        for node in nodes
        if (variable := written_variable(graph, node)) is not None
    }
    if found:
        return found
    writes = [
        (node, variable)
        for op in sorted(WRITES)
        for node in graph.by_op.get(op, ())
        if (variable := written_variable(graph, node)) is not None and variable not in statistics
    ]
    fed = {node for node, _ in writes if feeds.of(node_of(graph.data[node][1]))}
    slots = {variable for node, variable in writes if node in fed}
    return {
        node: variable
        for node, variable in writes
        if variable_name(graph, variable) in trainable
        and (node in fed or _reads(graph, graph.data[node][1], slots - {variable}))
    }


def _reads(graph: FlatGraph, e: int, variables: set[int]) -> bool:
    """Whether a value is made of one of these variables by a few steps of arithmetic."""
    stack, seen = [e], {e}
    while stack and len(seen) < _GRADIENT_EDGES:
        node = node_of(stack.pop())
        if node in variables:
            return True
        for x in graph.data[node] if graph.ops[node] not in VARIABLES else ():
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return False


def find_train_ops(
    graph: FlatGraph, contexts: Contexts, raw: RawGraph, optimizers: dict[int, int], hints: tuple[str, ...]
) -> list[FoundTrainOp]:
    """The most downstream ops that run the optimizers: named by the user, or in the collection, or sinks.

    `Optimizer.minimize` puts its own op into the collection, and a user may run a group made around it; so an op from
    the collection counts only where no op after it runs the same optimizers.
    """
    candidates: dict[int, str] = {}
    if hints:
        for name in hints:
            e = graph.lookup(name)
            if e is not None:
                candidates[node_of(e)] = "--train-op"
    else:
        for node in _sinks(graph, contexts, optimizers):
            candidates[node] = "sink"
        for name in raw.collections.get("train_op", ()):
            e = graph.lookup(name)
            if e is not None:
                candidates[node_of(e)] = "collection"
    found = []
    # a walk for each: of thousands, the last ones are walked together, so that no more than these are walked
    alone = dict(list(candidates.items())[:_MAX_WALKED])
    rest = [node for node in candidates if node not in alone]
    if rest:
        runs = graph.ancestors(rest)
        optimized = frozenset(o for o in optimizers if runs[o])
        name = f"{graph.names[rest[0]]} and {len(rest) - 1:,} more"
        op = FoundTrainOp(node=rest[0], name=name, found_by=candidates[rest[0]], optimized=optimized, runs=runs)
        found += [op] if optimized or hints else []
    for node, found_by in alone.items():
        runs = graph.ancestors([node])
        optimized = frozenset(o for o in optimizers if runs[o])
        if optimized or hints:
            found.append(
                FoundTrainOp(node=node, name=graph.names[node], found_by=found_by, optimized=optimized, runs=runs)
            )
    if hints:
        return found
    kept = [op for op in found if not any(_dominates(other, op) for other in found)]
    return sorted(kept, key=lambda op: op.node)


def with_accumulation(
    graph: FlatGraph,
    feeds: Feeds,
    train_ops: list[FoundTrainOp],
    optimizers: dict[int, int],
    averages: frozenset[int],
) -> list[FoundTrainOp]:
    """Train ops that apply gathered gradients, joined with the runs that gather them.

    Gradients are gathered in variables that the optimizer reads instead of a gradient (micro-batches), or in a
    ConditionalAccumulator (SyncReplicasOptimizer). A step then consists of both kinds of run. Gradients also read the
    `averages` of batch moments, which are no such variables.
    """
    filled = {
        node: store
        for kind in sorted(WRITES | _GATHER)
        for node in graph.by_op.get(kind, ())
        if feeds.reach(node) and graph.data[node]
        if (store := _store(graph, graph.data[node][0])) is not None and store not in averages
    }
    return [_joined(graph, op, optimizers, filled) for op in train_ops] if filled else train_ops


def _joined(graph: FlatGraph, op: FoundTrainOp, optimizers: dict[int, int], filled: dict[int, int]) -> FoundTrainOp:
    """`filled`: op that writes what depends on data -> the variable or accumulator that it fills."""
    stores = {s for node in op.optimized for s in _gradient_stores(graph, node, optimizers[node])}
    gathering = [node for node, store in filled.items() if store in stores]
    if not gathering:
        return op
    runs = graph.ancestors(_ends(graph, gathering))
    both = bytearray(a | b for a, b in zip(op.runs, runs, strict=True))
    return replace(op, runs=both, gathering=frozenset(gathering))


def _gradient_stores(graph: FlatGraph, optimizer: int, variable: int) -> set[int]:
    """Variables shaped like the optimized one, and accumulators, from which the gradient comes by arithmetic alone."""
    shape = declared_shape(graph, variable)
    found: set[int] = set()
    stack = list(graph.data[optimizer][1:])
    seen = set(stack)
    while stack and len(seen) < _GRADIENT_EDGES:
        e = stack.pop()
        node = node_of(e)
        if graph.ops[node] in _TAKE and graph.data[node]:
            store = _store(graph, graph.data[node][0])
            if store is not None:
                found.add(store)
            continue
        if graph.ops[node] in VARIABLES:
            if node != variable and shape == declared_shape(graph, node):
                found.add(node)
            continue
        back = steps_back(graph, e) or (graph.data[node] if graph.ops[node] in _GRADIENT_ARITHMETIC else ())
        for x in back:
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return found


def _store(graph: FlatGraph, e: int) -> int | None:
    """The variable or accumulator behind a handle."""
    nodes = {node_of(x) for x in sources(graph, e)}
    return nodes.pop() if len(nodes) == 1 else None


def _dominates(other: FoundTrainOp, op: FoundTrainOp) -> bool:
    return other.node != op.node and op.optimized <= other.optimized and bool(other.runs[op.node])


def _sinks(graph: FlatGraph, contexts: Contexts, optimizers: dict[int, int]) -> list[int]:
    """Ops that nothing waits for, downstream of optimizers; where there are too many, those that run the most."""
    sinks = _ends(graph, optimizers)
    in_loops = [node for node in sinks if node in graph.frame_of or contexts.of(node).loops]
    outside = [node for node in sinks if node not in set(in_loops)] or sinks
    if len(outside) <= _MAX_TRAIN_OPS:
        return outside
    grouped = [node for node in outside if node not in optimizers]
    return grouped[:_MAX_TRAIN_OPS] if grouped else outside[:1]


def _ends(graph: FlatGraph, nodes: Iterable[int]) -> list[int]:
    """Ops downstream of `nodes` that nothing waits for, without the reads that follow a write of a resource."""
    seen = set(nodes)
    stack = list(seen)
    sinks: list[int] = []
    while stack:
        node = stack.pop()
        following = [c for c in graph.consumers(node) if graph.ops[c] not in _SIDE or graph.ops[c] == "NoOp"]
        if not following:
            sinks.append(node)
        for consumer in following:
            if consumer not in seen:
                seen.add(consumer)
                stack.append(consumer)
    return [node for node in sinks if graph.ops[node] != "ReadVariableOp"] or sinks


def find_savers(graph: FlatGraph) -> tuple[list[Saver], dict[int, str]]:
    """(what each SaveV2 writes, variable node -> key): names and tensors of a SaveV2 stand in the same order."""
    savers: list[Saver] = []
    keys: dict[int, str] = {}
    for node in graph.by_op.get("SaveV2", ()):
        data = graph.data[node]
        names = _strings(graph, data[1]) if len(data) > 3 else []
        variables: list[str] = []
        for name, e in zip(names, data[3:], strict=False):
            nodes = {node_of(x) for x in sources(graph, e)}
            if len(nodes) == 1 and graph.ops[variable := nodes.pop()] in VARIABLES:
                keys.setdefault(variable, name)
                variables.append(variable_name(graph, variable))
        if names:
            savers.append(Saver(name=graph.names[node], keys=frozenset(names), variables=frozenset(variables)))
    return savers, keys


def find_restores(graph: FlatGraph) -> list[Saver]:
    """What each RestoreV2 reads, and the variables that its outputs are assigned to."""
    found: list[Saver] = []
    for node in graph.by_op.get("RestoreV2", ()):
        names = _strings(graph, graph.data[node][1]) if len(graph.data[node]) > 1 else []
        seen, stack, variables = {node}, [node], set()
        while stack and len(seen) < _RESTORE_NODES:
            for consumer in graph.consumers(stack.pop()):
                if graph.ops[consumer] in WRITES:
                    variable = written_variable(graph, consumer)
                    variables |= set() if variable is None else {variable_name(graph, variable)}
                elif graph.ops[consumer] in ("Identity", "Reshape", "Cast") and consumer not in seen:
                    seen.add(consumer)
                    stack.append(consumer)
        if variables:
            found.append(Saver(name=graph.names[node], keys=frozenset(names), variables=frozenset(variables)))
    return found


def _strings(graph: FlatGraph, e: int) -> list[str]:
    found = sources(graph, e)
    node = node_of(found[0]) if len(found) == 1 else None
    if node is None or graph.ops[node] != "Const":
        return []
    value = graph.attr(node, "value")
    if value is None or protos.data_type(value.tensor.dtype) != "string":
        return []
    return [item.decode("utf-8", "replace") for item in value.tensor.string_val]


def serving_outputs(graph: FlatGraph, raw: RawGraph) -> dict[str, int]:
    """Output name -> node: of the signatures, else what an inference graph computes for nobody."""
    outputs: dict[str, int] = {}
    for signature in raw.served:
        for key, tensor in signature.outputs.items():
            e = graph.lookup(tensor)
            if e is not None:
                outputs[f"{signature.name}/{key}"] = node_of(e)
    if outputs:
        return outputs
    idle = _SIDE | WRITES | VARIABLES | {"Const", "Placeholder", "PlaceholderWithDefault", "RestoreV2", "StringJoin"}
    for node in range(graph.main_nodes):
        if graph.ops[node] not in idle and not graph.ops[node].endswith("Summary") and not graph.consumers(node):
            outputs[graph.names[node]] = node
    return outputs


def regularised(graph: FlatGraph) -> dict[str, tuple[str, ...]]:
    """Variable -> the L2Loss ops on it."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.by_op.get("L2Loss", ()):
        for e in sources(graph, graph.data[node][0]) if graph.data[node] else ():
            if graph.ops[node_of(e)] in VARIABLES:
                name = variable_name(graph, node_of(e))
                found[name] = (*found.get(name, ()), graph.names[node])
    return found
