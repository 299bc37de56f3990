"""What of a graph's batch norm could not be told."""

from __future__ import annotations

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Layer, Mode, Presence
from bncheck.recognise.graph.view import GraphView


def gaps_of(graph: GraphView, layers: tuple[Layer, ...]) -> tuple[Gap, ...]:
    """Layers and modes that were not understood, statistics not read, a train op not found."""
    gaps = [
        Gap(
            kind=GapKind.LAYER,
            where=graph.flat.names[node],
            why="normalises over axes that the graph computes, so it may be batch norm or layer norm",
        )
        for node in graph.unclear
    ]
    gaps += [
        Gap(
            kind=GapKind.MODE, where=site.name, why="mixes stored and batch statistics in a way that was not understood"
        )
        for layer in layers
        for site in layer.sites
        if site.mode is Mode.UNKNOWN
    ]
    gaps += [
        Gap(kind=GapKind.STATISTICS, where=vector.name, why=vector.reason)
        for layer in layers
        for vector in layer.statistics
        if vector.presence is Presence.UNREAD and vector.moved is None
    ]
    if not graph.train_ops and (graph.optimizers or any(layer.updates for layer in layers)):
        gaps.append(
            Gap(
                kind=GapKind.TRAIN_OP,
                where=str(graph.raw.path),
                why="the graph holds updates but no optimizer, so it is unknown whether training runs them",
                how="give the MetaGraph of the training graph with --graph, or name the op with --train-op",
            )
        )
    return tuple(gaps)
