"""BN215 update-in-dead-branch-or-loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Update
from bncheck.facts.training import moved
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import Framework, in_framework, made_with
from bncheck.rules.shared.layer_calls import with_switch
from bncheck.testing import batch_norm, switch, unread, untouched, unwired, wired, with_graph

IN_PLACE = """\
# TF-slim; tf.layers has no such form
net = slim.batch_norm(net, is_training=True, updates_collections=None)
# Keras: outside the loop
x = tf.keras.layers.BatchNormalization()(x, training=True)"""


@rule(
    "BN215",
    "update-in-dead-branch-or-loop",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT | Meaning.STATISTICS_STAY,
    sees="A14 A15",
)
def check(model: Facts) -> Iterator[Evidence]:
    """UPDATE_OPS lists an update inside a condition or a loop, where the train op cannot wait for it.

    What it detects
    ---------------
    Update ops that were put into the collection from within `tf.cond`, `tf.while_loop`, `dynamic_rnn` or `map_fn`.

    Why it matters
    --------------
    A train op that waits for an op in a branch not taken is dead itself: the step returns without an error, but nothing
    is trained, not even the step counter. An op inside a loop cannot be waited for from outside ("inputs from different
    frames"); leaving the updates out instead gives statistics that never move.

    How it decides
    --------------
    The collection lists an op that lives under a condition or in a loop. ERROR where the statistics never moved, or,
    for a loop, are not given; WARNING for a condition whose values are not given; INFO where they moved: the
    branch is then taken while training. In-place updates inside a loop (not collected) run at every iteration: a
    note, unless each writes the row of its own time step.

    Not detected
    ------------
    Branches that only the user's data decide.

    Fix
    ---
    Call the layer outside of the condition and pass that as its mode:

        {CHOSEN_MODE}

    In a loop update in place, so that the body itself runs the update:

        {IN_PLACE}

    References
    ----------
    tensorflow#14699, tensorflow#24795, tensorflow#6087, tensorflow#19568, cbfinn/maml#33. Failure modes A14, A15.
    """
    loops = [layer for layer in model.layers if any(u.collected_in_branch and u.in_loop for u in layer.updates)]
    in_loops = set(loops)
    branches = [x for x in model.layers if x not in in_loops and any(u.collected_in_branch for u in x.updates)]
    if loops:
        severity = Severity.WARNING if moved(loops) else Severity.ERROR
        text = "are inside a loop but listed in UPDATE_OPS: the train op cannot wait for them"
        yield _evidence(model, loops, _collected(loops), severity, text)
    if branches:
        values = moved(branches)
        severity = Severity.INFO if values else Severity.WARNING if values is None else Severity.ERROR
        text = "are inside a condition but listed in UPDATE_OPS: a train op that waits for them silently does"
        text += " nothing whenever the other branch is taken"
        yield _evidence(model, branches, _collected(branches), severity, text)
    inside = [x for x in model.layers if x not in in_loops and _repeated(x)]
    if inside:
        found = [u for layer in inside for u in _repeated(layer)]
        text = "run in every iteration of a loop, so a training step averages over more than one batch"
        yield _evidence(model, inside, found, Severity.INFO, text)


def _fix(model: Facts, layers: Sequence[Layer], found: Sequence[Update]) -> str:
    """In a loop the layer updates in place; a condition becomes its mode, and its updates are wired."""
    framework = made_with(model, layers)
    if any(update.in_loop for update in found):
        code = in_framework(IN_PLACE, Framework.KERAS if framework is Framework.KERAS else Framework.SLIM)
        return fixes.training_code(code, note="in the body of the loop")
    switch = next((update.branch for update in found if update.branch is not None), None)
    code = f"{with_switch(model, layers, switch)}\n{remedies.WIRE_UPDATES}"
    return fixes.training_code(code, note="outside the condition")


def _repeated(layer: Layer) -> list[Update]:
    """Updates that each turn of a loop runs on the same numbers, not on those of its own time step."""
    return [u for u in layer.updates if u.in_loop and u.train_ops and not u.by_row]


def _collected(layers: Sequence[Layer]) -> list[Update]:
    return [u for layer in layers for u in layer.updates if u.collected_in_branch]


def _evidence(
    model: Facts, layers: Sequence[Layer], found: Sequence[Update], severity: Severity, text: str
) -> Evidence:
    predicates = [u.branch.predicate for u in found if u.branch is not None]
    under = f" The condition is {quoted(predicates)}." if predicates else ""
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{many(len(found), 'update op')} of {many(len(layers), 'layer')} {text}.{under}",
        severity=severity,
        confidence=Confidence.MEDIUM if moved(layers) is None else Confidence.HIGH,
        location=found[0].name,
        fix=remedies.NOTHING if severity is Severity.INFO else _fix(model, layers, found),
        measurements=(Measurement(name="updates in a condition or loop", value=len(found), limit=0, unit="ops"),),
    )


def clean() -> tuple[Facts, ...]:
    """Outside of everything; under a condition, in place, not collected; in a loop, a row for each time step."""
    in_place = wired(batch_norm("bn"), in_collection=False, branch=switch())
    by_row = wired(batch_norm("bn"), op="ScatterUpdate", in_collection=False, in_loop=True)
    return (with_graph(wired(batch_norm("bn"))), with_graph(in_place), with_graph(by_row))


def broken() -> tuple[Facts, ...]:
    """Collected inside a condition, never moved and unread; inside a loop; moved all the same; in place in a loop."""
    inside: dict[str, Any] = {"branch": switch("use_aux"), "collected_in_branch": True}
    unlisted = wired(batch_norm("bn"), in_collection=False, in_loop=True)
    return (
        with_graph(wired(untouched("bn"), **inside)),
        with_graph(unread(wired(batch_norm("bn"), **inside))),
        with_graph(unwired(untouched("bn"), in_loop=True, collected_in_branch=True)),
        with_graph(wired(batch_norm("bn"), **inside)),
        with_graph(unlisted),
    )
