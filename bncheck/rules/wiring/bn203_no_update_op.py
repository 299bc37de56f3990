"""BN203 no-update-op."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.copies import Copied
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Presence
from bncheck.facts.training import roles, together, trainers, training_sites
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.wiring_fix import copy_statistics, train_mode, write_updates
from bncheck.testing import batch_norm, untouched, unwired, updates, wired, with_graph

_MOVED = " Yet they have moved: restored from another run, or written in a way bncheck cannot trace."


@rule(
    "BN203",
    "no-update-op",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT | Meaning.FITS_NO_DATA | Meaning.STATISTICS_STAY,
    sees="A16 A19",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A layer trains on batch statistics and has moving statistics, but the graph has no op to update them.

    What it detects
    ---------------
    Statistics that something stores or reads and nothing ever writes: an `ExponentialMovingAverage` whose `apply` was
    never called, a hand-written layer whose update was left out, a mean without a variance; and copies of a network
    that get its weights, gamma and beta but not its statistics: target networks, averages of weights (EMA, SWA).

    Why it matters
    --------------
    Without an update there is nothing to wire. Evaluation reads the initial values forever: mean 0, and variance 1, or
    0 if an `ExponentialMovingAverage` of a tensor started it, which ends in NaN or huge outputs.

    How it decides
    --------------
    In a training graph, for layers that a train op trains through a site in train or switched mode: no op assigns the
    moving mean or variance from batch moments. ERROR where the values never moved or are not given, WARNING of low
    confidence where they moved: then they were restored, or are written in a way that bncheck does not follow.
    A copy: assignments write another layer's gamma or beta to this one's, a site reads its statistics, nothing writes
    these. Weighed in the same way.

    Not detected
    ------------
    Updates computed outside the graph (fed through a placeholder) are no updates to this rule.

    Fix
    ---
    Use a layer that brings its updates along, and run them with the train op:

        {CHOSEN_MODE}

    By hand:

        average = tf.train.ExponentialMovingAverage(0.99)
        # this is what creates the update
        update = average.apply([mean, variance])
        with tf.control_dependencies([update]):
            train_op = optimizer.minimize(loss, global_step)

    References
    ----------
    pkmital/tensorflow_tutorials#8, tensorflow#2825. Failure modes A16, A19.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    yield from _copies(model)
    layers = [layer for layer in model.layers if _lacking(layer) and not _optimized(model, layer)]
    if not layers:
        return
    values = together([v.moved for layer in layers for v in layer.statistics if v.role.value in _lacking(layer)])
    lacking = " and ".join(role for role in ("mean", "variance") if any(role in _lacking(layer) for layer in layers))
    yield Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"No op in the graph updates the moving {lacking} of {many(len(layers), 'layer')} trained on batch "
        f"statistics by {quoted(op for layer in layers for op in trainers(layer))}: "
        f"{quoted(layer.name for layer in layers)}.{_MOVED if values else ''}",
        severity=Severity.WARNING if values else Severity.ERROR,
        confidence=Confidence.LOW if values else Confidence.MEDIUM if values is None else Confidence.HIGH,
        location=layers[0].mean.name,
        fix=fixes.training_code_and_repair(model, write_updates(model, layers) or train_mode(model, layers)),
        measurements=(Measurement(name="layers without an update", value=len(layers), limit=0, unit="layers"),),
    )


def _copies(model: Facts) -> Iterator[Evidence]:
    """Layers that get gamma and beta from a trained one, and not its statistics."""
    layers = [layer for layer in model.layers if _half_copied(layer)]
    values = together([vector.moved for layer in layers for vector in layer.statistics])
    for averaged in (False, True):
        of_kind = [layer for layer in layers if layer.copied is not None and layer.copied.averaged is averaged]
        if not of_kind:
            continue
        kind = "averages of weights (a soft target update, EMA, SWA)" if averaged else "copies, as of a target network"
        written = "averaged from" if averaged else "copied from"
        sources = quoted(layer.copied.source for layer in of_kind if layer.copied is not None)
        code = copy_statistics(model, of_kind)
        are = "is" if len(of_kind) == 1 else "are"
        yield Evidence(
            layers=tuple(layer.name for layer in of_kind),
            message=f"Gamma and beta of {many(len(of_kind), 'layer')} {are} {written} {sources}, their moving mean and "
            f"variance are not, and nothing else writes these: {kind}, of the trainable variables alone"
            f"{'; they stand at their initial values' if values is False else ''}.{_MOVED if values else ''}",
            severity=Severity.WARNING if values else Severity.ERROR,
            confidence=Confidence.LOW if values else Confidence.MEDIUM if values is None else Confidence.HIGH,
            location=of_kind[0].mean.name,
            fix=fixes.training_code_and_repair(model, code, note="with every copy of the weights"),
            includes=("BN101", "BN102"),
            measurements=(Measurement(name="copies without statistics", value=len(of_kind), limit=0, unit="layers"),),
        )


def _half_copied(layer: Layer) -> bool:
    """Whether a layer is a copy that reads statistics which nothing writes."""
    if layer.copied is None or layer.copied.statistics or layer.updates or layer.affine_moved is False:
        return False
    stored = all(vector.presence is not Presence.ABSENT for vector in layer.statistics)
    return stored and any(site.mode in (Mode.EVAL, Mode.SWITCHED) for site in layer.sites)


def _lacking(layer: Layer) -> tuple[str, ...]:
    """Statistics that the layer has, that training on batches ought to update, and that nothing writes."""
    if not any(site.mode in (Mode.TRAIN, Mode.SWITCHED) for site in training_sites(layer)):
        return ()
    written = {role.value for role in roles(layer.updates)}
    return tuple(
        vector.role.value
        for vector in layer.statistics
        if vector.presence is not Presence.ABSENT and vector.role.value not in written
    )


def _optimized(model: Facts, layer: Layer) -> bool:
    """Whether an optimizer writes the statistics: another fault (BN210)."""
    return model.graph is not None and any(vector.name in model.graph.optimized for vector in layer.statistics)


def clean() -> tuple[Facts, ...]:
    """Updates, wired or not; none because the layer is fine-tuned in eval mode, frozen, without statistics, a copy."""
    whole = replace(unwired(batch_norm("target"), mode=Mode.EVAL), trained_by=(), updates=())
    return (
        with_graph(wired(batch_norm("bn"))),
        with_graph(unwired(batch_norm("bn"))),
        with_graph(replace(unwired(batch_norm("bn"), mode=Mode.EVAL), updates=())),
        with_graph(wired(batch_norm("head")), replace(unwired(batch_norm("frozen")), trained_by=(), updates=())),
        with_graph(replace(unwired(batch_norm("bn", mean=None, variance=None)), updates=())),
        with_graph(wired(batch_norm("online")), replace(whole, copied=_copy_of("online", statistics=True))),
    )


def broken() -> tuple[Facts, ...]:
    """An average never applied (starts at 0); a switched layer; a mean without a variance; it moved; half copies."""
    copy = replace(unwired(untouched("target"), mode=Mode.EVAL), trained_by=(), updates=())
    never = batch_norm("ema", mean=0.0, variance=0.0)
    never = replace(never, variance=replace(never.variance, initial=0.0))
    return (
        with_graph(replace(unwired(never), updates=())),
        with_graph(replace(unwired(untouched("bn"), mode=Mode.SWITCHED), updates=())),
        with_graph(replace(unwired(batch_norm("bn", variance=1.0)), updates=updates("bn", train_ops=("Adam",))[:1])),
        with_graph(replace(unwired(batch_norm("bn")), updates=())),
        with_graph(wired(batch_norm("online")), replace(copy, copied=_copy_of("online"))),
        with_graph(wired(batch_norm("online")), replace(copy, copied=_copy_of("online", averaged=True))),
    )


def _copy_of(source: str, *, averaged: bool = False, statistics: bool = False) -> Copied:
    return Copied(source=source, averaged=averaged, statistics=statistics)
