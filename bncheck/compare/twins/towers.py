"""Towers: one batch is dealt to copies of a network that share their layers. In the twins one copy takes all of it."""

from __future__ import annotations

from bncheck.compare.twins.reach import reached
from bncheck.recognise.graph.flat import edge, node_of, port_of
from bncheck.recognise.graph.trace import constant
from bncheck.recognise.graph.view import GraphView

_AXIS_AND_VALUE = {"Split": (0, 1), "SplitV": (2, 0)}
"""Places of the operands."""
_MOST = 64
"""Towers: a split into more is something else."""


def dealt(view: GraphView, input_edge: int) -> dict[int, int]:
    """Splits of the batch between towers -> the edge that they split. Their first outputs are the first tower's."""
    flat = view.flat
    splits = [node for op in _AXIS_AND_VALUE for node in flat.by_op.get(op, ()) if node < flat.main_nodes]
    if not splits:
        return {}
    ours = reached(flat, [input_edge])
    found = {}
    for node in splits:
        axis, value = (flat.data[node][place] for place in _AXIS_AND_VALUE[flat.ops[node]])
        along = constant(flat, axis)
        by_samples = along is not None and along.size == 1 and int(along.reshape(-1)[0]) == 0
        of_the_input = value == input_edge or bool(ours[node_of(value)])
        if by_samples and of_the_input and _to_the_same_layers(view, node):
            found[node] = value
    return found


def _to_the_same_layers(view: GraphView, split: int) -> bool:
    flat = view.flat
    used = {port_of(e) for reader in flat.consumers(split) for e in flat.data[reader] if node_of(e) == split}
    if not 2 <= len(used) <= _MOST:
        return False
    layers = []
    for port in used:
        behind = reached(flat, [edge(split, port)])
        layers.append({n for n, layer in enumerate(view.layers) if any(behind[site.node] for site in layer.sites)})
    return bool(layers[0]) and all(each == layers[0] for each in layers)
