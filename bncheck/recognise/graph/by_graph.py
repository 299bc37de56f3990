"""Graph (and checkpoint, where there is one) -> facts. Recognition by structure; names only label what was found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncheck.facts.layers import (
    Debias,
    DecaySource,
    Facts,
    GraphFacts,
    Layer,
    Mode,
    Origin,
    Presence,
    Purpose,
    Role,
    RunFacts,
    Site,
    Switch,
    TrainOp,
    Update,
    Vector,
)
from bncheck.facts.record import Record
from bncheck.recognise.auxiliary import averaged_keys, debias_of, shadow_vectors
from bncheck.recognise.graph.flat import FlatGraph, node_of, port_of
from bncheck.recognise.graph.group_sites import FoundLayer, PairedSite, pair
from bncheck.recognise.graph.passes import reduced_sizes, row_of, sites_before
from bncheck.recognise.graph.sites import FoundSite
from bncheck.recognise.graph.trace import FAKE_QUANT, VARIABLES, declared_shape, describe_switch, variable_name
from bncheck.recognise.graph.train import find_restores, regularised
from bncheck.recognise.graph.update_facts import right_before, update_facts
from bncheck.recognise.graph.upstream import Upstream, upstream
from bncheck.recognise.graph.variables import linear_of
from bncheck.recognise.graph.view import GraphView, view_graph
from bncheck.recognise.graph_gaps import gaps_of
from bncheck.recognise.norm_kinds import kind_in_graph
from bncheck.recognise.predicted.after_batch_norm import worth_predicting
from bncheck.recognise.stored_vectors import with_stored
from bncheck.recognise.training_progress import ProgressKeys, run_facts
from bncheck.settings.options import Options
from bncheck.sources.raw import RawGraph, RawModel

if TYPE_CHECKING:
    from bncheck.facts.fake_quant import FakeQuantFacts
    from bncheck.recognise.predicted.graph_wiring import GraphWiring

_SCOPES_OF_OPS = frozenset({"batchnorm", "moments", "AssignMovingAvg"})


class KnownRun(Record, eq=False):
    """What holds of all checkpoints of one graph and layout."""

    counters: ProgressKeys
    wiring: GraphWiring


def recognise_graph(raw: RawModel, hints: Options) -> Facts:
    """Facts of the graph that serves (or the only one), joined with the checkpoint's values; raises ReadError."""
    return facts_of_view(raw, view_graph(raw, hints), hints)


def facts_of_view(raw: RawModel, graph: GraphView, hints: Options) -> Facts:
    """Facts of a graph that was recognised already."""
    paired = paired_sites(graph)
    return joined(raw, graph, hints, found_layers(graph, paired, hints), paired=paired, whole=graph_facts(graph))


def paired_sites(graph: GraphView) -> list[list[PairedSite]]:
    """The sites of each layer."""
    return [pair(graph.flat, graph.contexts, layer.sites) for layer in graph.layers]


def found_layers(graph: GraphView, paired: Sequence[list[PairedSite]], hints: Options) -> tuple[Layer, ...]:
    """The layers as the graph has them and the checkpoint fills them, in the order in which they were found."""
    before = sites_before(graph, paired)
    found = [
        _layer(graph, layer, [_site(graph, one, before) for one in sites], paired=sites, hints=hints)
        for layer, sites in zip(graph.layers, paired, strict=True)
    ]
    layers = tuple(with_stored(found, graph.stored.names))
    if graph.writes.copies:
        from bncheck.recognise.copied_layers import with_copies  # noqa: PLC0415 - start-up

        layers = with_copies(graph.writes, graph.layers, layers)
    return layers


def joined(
    raw: RawModel,
    graph: GraphView,
    hints: Options,
    layers: tuple[Layer, ...],
    *,
    paired: Sequence[list[PairedSite]],
    whole: GraphFacts,
    known: KnownRun | None = None,
    predict: bool = True,
) -> Facts:
    """Layers with what their weights predict, and all that is told of the graph as a whole and of the run.

    `known` is from another checkpoint of the same graph and layout. Without `predict` nothing is predicted.
    """
    if predict and worth_predicting(layers):
        from bncheck.recognise.predicted.in_graph import with_predictions  # noqa: PLC0415 - start-up

        layers = tuple(with_predictions(graph, layers, paired, None if known is None else known.wiring))
    rounding, told = _rounding(graph, layers)
    return Facts(
        path=str(raw.path),
        format=raw.format,
        layers=_uniquely_named(sorted(layers, key=lambda layer: layer.order)),
        graph=whole,
        fake_quant=rounding,
        run=_run(graph, raw, hints, None if known is None else known.counters),
        gaps=gaps_of(graph, layers),
        notes=(*raw.notes, *_other_graphs(raw, graph.raw), *_copies(graph), *told),
    )


def _rounding(graph: GraphView, layers: Sequence[Layer]) -> tuple[FakeQuantFacts | None, tuple[str, ...]]:
    """What a graph tells of its rounding, as facts and as notes."""
    if FAKE_QUANT.isdisjoint(graph.flat.by_op):
        return None, ()
    from bncheck.recognise.graph.fake_quant import fake_quant_facts, told  # noqa: PLC0415 - start-up

    found = fake_quant_facts(graph, layers)
    return found, told(found)


def _run(graph: GraphView, raw: RawModel, hints: Options, counters: ProgressKeys | None) -> RunFacts:
    """Where gradients are gathered, steps are fewer than updates, by a factor that only `--steps` can tell."""
    run = run_facts(raw, hints, counters)
    if hints.steps is None and any(op.gathering for op in graph.train_ops):
        return replace(run, updates=None, updates_from="")
    return run


def _other_graphs(raw: RawModel, chosen: RawGraph) -> tuple[str, ...]:
    return tuple(
        f"MetaGraph with tags {', '.join(graph.tags) or 'none'} was not read"
        for graph in raw.graphs
        if graph is not chosen
    )


def _copies(graph: GraphView) -> tuple[str, ...]:
    if not graph.copies:
        return ()
    names = [variable_name(graph.flat, v) for layer in graph.copies[:1] for v in (layer.variance, layer.mean) if v]
    first = f" ({names[0]} is the first)" if names else ""
    return (f"{len(graph.copies)} copies of layers, which no Saver keeps{first}, were not judged: one copy a tower",)


def _layer(
    graph: GraphView, found: FoundLayer, sites: list[Site], *, paired: list[PairedSite], hints: Options
) -> Layer:
    flat, stored = graph.flat, graph.stored
    switch = next((p.switch for p in paired if p.switch is not None), None)
    before = {site.node: right_before(flat, site) for _, _, site in found.updates if site is not None}
    updates = tuple(
        update_facts(graph, write, role, site, switch, before=before) for write, role, site in found.updates
    )
    mean, variance = (
        stored.vector(role, node, graph.writes.initial.get(-1 if node is None else node))
        for role, node in ((Role.MEAN, found.mean), (Role.VARIANCE, found.variance))
    )
    gamma, beta = (
        _affine(graph, role, node, found.sites) for role, node in ((Role.GAMMA, found.gamma), (Role.BETA, found.beta))
    )
    name = _name(graph, found, (mean, variance, gamma, beta))
    decays = [u.decay for u in updates if u.decay is not None]
    decay = hints.decay if hints.decay is not None else decays[0] if decays else None
    names = [v.name for v in (gamma, beta) if v.name]
    steady = [s for s in sites if s.mode in (Mode.EVAL, Mode.SWITCHED)] or sites
    vectors = (variance, mean, gamma, beta)
    optimizers = {o for v in (found.gamma, found.beta) for o in graph.optimizers_of.get(v, ())}
    return Layer(
        name=name,
        origin=Origin.GRAPH,
        mean=mean,
        variance=variance,
        gamma=gamma,
        beta=beta,
        channels=next((_size(v.shape) for v in vectors if v.shape and all(d > 0 for d in v.shape)), None),
        epsilon=next((s.epsilon for s in steady if s.epsilon is not None), None),
        decay=decay,
        decay_from=None if decay is None else DecaySource.OPTION if hints.decay is not None else DecaySource.GRAPH,
        sites=tuple(sites),
        updates=updates,
        linear=next((s.linear for s in steady if s.linear is not None), None),
        trained_by=tuple(op.name for op in graph.train_ops if not optimizers.isdisjoint(op.optimized)),
        trainable=any(n in graph.trainable for n in names) if graph.trainable and names else None,
        debias=_debias(updates) or debias_of(stored.names, mean.name, variance.name),
        averaged=averaged_keys(stored.names, gamma.name, beta.name, tuple(sites)),
        shadow_statistics=shadow_vectors(stored, mean.name, variance.name),
        kind=kind_in_graph(graph, found, paired),
        order=min((s.order for s in sites), default=0),
    )


def _debias(updates: tuple[Update, ...]) -> Debias | None:
    debiased = {update.role for update in updates if update.debiased}
    return Debias(mean=Role.MEAN in debiased, variance=Role.VARIANCE in debiased) if debiased else None


def _uniquely_named(layers: list[Layer]) -> tuple[Layer, ...]:
    """Layers of one scope are told apart by their statistics variable, else by their site."""
    counts = Counter(layer.name for layer in layers)
    return tuple(
        layer
        if counts[layer.name] == 1
        else replace(layer, name=layer.variance.name or layer.mean.name or layer.sites[0].name)
        for layer in layers
    )


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for dimension in shape:
        size *= dimension
    return size


def _affine(graph: GraphView, role: Role, node: int | None, sites: list[FoundSite]) -> Vector:
    if node is None:
        given = any((site.gamma if role is Role.GAMMA else site.beta) is not None for site in sites)
        reason = "fixed in the graph" if given else "the layer has none"
        return Vector(role=role, presence=Presence.ABSENT, reason=reason)
    return graph.stored.vector(role, node, graph.writes.initial.get(node))


def _name(graph: GraphView, found: FoundLayer, vectors: tuple[Vector, ...]) -> str:
    """The scope that the layer's variables share, else that of its statistics, else that of its op."""
    names = [v.name for v in vectors if v.name]
    statistics = [v.name for v in vectors if v.name and v.role in (Role.MEAN, Role.VARIANCE)]
    for group_of_names in (names, statistics, names[:1]):
        scope = _scope(group_of_names)
        if scope:
            return scope
    op = graph.flat.names[found.sites[0].node] if found.sites else ""
    parts = [part for part in op.split("/")[:-1] if part not in _SCOPES_OF_OPS]
    return "/".join(parts) or (names[0] if names else op)


def _scope(names: list[str]) -> str:
    parts = _common([name.split("/")[:-1] for name in names])
    while parts and parts[-1] in _SCOPES_OF_OPS:
        parts.pop()
    return "/".join(parts)


def _common(scopes: list[list[str]]) -> list[str]:
    shared = []
    for parts in zip(*scopes, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return shared


def _site(graph: GraphView, paired: PairedSite, before: Mapping[int, tuple[str, ...]]) -> Site:
    flat, site = graph.flat, paired.site
    feeding = Upstream() if site.x is None else upstream(flat, site.x)
    if feeding.dropout is None and paired.train is not site and paired.train.x is not None:
        feeding = _with_dropout(feeding, upstream(flat, paired.train.x))
    nodes = {site.node, paired.train.node}
    linear = linear_of(graph.stored, feeding)
    return Site(
        name=flat.names[site.node],
        form=site.form,
        mode=paired.mode,
        switch=None if paired.switch is None else _switch(graph, *paired.switch),
        epsilon=site.epsilon,
        axis=site.axis,
        rank=site.rank,
        linear=linear,
        linear_axis=_linear_axis(flat, feeding),
        bias=None if feeding.bias is None else graph.stored.name(feeding.bias),
        dropout=None if feeding.dropout is None else flat.names[feeding.dropout],
        inputs=graph.feeds.of(paired.train.node),
        reduced=reduced_sizes(flat, paired.train),
        moments=_moments(graph, paired.train),
        before=before.get(site.node, ()),
        row=row_of(graph, paired.train),
        train_ops=tuple(op.name for op in graph.train_ops if any(op.runs[n] for n in nodes)),
        backpropagated=None if graph.learning is None else any(graph.learning[n] for n in nodes),
        outputs=tuple(name for name, runs in graph.outputs.items() if any(runs[n] for n in nodes)),
        order=graph.position[site.node],
        node=site.node if site.node < flat.main_nodes else None,
    )


def _moments(graph: GraphView, site: FoundSite) -> tuple[str, str] | None:
    """Names of the tensors that hold the batch mean and variance, where code outside can use them."""
    flat = graph.flat
    found = (site.mean.moments, site.variance.moments)
    if any(len(edges) != 1 for edges in found):
        return None
    mean, variance = (next(iter(edges)) for edges in found)
    inside = [flat.main_nodes <= node_of(e) or any(graph.contexts.of(node_of(e))) for e in (mean, variance)]
    return None if any(inside) else (_tensor_name(flat, mean), _tensor_name(flat, variance))


def _tensor_name(flat: FlatGraph, e: int) -> str:
    return f"{flat.names[node_of(e)]}:{port_of(e)}"


def _switch(graph: GraphView, predicate: int, side: bool) -> Switch:  # noqa: FBT001 - a value of the model
    """With what the checkpoint holds of a variable that decides."""
    found = describe_switch(graph.flat, predicate, side)
    tensor = graph.stored.tensor(predicate) if found.kind == "variable" else None
    if tensor is None or tensor.unavailable is not None or tensor.shape:
        return found
    return replace(found, default=bool(tensor.read().any()))


def _with_dropout(before: Upstream, train: Upstream) -> Upstream:
    if train.dropout is None:
        return before
    return replace(before, dropout=train.dropout)


def _linear_axis(flat: FlatGraph, before: Upstream) -> int | None:
    """Where the linear op's channels are in the site's input, with transpositions between undone."""
    if before.linear is None or before.turned is None:
        return None
    layout = flat.attr(before.linear, "data_format")
    axis = 1 if layout is not None and layout.s.startswith(b"NC") else -1
    return before.turned.index(axis % len(before.turned)) if before.turned else axis


def graph_facts(graph: GraphView) -> GraphFacts:
    """The graph as a whole."""
    flat = graph.flat
    optimized: dict[str, tuple[str, ...]] = {}
    for node, variable in graph.optimizers.items():
        name = variable_name(flat, variable)
        optimized[name] = (*optimized.get(name, ()), flat.names[node])
    return GraphFacts(
        path=str(graph.raw.path),
        format=graph.raw.format,
        nodes=len(flat.ops),
        purpose=Purpose.TRAINING if graph.optimizers else Purpose.INFERENCE,
        tf_version=graph.raw.tf_version,
        serving=graph.serving,
        train_ops=tuple(
            TrainOp(
                name=op.name,
                found_by=op.found_by,
                variables=tuple(sorted({variable_name(flat, graph.optimizers[o]) for o in op.optimized})),
            )
            for op in graph.train_ops
        ),
        savers=tuple(graph.savers),
        restores=tuple(find_restores(flat)),
        signature_inputs=_signature_inputs(graph.raw),
        model_variables=frozenset(graph.raw.collections.get("model_variables", ())),
        update_collection=tuple(graph.raw.collections.get("update_ops", ())),
        trainable=graph.trainable,
        optimized=optimized,
        regularised=regularised(flat),
        variables={
            variable_name(flat, node): declared_shape(flat, node)
            for op in sorted(VARIABLES)
            for node in flat.by_op.get(op, ())
        },
    )


def _signature_inputs(raw: RawGraph) -> frozenset[str] | None:
    if not raw.served:
        return None
    return frozenset(tensor.partition(":")[0] for signature in raw.served for tensor in signature.inputs.values())
