"""What one forward pass applies after what, and how many values each of its batch moments averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from bncheck.facts.layers import Mode
from bncheck.recognise.graph.flat import FlatGraph, node_of, port_of
from bncheck.recognise.graph.group_sites import PairedSite
from bncheck.recognise.graph.sites import FoundSite
from bncheck.recognise.graph.trace import VARIABLES, declared_shape
from bncheck.recognise.graph.updates import moments_of, row_written
from bncheck.recognise.graph.upstream import DATA_INPUT, LINEAR
from bncheck.recognise.graph.view import GraphView


def reduced_sizes(flat: FlatGraph, site: FoundSite) -> tuple[int, ...] | None:
    """Sizes of all axes of a site's input but the channels', the batch first, -1 unknown; None without a rank."""
    shape = None if site.x is None else declared_shape(flat, node_of(site.x))
    if not shape or site.axis is None or (site.rank is not None and len(shape) != site.rank):
        return None
    channels = site.axis % len(shape)
    return (*shape[:channels], *shape[channels + 1 :])


def row_of(graph: GraphView, site: FoundSite) -> int | None:
    """The one row of a table of statistics that a site reads, or to which its moments are written; None else."""
    written = [row_written(graph.flat, write) for e in moments_of(site) for write in graph.writes.by_moment.get(e, ())]
    rows = {*site.mean.rows, *site.variance.rows, *(row for row in written if row is not None)}
    return rows.pop() if len(rows) == 1 else None


def sites_before(graph: GraphView, layers: Sequence[Sequence[PairedSite]]) -> dict[int, tuple[str, ...]]:
    """Node of a site -> names of the sites whose output reaches it as activations, in forward order.

    That takes a walk over the forward graph, so it is done only where it can matter: where modes differ, or a layer
    is applied twice.
    """
    sites = sorted(chain.from_iterable(layers), key=lambda paired: graph.position[paired.site.node])
    modes = {paired.mode for paired in sites}
    if not (Mode.TRAIN in modes and len(modes) > 1) and all(len(of_layer) < 2 for of_layer in layers):
        return {}
    number = {node: place for place, one in enumerate(sites) for node in (one.site.node, one.train.node)}
    reached: list[int] = []
    for place, paired in enumerate(sites):
        inputs = [one.x for one in (paired.site, paired.train) if one.x is not None]
        near = _nearest(graph.flat, inputs, number)
        mask = 0
        for other in near - {place}:
            mask |= 1 << other | (reached[other] if other < place else 0)
        reached.append(mask)
    names = [graph.flat.names[paired.site.node] for paired in sites]
    return {
        paired.site.node: tuple(name for other, name in enumerate(names) if mask >> other & 1)
        for paired, mask in zip(sites, reached, strict=True)
    }


def _nearest(flat: FlatGraph, inputs: list[int], number: Mapping[int, int]) -> set[int]:
    """Numbers of the sites from which activations lead to `inputs` with no other site between.

    Weights are no activations: what enters a linear op beside its input, as a step of gradient descent inside the
    graph does, is not followed.
    """
    found: set[int] = set()
    stack, seen = list(inputs), set(inputs)
    while stack:
        e = stack.pop()
        node = node_of(e)
        if node in number:
            found.add(number[node])
            continue
        for x in _activations(flat, e):
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return found


def _activations(flat: FlatGraph, e: int) -> Sequence[int]:
    node = node_of(e)
    op, data = flat.ops[node], flat.data[node]
    if op in VARIABLES or op.endswith("Grad"):
        return ()
    if node in flat.returns:
        port = port_of(e)
        return [outputs[port] for outputs in flat.returns[node] if port < len(outputs)]
    if op in LINEAR and len(data) > 1:
        return data[DATA_INPUT.get(op, 0) :][:1]
    return data
