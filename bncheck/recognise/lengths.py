"""Vectors of one layer that are not of one length: no model has such a layer, so what does not fit is not judged."""

from __future__ import annotations

import math
from dataclasses import replace

from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, GraphFacts, Layer, Origin, Presence, Vector


def with_fitting_vectors(facts: Facts) -> Facts:
    """Facts in which the vectors of each layer fit one another, and a gap for each layer or vector that does not.

    A layer whose statistics differ in length is left out, unless its graph declares others: then the checkpoint is of
    another graph (BN115), and the layer stays without their values.
    """
    layers: list[Layer] = []
    gaps: list[Gap] = []
    for layer in facts.layers:
        mean, variance = map(_size, layer.statistics)
        if mean is not None and variance is not None and mean != variance and not _scalar_in_graph(layer):
            told = f"{mean:,} values of {layer.mean.name}, {variance:,} of {layer.variance.name}"
            why = f"its statistics do not fit each other ({told})"
            gaps.append(Gap(kind=GapKind.LAYER, where=layer.name, why=why))
            if _of_another_graph(layer, facts.graph):
                layers.append(replace(layer, mean=_unread(layer.mean, why), variance=_unread(layer.variance, why)))
            continue
        channels = mean if variance is None else variance
        gamma, beta = (_fitting(vector, channels, _width(layer)) for vector in (layer.gamma, layer.beta))
        odd = [now for now, was in ((gamma, layer.gamma), (beta, layer.beta)) if now is not was]
        gaps += [Gap(kind=GapKind.STATISTICS, where=vector.name, why=vector.reason) for vector in odd]
        layers.append(replace(layer, gamma=gamma, beta=beta) if odd else layer)
    return replace(facts, layers=tuple(layers), gaps=(*facts.gaps, *gaps)) if gaps else facts


def _of_another_graph(layer: Layer, graph: GraphFacts | None) -> bool:
    """Whether the graph declares another shape for a statistic than is stored."""
    declared = {} if graph is None else graph.variables
    shapes = ((declared.get(vector.name), vector.shape) for vector in layer.statistics)
    return any(shape is not None and -1 not in shape and shape != stored for shape, stored in shapes)


def _scalar_in_graph(layer: Layer) -> bool:
    """Whether one of the two is a single number for all channels, as a graph may have it."""
    return layer.origin is Origin.GRAPH and 1 in map(_size, layer.statistics)


def _width(layer: Layer) -> int | None:
    """Length of a row of statistics that are a table, of one row a time step."""
    shape = layer.variance.shape or layer.mean.shape
    return shape[1] if shape is not None and len(shape) == 2 else None


def _fitting(vector: Vector, channels: int | None, width: int | None) -> Vector:
    """A gamma or beta as it is, or without its values.

    It may be one number for all channels, of conditional batch norm have a row for each class, and be one for the
    statistics of all time steps, whose rows are `width` long.
    """
    size = _size(vector)
    if size is None or channels is None or size in (1, channels, width) or (channels and size and size % channels == 0):
        return vector
    return _unread(vector, f"it holds {size:,} values for {channels:,} channels")


def _size(vector: Vector) -> int | None:
    """How many values it has or declares; None where there are none or the shape is open."""
    if vector.values is not None:
        return int(vector.values.size)
    if vector.presence is not Presence.UNREAD or vector.shape is None or any(size < 0 for size in vector.shape):
        return None
    return math.prod(vector.shape)


def _unread(vector: Vector, reason: str) -> Vector:
    return replace(vector, presence=Presence.UNREAD, values=None, constant_checked=False, constant=None, reason=reason)
