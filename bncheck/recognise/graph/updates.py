"""Finds every op that writes a variable from batch moments, whatever way the moving average is written."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from bncheck.facts.layers import Role
from bncheck.facts.record import Record
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.evaluate import evaluate
from bncheck.recognise.graph.flat import FlatGraph, edge, node_of
from bncheck.recognise.graph.operands import FUSED, Operand, classify, row_number
from bncheck.recognise.graph.reductions import is_shifted_by
from bncheck.recognise.graph.sites import FoundSite
from bncheck.recognise.graph.trace import VARIABLES, declared_shape, sources, uniform_initial

_TO_ROWS = frozenset(
    "ScatterUpdate ScatterAdd ScatterSub StridedSliceAssign ResourceScatterUpdate ResourceScatterAdd "
    "ResourceScatterSub ResourceStridedSliceAssign".split()
)
"""Writes of rows: statistics of one time step, in a variable that holds those of all."""
WRITES = frozenset("Assign AssignAdd AssignSub AssignVariableOp AssignAddVariableOp AssignSubVariableOp".split())
_SIGN = {"AssignSub": -1.0, "AssignSubVariableOp": -1.0, "AssignAdd": 1.0, "AssignAddVariableOp": 1.0}
_SIGN |= {"ScatterSub": -1.0, "ResourceScatterSub": -1.0, "ScatterAdd": 1.0, "ResourceScatterAdd": 1.0}


class Write(Record, eq=False):
    """One op that writes a variable."""

    node: int
    variable: int
    value: int
    """Edge of what is assigned, added or subtracted."""
    operand: Operand
    debias_of: int | None = None
    """The auxiliary variable whose debiased value this writes."""
    derived_from: int | None = None
    """The variable that is averaged instead: batch renorm averages a deviation and writes its square."""
    averages: int | None = None
    """The variable that is averaged and holds nothing but the moments of the last batch."""


class Writes(Record, eq=False):
    """All writes of a graph, sorted by what they are."""

    from_moments: tuple[Write, ...]
    """Updates: their value depends on batch moments, directly or through a zero-debias variable."""
    initial: dict[int, float]
    """Variable -> the one value its initialiser gives every element."""
    auxiliary: frozenset[int]
    """Variables that hold the biased average of a zero-debiased update, the deviation of a derived variance, or the
    moments of one batch that are averaged elsewhere."""
    copies: dict[int, tuple[int, bool]]
    """Variable -> (the one other variable that is written over it, whether mixed with what was there)."""

    @cached_property
    def first_of(self) -> dict[int, Write]:
        """Variable -> the first update of it."""
        return {write.variable: write for write in reversed(self.from_moments)}

    @cached_property
    def by_moment(self) -> dict[int, list[Write]]:
        """Edge of batch moments -> the updates that they enter."""
        found: dict[int, list[Write]] = {}
        for write in self.from_moments:
            for e in write.operand.moments:
                found.setdefault(e, []).append(write)
        return found


def find_writes(graph: FlatGraph, contexts: Contexts) -> Writes:
    """Sorts the writes of a graph."""
    found: list[Write] = []
    indirect: list[Write] = []
    initial: dict[int, float] = {}
    for op in sorted(WRITES | _TO_ROWS):
        for node in graph.by_op.get(op, ()):
            data = graph.data[node]
            if len(data) < 2 or _is_restored(graph, data[-1]):
                continue
            variable = written_variable(graph, node)
            if variable is None:
                continue
            if op in WRITES and op not in _SIGN and variable not in initial:
                value = uniform_initial(graph, data[1])
                if value is not None:
                    initial[variable] = value
                    continue
            operand = classify(graph, contexts, data[-1])
            elsewhere = any(v != variable and graph.ops[v] in VARIABLES for v in operand.stored)
            if operand.moments or elsewhere:
                write = Write(node=node, variable=variable, value=data[-1], operand=operand)
                (found if operand.moments else indirect).append(write)
    averaged = {write.variable: write for write in found}
    debiased = [
        replace(write, operand=averaged[source].operand, debias_of=source)
        for write in indirect
        for source in write.operand.stored
        if source in averaged and source != write.variable and _computes_power(graph, write.value)
    ]
    derived = [
        replace(write, operand=averaged[source].operand, derived_from=source)
        for write in indirect
        for source in write.operand.stored[:1]
        if write.operand.stored == (source,) and source in averaged and _squares(graph, write.value)
    ]
    remote = [
        replace(write, operand=averaged[source].operand, averages=source)
        for write in indirect
        for source in write.operand.stored
        if source != write.variable and source in averaged and set(write.operand.stored) <= {source, write.variable}
        if source not in averaged[source].operand.stored and write.variable not in averaged
    ]
    every = found + debiased + derived + remote
    known = {write.node for write in every}
    rest = [write for write in indirect if write.node not in known]
    copies = {write.variable: of for write in rest if (of := _copied(graph, write)) is not None}
    return Writes(
        copies=copies,
        from_moments=tuple(sorted(every, key=lambda write: write.node)),
        initial=initial,
        auxiliary=frozenset(
            v for write in every for v in (write.debias_of, write.derived_from, write.averages) if v is not None
        ),
    )


def _is_restored(graph: FlatGraph, e: int) -> bool:
    """Whether a value comes straight from a checkpoint, as a Saver writes it into each variable."""
    node = node_of(e)
    if graph.ops[node] == "Identity" and graph.data[node]:
        node = node_of(graph.data[node][0])
    return graph.ops[node] == "RestoreV2"


def _copied(graph: FlatGraph, write: Write) -> tuple[int, bool] | None:
    """(variable that is written over another, whether mixed with what was there); None where more enters."""
    others = [v for v in write.operand.stored if v != write.variable]
    counts = all(graph.ops[v] in VARIABLES and declared_shape(graph, v) == () for v in write.operand.other)
    return None if len(others) != 1 or not counts else (others[0], write.variable in write.operand.stored)


def written_variable(graph: FlatGraph, node: int) -> int | None:
    """The variable that a write changes; None where it cannot be told."""
    if not graph.data[node]:
        return None
    nodes = {node_of(e) for e in sources(graph, graph.data[node][0])}
    if len(nodes) != 1:
        return None
    variable = nodes.pop()
    return graph.whole.get(variable, variable) if graph.ops[variable] in VARIABLES else None


def row_written(graph: FlatGraph, write: Write) -> int | None:
    """The one row of a table that a write changes; None where it changes others too, or that cannot be told."""
    return row_number(graph, graph.data[write.node][1]) if graph.ops[write.node] in _TO_ROWS else None


def _squares(graph: FlatGraph, e: int) -> bool:
    """Whether a value is a square, of which epsilon may be taken."""
    for _ in range(8):
        node = node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op == "Square" or (op == "Mul" and len(data) == 2 and sources(graph, data[0]) == sources(graph, data[1])):
            return True
        if op not in ("Sub", "Maximum", "Relu", "Identity", "Cast") or not data:
            return False
        e = data[0]
    return False


def _computes_power(graph: FlatGraph, e: int) -> bool:
    """Whether `1 - decay**step` enters, the mark of zero-debias (moving_averages.py, _zero_debias)."""
    stack, seen = [node_of(e)], {node_of(e)}
    while stack and len(seen) < 60:
        node = stack.pop()
        if graph.ops[node] == "Pow":
            return True
        for x in graph.data[node]:
            if node_of(x) not in seen and graph.ops[node] not in VARIABLES:
                seen.add(node_of(x))
                stack.append(node_of(x))
    return False


def moments_of(site: FoundSite) -> dict[int, Role]:
    """The batch moments that a site computes, as edges, and which statistic each is."""
    roles = dict.fromkeys(site.variance.moments, Role.VARIANCE)
    return roles | dict.fromkeys(site.mean.moments, Role.MEAN)


def fused_moments(graph: FlatGraph, site: FoundSite) -> dict[int, Role]:
    """As `moments_of`, with the batch outputs of a fused op."""
    if graph.ops[site.node] in FUSED:
        return {edge(site.node, 1): Role.MEAN, edge(site.node, 2): Role.VARIANCE}
    return moments_of(site)


def role_of(write: Write, roles: dict[int, Role]) -> Role | None:
    """Which statistic a write updates: the variance where any moment of the variance enters, else the mean."""
    entering = {roles[e] for e in write.operand.moments if e in roles}
    if not entering:
        return None
    return Role.VARIANCE if Role.VARIANCE in entering else Role.MEAN


def decay_of(
    graph: FlatGraph,
    contexts: Contexts,
    write: Write,
    assume: dict[int, bool],
    *,
    in_the_end: bool = True,
    fixed: dict[int, float] | None = None,
) -> float | None:
    """The decay of an update: by how much its new value grows with the variable, the batch moments at 0.

    `fixed` has variables that nothing writes, such as a decay, with their values.
    Of a decay that rises to a limit (`num_updates`, a schedule) that limit, or None if not `in_the_end`.
    A fused op with `exponential_avg_factor` f gives moments that hold (1 - f) of the stored value already.
    """
    known = {edge(variable): value for variable, value in (fixed or {}).items()}
    leaves = [known | _leaves(graph, write, old) for old in (0.0, 1.0)]
    at_zero, at_one = evaluate(graph, write.value, leaves, contexts, assume, in_the_end=in_the_end, batch=0.0)
    if at_one is None:
        return None
    sign = _SIGN.get(graph.ops[write.node])
    slope = at_one - (at_zero or 0.0)
    decay = slope if sign is None else 1.0 + sign * slope
    return round(decay, 6)


def _leaves(graph: FlatGraph, write: Write, old: float) -> dict[int, float]:
    """Edge -> its number, where the variable holds `old` and the batch moments are 0."""
    leaves = {edge(write.variable): old}
    leaves |= {edge(part): old for part, whole in graph.whole.items() if whole == write.variable}
    if write.averages is not None:
        leaves[edge(write.averages)] = 0.0
    for e in write.operand.moments:
        if is_shifted_by(graph, e, write.variable):
            continue
        leaves[e] = 0.0
        if graph.ops[node_of(e)] in FUSED:
            factor = graph.attr(node_of(e), "exponential_avg_factor")
            training = graph.attr(node_of(e), "is_training")
            if training is not None and not training.b:
                leaves[e] = old
            elif factor is not None and factor.f not in (0.0, 1.0):
                leaves[e] = (1.0 - factor.f) * old
    return leaves
