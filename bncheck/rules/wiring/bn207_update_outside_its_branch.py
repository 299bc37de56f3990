"""BN207 update-outside-its-branch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Update
from bncheck.facts.training import is_conditional
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes, own_code
from bncheck.rules.shared.frameworks import Framework, made_with
from bncheck.rules.shared.layer_calls import with_switch
from bncheck.rules.shared.wiring_fix import decay_to_write
from bncheck.testing import batch_norm, switch, wired, with_graph

INSIDE = """\
# create the update inside the branch function
def train():
    update = moving_mean.assign_sub((moving_mean - mean) * (1 - decay))
    with tf.control_dependencies([update]):
        return tf.identity(mean), tf.identity(variance)
mean, variance = tf.cond(is_training, train, lambda: (moving_mean, moving_variance))"""


@rule(
    "BN207",
    "update-outside-its-branch",
    severity=Severity.WARNING,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT,
    sees="B01",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The mode is switched but the update is not: it also runs in evaluation.

    What it detects
    ---------------
    Updates that run unconditionally although their site switches between batch and stored statistics: ops created
    outside `tf.cond` run whichever branch is taken, even if only the branch refers to them.

    Why it matters
    --------------
    Every evaluation moves the statistics towards the evaluation data, so results depend on how often and on what the
    model was evaluated, and test data leak into the model.

    How it decides
    --------------
    The update has no condition, its decay is not 1 while the switch says eval (tf.layers and Keras write the old value
    back then, which is harmless), and computing the site runs it. Where the last cannot be told, an update that is not
    in `UPDATE_OPS` is a note: if only the train op runs it, all is well.

    Not detected
    ------------
    Updates in `UPDATE_OPS`: only the train op runs these, as long as it is never fed the eval mode.

    Fix
    ---
    TF1 by hand: create the update *inside* the function that `tf.cond` calls:

        {INSIDE}

    Or take a layer that does it right:

        {CHOSEN_MODE}

    References
    ----------
    tensorflow#2062, tensorflow#1724, pkmital/tensorflow_tutorials#25. Failure mode B01.
    """
    certain = [layer for layer in model.layers if any(u.runs_with_site for u in _loose(layer))]
    sure = set(certain)
    possible = [
        layer
        for layer in model.layers
        if layer not in sure and any(u.runs_with_site is None and not u.in_collection for u in _loose(layer))
    ]
    if certain:
        yield _evidence(model, certain, Severity.WARNING, Confidence.HIGH, "so evaluation runs them too")
    if possible:
        yield _evidence(model, possible, Severity.INFO, Confidence.LOW, "so evaluation may run them too")


def _loose(layer: Layer) -> list[Update]:
    """Updates without condition of a layer that is applied in switched mode, never in train mode alone."""
    modes = {site.mode for site in layer.sites}
    if Mode.SWITCHED not in modes or Mode.TRAIN in modes:
        return []
    return [update for update in layer.updates if not is_conditional(update)]


def _evidence(model: Facts, layers: list[Layer], severity: Severity, confidence: Confidence, reading: str) -> Evidence:
    updates = [update for layer in layers for update in _loose(layer)]
    predicates = [s.switch.predicate for layer in layers for s in layer.sites if s.switch is not None]
    verb = "runs" if len(updates) == 1 else "run"
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{quoted(predicates, 2)} switches {many(len(layers), 'layer')} between batch and stored "
        f"statistics, but {many(len(updates), 'update op')} {verb} on both sides, {reading}.",
        severity=severity,
        confidence=confidence,
        location=updates[0].name,
        fix=fixes.training_code(_fix(model, layers)),
        measurements=(Measurement(name="updates without condition", value=len(updates), limit=0, unit="ops"),),
    )


def _fix(model: Facts, layers: list[Layer]) -> str:
    """The condition with its updates, by the names of the first layer; in a framework, its layer."""
    switched = ((layer, site, site.switch) for layer in layers for site in layer.sites if site.switch is not None)
    layer, site, switch = next(switched, (layers[0], None, None))
    if made_with(model, layers) is not Framework.OWN:
        return with_switch(model, layers, switch)
    if site is None or switch is None:
        return INSIDE
    return own_code.inside_branch(layer, site, switch, decay_to_write(model, layers)) or INSIDE


def clean() -> tuple[Facts, ...]:
    """Inside the branch; tf.layers' decay of 1 when off; collected, and run by the train op alone; no switch at all."""
    bn = batch_norm("bn")
    return (
        with_graph(wired(bn, mode=Mode.SWITCHED, in_collection=False, branch=switch())),
        with_graph(wired(bn, mode=Mode.SWITCHED, decay_when_off=1.0)),
        with_graph(wired(bn, mode=Mode.SWITCHED, decay_when_off=0.99, runs_with_site=False)),
        with_graph(wired(bn, in_collection=False, runs_with_site=True)),
    )


def broken() -> tuple[Facts, ...]:
    """An update that the site waits for on both sides; one of which that cannot be told (a note)."""
    loose = wired(batch_norm("bn"), mode=Mode.SWITCHED, in_collection=False, decay_when_off=0.99)
    certain = replace(loose, updates=tuple(replace(update, runs_with_site=True) for update in loose.updates))
    return (with_graph(certain), with_graph(loose))
