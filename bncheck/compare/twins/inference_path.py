"""Which way through a training graph inference takes: behind calls, behind conditions on the training switch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bncheck.compare.twins.reach import reached
from bncheck.compare.twins.towers import dealt
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Layer, Mode
from bncheck.recognise.graph.flat import CONDITIONALS, LOOPS, FlatGraph, node_of, port_of
from bncheck.recognise.graph.folded import rounding
from bncheck.recognise.graph.group_sites import PairedSite, pair
from bncheck.recognise.graph.trace import MERGES, REF_WRITES, SWITCHES, predicate
from bncheck.recognise.graph.view import GraphView

_STEPS = 200
"""Nested calls and branches that are looked through."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """What of a recognised graph goes into its twins."""

    view: GraphView
    input_edge: int
    sites: Mapping[int, tuple[PairedSite, Layer]]
    """Output node -> its batch norm."""
    settled: Mapping[int, bool]
    """Predicate node -> its value in inference."""
    dealt: Mapping[int, int]
    """Split of the batch between towers -> the edge that the first of them takes whole."""
    masks: Mapping[int, int]
    """Edge that enters a batch norm -> that of its mask, true where a value counts in the statistics of a batch."""
    fed: bytearray
    """For each node whether the data of the input reach it: then it is no further input, whatever its op."""


def plan_of(view: GraphView, layers: tuple[Layer, ...], input_edge: int, masks: Mapping[str, str]) -> Plan:
    """The batch norms of `layers`, and the training switches that they tell, settled for inference.

    `masks`: tensor that enters a batch norm -> its mask. Raises BncheckError where one is that of no batch norm found.
    """
    flat = view.flat
    by_site = {site.name: layer for layer in layers for site in layer.sites}
    sites: dict[int, tuple[PairedSite, Layer]] = {}
    settled: dict[int, bool] = {}
    for found in view.layers:
        for paired in pair(flat, view.contexts, found.sites):
            layer = by_site.get(flat.names[paired.site.node])
            if layer is None:
                continue
            fold = paired.site.fold
            sites[paired.site.node if fold is None else fold.output] = (paired, layer)
            if paired.mode is Mode.SWITCHED and paired.switch is not None:
                settled[paired.switch[0]] = not paired.switch[1]
    settled |= rounding(flat)
    entering = {without_identities(flat, e) for paired, _ in sites.values() if (e := paired.site.x) is not None}
    masked = {
        without_identities(flat, x): mask
        for names in masks.items()
        for x, mask in [tuple(map(flat.lookup, names))]
        if x is not None and mask is not None
    }
    if len(masked) < len(masks) or not entering.issuperset(masked):
        raise BncheckError("a batch norm with a mask is missing from the graph: compare cannot run it yet")
    return Plan(
        view=view,
        input_edge=input_edge,
        sites=sites,
        settled=settled,
        dealt=dealt(view, input_edge),
        masks=masked,
        fed=reached(flat, [input_edge]),
    )


def without_identities(flat: FlatGraph, e: int) -> int:
    """The edge whose values `e` passes on."""
    while flat.ops[node_of(e)] == "Identity" and flat.data[node_of(e)]:
        e = flat.data[node_of(e)][0]
    return e


def taken(plan: Plan, e: int) -> int:
    """The edge that inference takes for `e`. Raises BncheckError at a condition that is not the training switch."""
    flat = plan.view.flat
    for _ in range(_STEPS):
        node, op = node_of(e), flat.ops[node_of(e)]
        if e == plan.input_edge or node in plan.sites:
            return e
        if node in flat.returns and op not in LOOPS:
            e = _through_call(plan, e)
        elif op in SWITCHES and len(flat.data[node]) > 1 and _settled(plan, flat.data[node][1]) is not None:
            e = flat.data[node][0]
        elif op in REF_WRITES and flat.data[node]:
            e = flat.data[node][
                0
            ]  # inference reads what is stored; what the forward pass of training writes falls away
        elif node in plan.dealt and port_of(e) == 0:
            e = plan.dealt[node]
        elif op in MERGES and port_of(e) == 0 and len(alive := _alive(plan, node)) == 1:
            e = alive[0]
        else:
            return e
    return e


def _settled(plan: Plan, e: int) -> bool | None:
    """Value of a predicate in inference; None where it is not the training switch."""
    source, negated = predicate(plan.view.flat, e)
    value = plan.settled.get(source)
    return None if value is None else value != negated


def _alive(plan: Plan, merge: int) -> list[int]:
    """Inputs of a merge that inference may take."""
    flat = plan.view.flat
    found = []
    for e in flat.data[merge]:
        node = node_of(e)
        switch = flat.ops[node] in SWITCHES and len(flat.data[node]) > 1
        side = _settled(plan, flat.data[node][1]) if switch else None
        against = side is not None and side != bool(port_of(e))
        for source, value in plan.view.contexts.of(node).conditions:
            against = against or plan.settled.get(source, value) != value
        if not against:
            found.append(e)
    return found


def _through_call(plan: Plan, e: int) -> int:
    """The edge behind a call's output; of a condition, the branch that inference takes."""
    flat = plan.view.flat
    node = node_of(e)
    branch = 0
    if flat.ops[node] in CONDITIONALS:
        value = _settled(plan, flat.data[node][0])
        if value is None:
            raise BncheckError(
                f"{flat.names[node]} is a condition that is not the training switch: choose an input and outputs that "
                "do not need it with --inputs and --outputs"
            )
        branch = 0 if value else 1
    return flat.returns[node][branch][port_of(e)]
