"""Groups sites and updates into layers: those that share statistics variables are one batch norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bncheck.facts.layers import Mode, Role
from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, node_of
from bncheck.recognise.graph.operands import classify
from bncheck.recognise.graph.sites import FoundSite
from bncheck.recognise.graph.trace import (
    MERGES,
    PASS,
    SELECTS,
    VARIABLES,
    declared_shape,
    predicate,
    sources,
    variable_name,
)
from bncheck.recognise.graph.updates import Write, Writes, fused_moments, role_of
from bncheck.recognise.graph.upstream import feeds_a_layer

_JOINS = MERGES | SELECTS | CONDITIONALS
_COPIES = 4
"""Copies between a site's output and what picks it."""


class PairedSite(Record, eq=False):
    """A site as users see it: the train and the eval op of one condition are one switched site."""

    site: FoundSite
    """The eval op where there are two."""
    train: FoundSite
    """The op that normalises with batch statistics; the same as `site` where there is one op."""
    mode: Mode
    switch: tuple[int, bool] | None
    """(predicate node, value that selects batch statistics)."""


@dataclass(kw_only=True, eq=False)
class FoundLayer:
    """One batch norm in a graph, as node numbers."""

    mean: int | None = None
    variance: int | None = None
    gamma: int | None = None
    beta: int | None = None
    sites: list[FoundSite] = field(default_factory=list)
    updates: list[tuple[Write, Role, FoundSite | None]] = field(default_factory=list)


def group(graph: FlatGraph, contexts: Contexts, sites: list[FoundSite], writes: Writes) -> list[FoundLayer]:
    """Layers in forward order, each with its sites and the updates of its statistics."""
    position = graph.position
    roles: dict[int, tuple[FoundSite, Role]] = {}
    for site in sites:
        for e, role in fused_moments(graph, site).items():
            roles.setdefault(e, (site, role))
    written = _written_by(writes, {e: role for e, (_, role) in roles.items()})
    layers: dict[tuple[int, ...], FoundLayer] = {}
    homeless: list[FoundSite] = []
    ordered = sorted(sites, key=lambda s: position[s.node])
    pairs = _completed([_statistics(graph, site, writes, written) for site in ordered])
    for site, (mean, variance) in zip(ordered, pairs, strict=True):
        if mean is None and variance is None:
            homeless.append(site)
            continue
        layer = layers.setdefault(_key(graph, site, mean, variance), FoundLayer(mean=mean, variance=variance))
        _add(graph, layer, site)
    _find_homes(graph, contexts, homeless, layers)
    by_variable = {v: layer for layer in layers.values() for v in (layer.mean, layer.variance) if v is not None}
    for write in writes.from_moments:
        updated = by_variable.get(write.variable)
        if updated is None or write.variable in writes.auxiliary:
            continue
        role = Role.VARIANCE if write.variable == updated.variance else Role.MEAN
        feeding = [roles[e][0] for e in sorted(write.operand.moments) if e in roles]
        updated.updates.append((write, role, feeding[0] if feeding else None))
    result = list(layers.values())
    bare = [layer for layer in result if layer.mean is None and layer.variance is None]
    if bare:
        _statistics_by_scope(graph, bare, by_variable)
    averages = {write.variable for write in writes.from_moments}
    for layer in result:
        _corrected_affine(graph, contexts, layer, averages)
    return result


def _completed(pairs: list[tuple[int | None, int | None]]) -> list[tuple[int | None, int | None]]:
    """Pairs of which only one is known (nothing writes the other), completed by a site that reads both."""
    whole = {v: pair for pair in pairs if None not in pair for v in pair}
    return [
        whole.get(mean if variance is None else variance, (mean, variance))
        if (mean is None) != (variance is None)
        else (mean, variance)
        for mean, variance in pairs
    ]


def _find_homes(
    graph: FlatGraph, contexts: Contexts, homeless: list[FoundSite], layers: dict[tuple[int, ...], FoundLayer]
) -> None:
    """Adds sites that neither read nor update statistics to the layer of their gamma and beta, or to the one whose
    stored statistics a condition may pick instead; else as layers.
    """
    homes = _homes(graph, layers)
    joined = _joined(graph, layers) if homeless else {}
    for site in homeless:
        found = [home for key in _anchors(graph, site) for home in homes.get(key, ())]
        if _is_frozen(graph):
            found = [home for home in found if any(opposite(graph, contexts, site, other) for other in home.sites)]
        home = next(iter(found), None) or _picked_beside(graph, contexts, site, joined)
        if home is None:
            if site.gamma is None and site.beta is None and not feeds_a_layer(graph, site.node):
                continue
            home = layers.setdefault((-2, site.node), FoundLayer())
        _add(graph, home, site)
        for key in _anchors(graph, site):
            homes.setdefault(key, []).append(home)


def _joined(graph: FlatGraph, layers: dict[tuple[int, ...], FoundLayer]) -> dict[int, FoundLayer]:
    """Op that picks one of two values -> the layer that one of them comes from, by stored statistics."""
    return {
        join: layer
        for layer in layers.values()
        for site in layer.sites
        if site.mode is Mode.EVAL
        for join in _joins_behind(graph, site.node)
    }


def _picked_beside(
    graph: FlatGraph, contexts: Contexts, site: FoundSite, joined: dict[int, FoundLayer]
) -> FoundLayer | None:
    """The layer of the eval site that a condition picks where it does not pick this one: another tower's."""
    homes = [joined[join] for join in _joins_behind(graph, site.node) if join in joined]
    return next((home for home in homes if any(opposite(graph, contexts, site, o) for o in home.sites)), None)


def without_copies(
    graph: FlatGraph, layers: list[FoundLayer], saved: frozenset[str]
) -> tuple[list[FoundLayer], list[FoundLayer]]:
    """(layers, copies): copies of all layers, one a tower, of which the Saver keeps the first on purpose.

    `saved`: names of the variables that any Saver writes. A layer of which it writes only gamma or beta is no copy, nor
    is one that sees what another layer gives.
    """
    kept = [layer for layer in layers if any(variable_name(graph, v) in saved for v in _variables(layer))]
    copies = [layer for layer in layers if layer not in kept]
    whole = [layer for layer in kept if all(variable_name(graph, v) in saved for v in _variables(layer))]
    first = [_form(graph, layer) for layer in kept]
    if not kept or len(whole) < len(kept) or not copies or len(copies) % len(kept):
        return layers, []
    if [_form(graph, layer) for layer in copies] != first * (len(copies) // len(kept)):
        return layers, []
    behind = graph.data_ancestors([site.node for layer in copies for site in layer.sites])
    if any(behind[site.node] for layer in kept for site in layer.sites):
        return layers, []  # a later part of the same network, which a Saver forgot
    return kept, copies


def _variables(layer: FoundLayer) -> list[int]:
    return [v for v in (layer.mean, layer.variance, layer.gamma, layer.beta) if v is not None]


def _form(graph: FlatGraph, layer: FoundLayer) -> tuple[object, ...]:
    """What copies of a layer have in common."""
    vectors = (layer.mean, layer.variance, layer.gamma, layer.beta)
    shapes = tuple(None if v is None else declared_shape(graph, v) for v in vectors)
    return (*shapes, *sorted((site.form, site.mode.value, site.epsilon or 0.0) for site in layer.sites))


def _written_by(writes: Writes, roles: dict[int, Role]) -> dict[int, list[tuple[Role, int]]]:
    """Moment edge -> (role, variable that it updates)."""
    found: dict[int, list[tuple[Role, int]]] = {}
    for write in writes.from_moments:
        role = role_of(write, roles)
        if role is None or write.variable in writes.auxiliary:
            continue
        for e in write.operand.moments:
            if e in roles and roles[e] is role:
                found.setdefault(e, []).append((role, write.variable))
    return found


def _statistics(
    graph: FlatGraph, site: FoundSite, writes: Writes, written: dict[int, list[tuple[Role, int]]]
) -> tuple[int | None, int | None]:
    """(mean, variance) of a site: what it reads, else what its moments are written to."""
    found: list[int | None] = []
    for operand, role in ((site.mean, Role.MEAN), (site.variance, Role.VARIANCE)):
        stored = [v for v in operand.stored if site.mode is not Mode.TRAIN or graph.ops[v] in VARIABLES]
        if writes.auxiliary:
            stored = [v for v in stored if v not in writes.auxiliary] or stored
        if not stored:
            moments = [e for e, r in fused_moments(graph, site).items() if r is role]
            trained = {_variable(graph, site.gamma), _variable(graph, site.beta)}  # by an optimizer written by hand
            stored = [v for e in sorted(moments) for r, v in written.get(e, ()) if r is role and v not in trained]
            stored.sort(
                key=lambda v: "moving" not in variable_name(graph, v)
            )  # batch renorm writes renorm_mean as well
        found.append(stored[0] if stored else None)
    return found[0], found[1]


def _key(graph: FlatGraph, site: FoundSite, mean: int | None, variance: int | None) -> tuple[int, ...]:
    """Statistics variables name a layer; constants may be shared by equal value, so gamma and beta join the key."""
    pair = (-1 if mean is None else mean, -1 if variance is None else variance)
    if any(node >= 0 and graph.ops[node] in VARIABLES for node in pair):
        return pair
    return (*pair, *(_source(graph, e) or -1 for e in (site.gamma, site.beta)), site.node)


def _source(graph: FlatGraph, e: int | None) -> int | None:
    if e is None:
        return None
    nodes = {graph.whole.get(node_of(x), node_of(x)) for x in sources(graph, e)}
    return nodes.pop() if len(nodes) == 1 else None


def _variable(graph: FlatGraph, e: int | None) -> int | None:
    node = _source(graph, e)
    return node if node is not None and graph.ops[node] in VARIABLES else None


def _add(graph: FlatGraph, layer: FoundLayer, site: FoundSite) -> None:
    layer.sites.append(site)
    pick = _source if _is_frozen(graph) else _variable
    layer.gamma = pick(graph, site.gamma) if layer.gamma is None else layer.gamma
    layer.beta = pick(graph, site.beta) if layer.beta is None else layer.beta


def _corrected_affine(graph: FlatGraph, contexts: Contexts, layer: FoundLayer, averages: set[int]) -> None:
    """Gamma and beta that batch renorm corrects by moments and averages: what else enters is the variable itself."""
    for site in layer.sites:
        for name, e in (("gamma", site.gamma), ("beta", site.beta)):
            if e is None or getattr(layer, name) is not None:
                continue
            operand = classify(graph, contexts, e)
            own = [v for v in operand.stored if graph.ops[v] in VARIABLES and v not in averages | {layer.gamma}]
            if operand.moments and len(own) == 1:
                setattr(layer, name, own[0])


def _is_frozen(graph: FlatGraph) -> bool:
    """Whether the graph's variables are constants."""
    return not any(op in graph.by_op for op in VARIABLES)


def _anchors(graph: FlatGraph, site: FoundSite) -> list[tuple[int, ...]]:
    """What tells the layer of a site that neither reads nor updates statistics: its gamma or its beta.

    Constants of a frozen graph may be shared by equal value, so there both must agree.
    """
    pick = _source if _is_frozen(graph) else _variable
    found = [node for node in (pick(graph, site.gamma), pick(graph, site.beta)) if node is not None]
    return ([tuple(found)] if found else []) if _is_frozen(graph) else [(node,) for node in found]


def _homes(graph: FlatGraph, layers: dict[tuple[int, ...], FoundLayer]) -> dict[tuple[int, ...], list[FoundLayer]]:
    homes: dict[tuple[int, ...], list[FoundLayer]] = {}
    for layer in layers.values():
        for site in layer.sites:
            for key in _anchors(graph, site):
                homes.setdefault(key, []).append(layer)
    return homes


def _statistics_by_scope(graph: FlatGraph, layers: list[FoundLayer], taken: Iterable[int]) -> None:
    """Adopts `<scope>/moving_mean` and `moving_variance` beside gamma or beta, which nothing in the graph touches."""
    others = set(taken)
    named = {
        variable_name(graph, node): node for op in VARIABLES for node in graph.by_op.get(op, ()) if node not in others
    }
    for layer in layers:
        anchor = layer.gamma if layer.gamma is not None else layer.beta
        if anchor is not None:
            scope = variable_name(graph, anchor).rpartition("/")[0]
            layer.mean = named.get(f"{scope}/moving_mean")
            layer.variance = named.get(f"{scope}/moving_variance")


def pair(graph: FlatGraph, contexts: Contexts, sites: list[FoundSite]) -> list[PairedSite]:
    """Joins the train op and the eval op that one condition chooses between."""
    paired: list[PairedSite] = []
    left = list(sites)
    while left:
        site = left.pop(0)
        partner = next(((other, found) for other in left if (found := opposite(graph, contexts, site, other))), None)
        if partner is not None:
            other, (predicate, side) = partner
            left.remove(other)
            train, stored, train_when = (site, other, side) if site.mode is Mode.TRAIN else (other, site, not side)
            paired.append(_resolved(graph, stored, train, (predicate, train_when)))
        elif site.mode is Mode.SWITCHED and site.switch is not None:
            paired.append(_resolved(graph, site, site, site.switch))
        else:
            paired.append(PairedSite(site=site, train=site, mode=site.mode, switch=None))
    return paired


def opposite(graph: FlatGraph, contexts: Contexts, one: FoundSite, other: FoundSite) -> tuple[int, bool] | None:
    """(predicate, value on which `one` counts) where the two are a train and an eval op of one condition.

    Each runs on its side of it, or the condition only picks one's output: Keras computes batch moments in any case.
    """
    if {one.mode, other.mode} != {Mode.TRAIN, Mode.EVAL}:
        return None
    theirs = contexts.of(other.node).conditions
    found = [(where, side) for where, side in contexts.of(one.node).conditions if (where, not side) in theirs]
    return found[0] if found else _picked(graph, contexts, one, other)


def _picked(graph: FlatGraph, contexts: Contexts, one: FoundSite, other: FoundSite) -> tuple[int, bool] | None:
    """(predicate, value on which `one` is picked) where the outputs of both meet."""
    for node in _joins_behind(graph, other.node):
        op, data = graph.ops[node], graph.data[node]
        sides: list[tuple[int, frozenset[tuple[int, bool]]]]
        if op in MERGES:
            sides = [(e, contexts.along(e)) for e in data]
        else:
            source, negated = predicate(graph, data[0])
            branches = data[1:] if op in SELECTS else [edges[0] for edges in graph.returns.get(node, ()) if edges]
            sides = [
                (e, frozenset({(source, first != negated)})) for e, first in zip(branches, (True, False), strict=False)
            ]
        if len(sides) != 2:
            continue
        for (mine, on_mine), (theirs, on_theirs) in (sides, sides[::-1]):
            if _comes_from(graph, mine, one.node) and _comes_from(graph, theirs, other.node):
                found = [(where, side) for where, side in on_mine if (where, not side) in on_theirs]
                if found:
                    return found[0]
    return None


def _comes_from(graph: FlatGraph, e: int, node: int) -> bool:
    return any(node_of(x) == node for x in sources(graph, e))


def _joins_behind(graph: FlatGraph, node: int) -> list[int]:
    """Ops that pick one of two values, within a few copies of a node."""
    found: list[int] = []
    frontier, seen = [node], {node}
    for _ in range(_COPIES):
        behind = [c for current in frontier for c in graph.consumers(current) if c not in seen]
        seen.update(behind)
        found += [c for c in behind if graph.ops[c] in _JOINS]
        frontier = [c for c in behind if graph.ops[c] in PASS]
    return found


def _resolved(graph: FlatGraph, stored: FoundSite, train: FoundSite, switch: tuple[int, bool]) -> PairedSite:
    """A condition on a constant is no switch any more."""
    predicate, train_when = switch
    if graph.ops[predicate] == "Const":
        value = graph.attr(predicate, "value")
        if value is not None and len(value.tensor.bool_val) == 1:
            mode = Mode.TRAIN if bool(value.tensor.bool_val[0]) == train_when else Mode.EVAL
            return PairedSite(site=stored, train=train, mode=mode, switch=None)
    return PairedSite(site=stored, train=train, mode=Mode.SWITCHED, switch=switch)
