"""Which kind of batch norm a layer is: batch renormalisation, ghost batches and several axes train in their own way.

In eval mode batch renormalisation is plain batch norm: a frozen graph holds nothing else, and cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bncheck.facts.norm_kinds import NormKind
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.group_sites import FoundLayer, PairedSite
from bncheck.recognise.graph.operands import FUSED, keeps_several_axes
from bncheck.recognise.graph.trace import VARIABLES, constant, variable_name
from bncheck.recognise.graph.updates import Write, fused_moments

if TYPE_CHECKING:
    from bncheck.recognise.graph.view import GraphView

_RENORM = frozenset({"renorm_mean", "renorm_stddev"})
"""What tf.layers, tf.contrib and Keras call the variables that batch renormalisation adds beside its statistics."""
_COPIES = frozenset({"Identity", "Cast", "StopGradient"})
_STEPS = 4


def kind_of_config(config: Mapping[str, Any]) -> NormKind:
    """As a Keras configuration says."""
    axis = config.get("axis")
    if config.get("renorm"):
        return NormKind.RENORMALISED
    if config.get("virtual_batch_size"):
        return NormKind.GHOST
    return NormKind.SEVERAL_AXES if isinstance(axis, (list, tuple)) and len(axis) > 1 else NormKind.PLAIN


def kind_in_graph(graph: GraphView, found: FoundLayer, paired: Sequence[PairedSite]) -> NormKind:
    """As a graph computes it; what the inference graph leaves out, by the variables that lie beside the statistics."""
    if any(_is_ghost(graph.flat, one) for one in paired):
        return NormKind.GHOST
    if any(_keeps_several_axes(graph.flat, found, one) for one in paired):
        return NormKind.SEVERAL_AXES
    renormalised = _corrects_moments(graph, found) or _has_renorm_beside(graph, found)
    return NormKind.RENORMALISED if renormalised else NormKind.PLAIN


def _corrects_moments(graph: GraphView, found: FoundLayer) -> bool:
    """Whether the normalised value depends on a second average of its own moments."""
    flat = graph.flat
    own = {e for site in found.sites for e in fused_moments(flat, site)}
    entered = [write for e in own for write in graph.writes.by_moment.get(e, ())]
    seconds = {variable for write in entered if (variable := _second(graph, found, write)) is not None}
    if not seconds:
        return False
    behind = flat.data_ancestors([site.node for site in found.sites])
    return any(behind[variable] for variable in seconds)


def _second(graph: GraphView, found: FoundLayer, write: Write) -> int | None:
    """The variable by which an update averages moments a second time, which is none of the statistics."""
    if write.derived_from is not None:
        return write.derived_from
    first = write.variable in (found.mean, found.variance) or write.variable in graph.writes.auxiliary
    return None if first else write.variable


def _has_renorm_beside(graph: GraphView, found: FoundLayer) -> bool:
    if found.mean is None or graph.flat.ops[found.mean] not in VARIABLES:
        return False
    scope = variable_name(graph.flat, found.mean).rpartition("/")[0]
    return any(f"{scope}/{name}".lstrip("/") in graph.variable_names for name in _RENORM)


def _is_ghost(flat: FlatGraph, paired: PairedSite) -> bool:
    """Whether the batch is cut into parts before, and joined again behind, as `virtual_batch_size` does."""
    if flat.ops[paired.train.node] in FUSED or paired.train.x is None:
        return False
    whole = _split_from(flat, paired.train.x)
    return whole is not None and any(_is_joined(flat, site.node, whole) for site in (paired.site, paired.train))


def _split_from(flat: FlatGraph, x: int) -> int | None:
    """The node of the shape (-1, ...) whose batch axis was cut in two; None where it was not.

    In training into parts of a size, in eval mode into all and 1.
    """
    node = node_of(x)
    for _ in range(_STEPS):
        if flat.ops[node] not in _COPIES or not flat.data[node]:
            break
        node = node_of(flat.data[node][0])
    shape = node_of(flat.data[node][1]) if flat.ops[node] == "Reshape" and len(flat.data[node]) == 2 else node
    if flat.ops[shape] != "ConcatV2" or len(flat.data[shape]) != 3:
        return None
    lead, rest = constant(flat, flat.data[shape][0]), node_of(flat.data[shape][1])
    if lead is None or lead.size != 2 or flat.ops[rest] != "StridedSlice":
        return None
    first, second = (int(size) for size in lead.reshape(-1))
    cut = (first > 0 and second == -1) or (first, second) == (-1, 1)
    return node_of(flat.data[rest][0]) if cut else None


def _is_joined(flat: FlatGraph, node: int, shape: int) -> bool:
    """Whether a value is reshaped to a shape."""
    frontier = [node]
    for _ in range(_STEPS):
        frontier = [user for one in frontier for user in flat.consumers(one)]
        if any(flat.ops[user] == "Reshape" and node_of(flat.data[user][1]) == shape for user in frontier):
            return True
        frontier = [user for user in frontier if flat.ops[user] in _COPIES]
    return False


def _keeps_several_axes(flat: FlatGraph, found: FoundLayer, paired: PairedSite) -> bool:
    """Whether the statistics are of more axes than one, as those of `axis=[1, 3]`."""
    if any(keeps_several_axes(flat, v) for v in (found.mean, found.variance) if v is not None):
        return True
    axes, rank = paired.train.variance.axes, paired.train.rank
    return bool(axes) and rank is not None and rank > 3 and min(axes) >= 0 and rank - len(axes) > 1
