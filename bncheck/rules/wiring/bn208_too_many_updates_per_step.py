"""BN208 too-many-updates-per-step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Role, Update
from bncheck.facts.record import Record
from bncheck.facts.wording import quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.wiring_fix import one_application
from bncheck.testing import batch_norm, switch, update, wired, with_graph

MUCH, SOME = 2.0, 1.0
"""N (1 - decay): from 2 on the average diverges, from 1 on it overshoots (FAILURE_MODES, P8)."""
MANY = 10
"""So many updates of unknown decay are worth a word: with 0.9 they make 1; a guess."""


class _Load(Record):
    """How often one train op updates one variable in a step."""

    layer: Layer
    train_op: str
    count: int
    step: float | None
    """N (1 - decay); None where a decay is unknown."""
    resource: bool


@rule(
    "BN208",
    "too-many-updates-per-step",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    meaning=Meaning.VALUES_FAULT,
    sees="B10 B11",
    sees_too="B03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """One training step updates the same statistic so often that the average overshoots.

    What it detects
    ---------------
    Layers applied N times in one step (siamese and triplet networks, time steps, towers), with N update ops on one
    variable that the train op runs together.

    Why it matters
    --------------
    On resource variables all N read the old value before any writes, then each subtracts: `v -= N (1 - decay)(v -
    batch)`. Beyond N (1 - decay) = 1 it overshoots, beyond 2 it diverges: 30 updates at decay 0.9 gave a moving
    variance of -5.7e9, which is NaN in inference.

    How it decides
    --------------
    Per variable and train op, the updates that can run in one step: those on opposite sides of one condition count
    once. Sum of (1 - decay) of at least 2: ERROR, at least 1: WARNING. Reference variables are a race, in which the
    order of writes decides and the value stays finite: WARNING. Decay unknown: WARNING from 10 updates on. A few
    towers on one variable are common practice and silent: 2 updates at 0.999 make 0.002.

    Not detected
    ------------
    Updates inside a loop body (BN215); several sessions that update one variable.

    Fix
    ---
    One update a step: run one application's updates, or apply the layer once, to the joined batch:

        {UPDATE_ONCE}

    or raise the decay until N (1 - decay) is well below 1.

    References
    ----------
    tensorflow#14353, keras#8794, keras#11927, keras#9646, tensorflow#21726. Failure modes B11, B10; P8.
    """
    loads = [load for layer in model.layers for load in _loads(layer)]
    errors = [load for load in loads if load.resource and load.step is not None and load.step >= MUCH]
    warnings = [load for load in loads if load not in errors and _suspicious(load)]
    if errors:
        yield _evidence(model, errors, Severity.ERROR)
    if warnings:
        yield _evidence(model, warnings, Severity.WARNING)


def _loads(layer: Layer) -> list[_Load]:
    """The heaviest load of each layer: over its two statistics and the train ops that update them."""
    found: list[_Load] = []
    for role in Role:
        written = dict.fromkeys((op, u.row) for u in layer.updates for op in u.train_ops)
        for op, row in written:
            together = _together([u for u in layer.updates if u.role is role and u.row == row and op in u.train_ops])
            if len(together) > 1:
                decays = [u.decay for u in together if u.decay is not None]
                step = round(sum(1 - decay for decay in decays), 9) if len(decays) == len(together) else None
                resource = all(u.resource for u in together)
                found.append(_Load(layer=layer, train_op=op, count=len(together), step=step, resource=resource))
    return [max(found, key=lambda load: (load.step or 0.0, load.count))] if found else []


def _together(updates: Sequence[Update]) -> list[Update]:
    """Updates that can run in one step: of two sides of one condition the fuller one."""
    free = [u for u in updates if u.branch is None]
    sides: dict[str, dict[bool | None, list[Update]]] = {}
    for u in updates:
        if u.branch is not None:
            sides.setdefault(u.branch.predicate, {}).setdefault(u.branch.train_when, []).append(u)
    return free + [u for branches in sides.values() for u in max(branches.values(), key=len)]


def _suspicious(load: _Load) -> bool:
    return load.count >= MANY if load.step is None else load.step >= SOME


def _evidence(model: Facts, loads: Sequence[_Load], severity: Severity) -> Evidence:
    worst = max(loads, key=lambda load: (load.step or 0.0, load.count))
    if worst.step is None:
        effect = "decay unknown"
    elif worst.resource:
        effect = f"N (1 - decay) = {worst.step:.3g}, " + (
            "over 2: it diverges" if worst.step >= MUCH else "it overshoots"
        )
    else:
        effect = f"N (1 - decay) = {worst.step:.3g} on reference variables: a race, so results vary from run to run"
    found = [Measurement(name="updates of one variable in a step", value=worst.count, limit=1, unit="ops")]
    if worst.step is not None:
        found.append(Measurement(name="N (1 - decay)", value=worst.step, limit=MUCH if worst.step >= MUCH else SOME))
    return Evidence(
        layers=tuple(load.layer.name for load in loads),
        message=f"{quoted(load.train_op for load in loads)} updates each statistic up to {worst.count} times per "
        f"step ({effect}).",
        severity=severity,
        confidence=Confidence.HIGH if severity is Severity.ERROR else Confidence.MEDIUM,
        location=worst.layer.mean.name,
        fix=fixes.training_code(one_application(model, [load.layer for load in loads])),
        measurements=tuple(found),
    )


def clean() -> tuple[Facts, ...]:
    """One update; two towers at 0.999; eight at 0.99; the two sides of one condition; many that no train op runs."""
    branches = tuple(
        update("bn", role, name=f"cond/Assign_{side}", train_ops=("Adam",), decay=0.5, branch=switch(train_when=side))
        for side in (True, False)
        for role in (Role.MEAN, Role.VARIANCE)
    )
    return (
        with_graph(wired(batch_norm("bn"))),
        with_graph(applied(2, decay=0.999)),
        with_graph(applied(8, decay=0.99)),
        with_graph(replace(wired(batch_norm("bn")), updates=branches)),
        with_graph(applied(30, decay=0.9, train_ops=())),
    )


def broken() -> tuple[Facts, ...]:
    """30 time steps at 0.9; 15; 30 on reference variables; 12 of unknown decay."""
    return (
        with_graph(applied(30, decay=0.9)),
        with_graph(applied(15, decay=0.9)),
        with_graph(applied(30, decay=0.9, resource=False)),
        with_graph(applied(12, decay=None)),
    )


def applied(times: int, **facts_of_updates: Any) -> Layer:
    """A layer applied so many times in one step, each time with updates of its own."""
    known: dict[str, Any] = {"train_ops": ("Adam",), **facts_of_updates}
    again = (
        update("bn", role, **({"name": f"bn_{number}/Update_{role.value}"} | known))
        for number in range(times)
        for role in (Role.MEAN, Role.VARIANCE)
    )
    return replace(wired(batch_norm("bn")), updates=tuple(again))
