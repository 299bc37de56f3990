"""BN201 update-not-wired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Role, RunFacts
from bncheck.facts.training import moved, run_by_training, still, to_be_wired, trainers
from bncheck.facts.wording import many, quoted
from bncheck.numerics.agreement import HARM, SIGMAS, agreement
from bncheck.numerics.init_share import decay_of, share_bound
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.fixes import repaired, training_part
from bncheck.rules.shared.frameworks import Framework, made_with
from bncheck.rules.shared.wiring_fix import collection_of, waiting, wire
from bncheck.testing import batch_norm, facts, graph_facts, unread, untouched, unwired, wired, with_graph

_BY_HAND = (
    " Yet the statistics of every layer have moved: the script runs the updates by hand (session.run(update_ops)), or "
    "another run's statistics were restored."
)
LITTLE = 0.05
"""Init share up to which the values show that updates were run throughout; a guess. As BN103's warning."""
_KEPT_UP = " Yet the statistics fit the weights: the script runs it in a call of its own."
_AFTER_EACH_STEP = "None needed if that call follows every training step. Otherwise let the train op run them:"


@rule(
    "BN201",
    "update-not-wired",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    explained_by=("BN215",),
    meaning=Meaning.WIRING_FAULT | Meaning.FITS_NO_DATA | Meaning.STATISTICS_STAY,
    sees="A01 A02 A03 A04 A05 A06 A08 A18 B04",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Training runs no update: nothing the train op depends on writes a moving mean or variance.

    What it detects
    ---------------
    A training graph in which update ops exist and no train op reaches any of them, through data or control inputs.

    Why it matters
    --------------
    Training normalises with batch statistics and looks healthy. With is_training=False, and once folded for
    quantization, each layer normalises with its initial mean 0 and variance 1, which fit no data. A quantized copy
    agrees with that to the last digit, so comparing the two shows nothing.

    How it decides
    --------------
    For each layer whose gamma or beta a train op optimises (or, without either, that a train op depends on) and that
    trains on batch statistics: is one of its updates an ancestor of a train op? None in any layer: this rule; some:
    BN202. ERROR where the statistics never moved or are not given. WARNING where they all moved: then the script runs
    the updates by hand (`session.run(update_ops)`), or they were restored from another run. A note where one op waits
    for all updates, only one restore could have brought the statistics, and they show that this op was run
    throughout: some variance is so small that at most 5 % of initial value is left in all, or moving means follow
    from the weights before the layer (BN119). The cause is told apart by which collection lists the updates and by
    which ops outside the train op wait for them.

    Measured, on MobileNetV2 and digits: 90.9 % accuracy with batch statistics, 10.3 % with the stored ones.

    Not detected
    ------------
    Updates run by hand, unless a checkpoint shows that the statistics moved. A train op other than those found
    (`--train-op`). Graphs that train nothing are silent here; see BN206.

    Fix
    ---
    TF-slim, tf.layers: collect the updates after the whole model is built, create the train op under them:

        {WIRE_UPDATES}
        # or let TF-slim do it
        train_op = slim.learning.create_train_op(loss, optimizer)

    A block around a train op that exists already, around the optimizer's constructor, or around `tf.identity(loss)`
    does nothing. Keras in a TF1 graph keeps its updates to itself: depend on `model.get_updates_for(images)`.
    This checkpoint, without retraining: `bncheck repair PATH -o OUT --data images/`.

    References
    ----------
    tensorflow#11965, tensorflow#7469, tensorflow#9179, tensorflow#19643, tensorflow/models#1487, ageron/handson-ml#56.
    Failure modes A01 to A08, A18, B04; P1, P2.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    layers = to_be_wired(model)
    if not layers or any(map(run_by_training, layers)):
        return
    count = sum(len(layer.updates) for layer in layers)
    ops = list(dict.fromkeys(op for layer in layers for op in trainers(layer)))
    values = moved(layers)
    groups = waiting(layers)
    by_hand = bool(values) and _run_by_hand(model, layers, groups) and _kept_up(layers)
    fix = fixes.training_code_and_repair(model, wire(model, layers))
    yield Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{'The train ops' if len(ops) > 1 else 'The train op'} {quoted(ops)} "
        f"{'run' if len(ops) > 1 else 'runs'} "
        f"{'none of the ' + many(count, 'update op') if count > 1 else 'no update op'}. "
        f"{_cause(model, layers, groups)}{_KEPT_UP if by_hand else _moved_by(model) if values else ''}",
        severity=Severity.INFO if repaired(model) or by_hand else Severity.WARNING if values else Severity.ERROR,
        confidence=Confidence.MEDIUM if values or (values is None and groups) else Confidence.HIGH,
        location=ops[0],
        fix=f"{_AFTER_EACH_STEP}\n{training_part(fix)}" if by_hand else training_part(fix) if repaired(model) else fix,
        measurements=(
            Measurement(name="update ops run by a train op", value=0, limit=count, unit="ops"),
            Measurement(name="update ops", value=count, unit="ops"),
            Measurement(name="update ops in UPDATE_OPS", value=_collected(layers), unit="ops"),
            Measurement(name="layers whose statistics never moved", value=still(layers), unit="layers"),
        ),
    )


def _moved_by(model: Facts) -> str:
    told = repaired(model)
    return f" Yet the statistics of every layer have moved: they were {told}." if told else _BY_HAND


def _run_by_hand(model: Facts, layers: Sequence[Layer], groups: Sequence[str]) -> bool:
    """Whether one op was made to run all updates, and no restore but the Saver's own can have brought the values."""
    restores = model.graph.restores if model.graph is not None else ()
    filled = [r for r in restores if any(v.name in r.variables for layer in layers for v in layer.statistics)]
    together = [set(update.waited_for_by) for layer in layers for update in layer.updates]
    return len(filled) <= 1 and bool(set(groups).intersection(*together))


def _kept_up(layers: Sequence[Layer]) -> bool:
    """Whether the values show that one op which runs all updates did so throughout: little of the initial values is
    left in one layer, so in all, or the means of one layer are those of its weights.
    """
    decays = {decay_of(layer, role) for layer in layers for role in Role}
    bound = share_bound(layers) if len(decays) == 1 else None
    fits = (found for layer in layers if (found := agreement(layer)) is not None)
    return (bound is not None and bound <= LITTLE) or any(fit.sigmas < -SIGMAS and fit.error <= HARM for fit in fits)


def _collected(layers: Sequence[Layer]) -> int:
    return sum(update.in_collection for layer in layers for update in layer.updates)


def _cause(model: Facts, layers: Sequence[Layer], groups: Sequence[str]) -> str:
    if groups:
        which = f"{quoted(groups)} {'waits' if len(groups) == 1 else 'wait'} for them instead"
        return f"{which}, but gradients do not depend on it, so training never runs it."
    collected = _collected(layers)
    if collected:
        return (
            f"UPDATE_OPS holds {collected} of them, but it was read before the layers were built, read without "
            "creating the train op under it, or never read."
        )
    own = collection_of(layers)
    if own:
        holds = "which is empty" if not (model.graph and model.graph.update_collection) else "which holds none of them"
        return f"They are in the collection `{own}`; a script that reads UPDATE_OPS, {holds}, misses them all."
    if made_with(model, layers) is Framework.KERAS:
        return "UPDATE_OPS is empty: in a TF1 graph, Keras layers do not add their updates to it."
    return "No collection holds them and no op waits for them."


def clean() -> tuple[Facts, ...]:
    """Wired; one of two train ops (BN202's); a frozen layer; fine-tuned in eval mode; nothing trains; no graph."""
    frozen = replace(unwired(batch_norm("frozen")), trained_by=())
    predict = replace(frozen, sites=())
    return (
        with_graph(wired(batch_norm("a")), wired(batch_norm("b"))),
        with_graph(wired(batch_norm("d"), "d_adam"), unwired(batch_norm("g"), "g_adam")),
        with_graph(wired(batch_norm("head")), frozen),
        with_graph(unwired(batch_norm("bn"), mode=Mode.EVAL)),
        with_graph(predict),
        facts(batch_norm("bn")),
    )


def broken() -> tuple[Facts, ...]:
    """Forgotten; hung on the loss; Keras in a TF1 graph; a collection of its own; the graph alone; run by hand."""
    names = ("conv1/bn", "conv2/bn")
    alone = tuple(unread(unwired(batch_norm(name))) for name in names)
    return (
        with_graph(*(unwired(untouched(name)) for name in names)),
        with_graph(*(unwired(untouched(name), waited_for_by=("loss_with_updates",)) for name in names)),
        with_graph(*(unwired(untouched(name), in_collection=False) for name in names)),
        with_graph(
            *(unwired(untouched(name), in_collection=False, collections=("my_updates",)) for name in names),
        ),
        facts(*alone, graph=graph_facts(*alone), run=RunFacts()),
        with_graph(*(unwired(batch_norm(name)) for name in names)),
        with_graph(*(unwired(batch_norm(name), waited_for_by=("update_averages",)) for name in names)),
        with_graph(*(unwired(batch_norm(name, variance=0.04), waited_for_by=("update_averages",)) for name in names)),
    )
