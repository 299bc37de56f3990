"""A SavedModel of several MetaGraphs as one model: what the others do with the variables of the one that serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bncheck.facts.layers import Facts, GraphFacts, Layer, Site, Update
from bncheck.recognise.graph.by_graph import recognise_graph
from bncheck.recognise.graph.view import chosen_graph
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel


def recognise_metagraphs(raw: RawModel, hints: Options) -> Facts:
    """Facts of a SavedModel with several MetaGraphs. Raises ReadError where one is damaged."""
    serving = chosen_graph(raw)
    found = {
        "+".join(graph.tags) or f"untagged {number}": recognise_graph(replace(raw, graphs=(graph,)), hints)
        for number, graph in enumerate(raw.graphs)
        if graph is not serving
    }
    served = as_one(recognise_graph(replace(raw, graphs=(serving,)), hints), found)
    notes = tuple(f"the MetaGraph with tags `{tags}` was read too" for tags in found)
    return replace(served, notes=(*served.notes, *notes))


def as_one(served: Facts, others: Mapping[str, Facts]) -> Facts:
    """The facts of the graph that serves, with the sites, updates and train ops of the others (by their tags).

    A layer is the same where its statistics are the same variables. Layers that only another graph has are left out:
    nobody serves them.
    """
    layers = tuple(_joined(layer, others) for layer in served.layers)
    if served.graph is None:
        return replace(served, layers=layers)
    graphs = [other.graph for other in others.values() if other.graph is not None]
    return replace(served, layers=layers, graph=_graph(served.graph, graphs))


def _joined(layer: Layer, others: Mapping[str, Facts]) -> Layer:
    """The layer with what is done to it elsewhere."""
    for tags, other in others.items():
        same = next((found for found in other.layers if _variables(found) == _variables(layer)), None)
        if same is None or not all(_variables(layer)):
            continue
        layer = replace(
            layer,
            sites=(*layer.sites, *(_site(tags, site) for site in same.sites)),
            updates=(*layer.updates, *(_update(tags, update) for update in same.updates)),
            trained_by=tuple(dict.fromkeys((*layer.trained_by, *same.trained_by))),
            decay=same.decay if layer.decay is None else layer.decay,
            decay_from=same.decay_from if layer.decay is None else layer.decay_from,
        )
    return layer


def _variables(layer: Layer) -> tuple[str, str]:
    return layer.mean.name, layer.variance.name


def _site(tags: str, site: Site) -> Site:
    """A site of a graph that serves nothing: no output of the model depends on it."""
    return replace(site, name=f"{tags}/{site.name}", outputs=(), before=(), moments=None, node=None)


def _update(tags: str, update: Update) -> Update:
    site = None if update.site is None else f"{tags}/{update.site}"
    return replace(update, name=f"{tags}/{update.name}", outputs=(), site=site)


def _graph(served: GraphFacts, others: Sequence[GraphFacts]) -> GraphFacts:
    """What training is known to do, with the signatures and Savers of the graph that serves."""
    optimized: dict[str, tuple[str, ...]] = dict(served.optimized)
    for other in others:
        for variable, ops in other.optimized.items():
            optimized[variable] = tuple(dict.fromkeys((*optimized.get(variable, ()), *ops)))
    return replace(
        served,
        train_ops=(*served.train_ops, *(op for other in others for op in other.train_ops)),
        model_variables=served.model_variables.union(*(other.model_variables for other in others)),
        update_collection=(*served.update_collection, *(op for other in others for op in other.update_collection)),
        trainable=served.trainable.union(*(other.trainable for other in others)),
        optimized=optimized,
    )
