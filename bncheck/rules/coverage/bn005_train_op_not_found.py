"""BN005 train-op-not-found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, Purpose
from bncheck.facts.training import is_training_graph
from bncheck.facts.wording import many
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, graph_facts, served, serving, unwired, wired, with_graph


@rule("BN005", "train-op-not-found", severity=Severity.WARNING, needs=Needs.NOTHING)
def check(model: Facts) -> Iterator[Evidence]:
    """The graph trains, but its train op was not found, so the wiring was not judged.

    What it detects
    ---------------
    A graph with an optimizer in which no train op was found, or in which `--train-op` named none.

    Why it matters
    --------------
    Whether updates are wired (BN201, BN202) depends on the train op: without it, what a training step runs is unknown.
    Wiring is the most frequent fault, so this must not pass in silence.

    How it decides
    --------------
    The train op is the op that `--train-op` names; else the `train_op` collection; else the ops at the end of what
    depends on the optimizer's `Apply*` ops. No finding for a graph without an optimizer: it trains nothing.

    Not detected
    ------------
    Optimizers written by hand with plain assigns of something that is no gradient: such a graph looks like inference.

    Fix
    ---
    Name it, or leave it in the graph for readers of the MetaGraph:

        bncheck inspect checkpoint model.ckpt-300 --train-op train/Adam
        # TF-slim: slim.learning.create_train_op does it by itself
        tf.add_to_collection("train_op", train_op)
        # tf.layers, tf.keras in a TF1 graph
        train_op = optimizer.minimize(loss, global_step, name="train")

    Keras `fit` has no train op: inspect the `.keras` file or SavedModel instead.

    References
    ----------
    P3 (finding the train op). tensorflow#7469 shows how users differ in making one. Failure modes A01, A02.
    """
    graph = model.graph
    if graph is None or not is_training_graph(model) or graph.train_ops:
        return
    count = sum(len(layer.updates) for layer in model.layers)
    gap = next((gap for gap in model.gaps if gap.kind is GapKind.TRAIN_OP), None)
    what = f"the wiring of {many(count, 'update op')} was not judged" if count else "what it runs was not judged"
    yield Evidence(
        layers=(),
        message=f"The graph trains {many(len(graph.optimized), 'variable')}, but no train op was found: {what}.",
        location=graph.path,
        fix=gap.how if gap is not None else "",
        measurements=(
            Measurement(name="train ops", value=0, limit=1, unit="ops"),
            Measurement(name="update ops", value=count, unit="ops"),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """A train op; a serving graph; a predict graph with leftover updates, which trains nothing; no graph at all."""
    predict = replace(unwired(batch_norm("bn")), trained_by=(), sites=())
    note = Gap(kind=GapKind.TRAIN_OP, where="model.meta", why="the graph holds updates but no optimizer")
    return (
        with_graph(wired(batch_norm("bn"))),
        serving(served(batch_norm("bn"))),
        facts(predict, graph=graph_facts(predict), gaps=(note,)),
        facts(batch_norm("bn")),
    )


def broken() -> tuple[Facts, ...]:
    """An optimizer that nothing runs, or that `--train-op` missed."""
    layer = unwired(batch_norm("bn"))
    gap = Gap(kind=GapKind.TRAIN_OP, where="model.meta", why="no op of that name", how="--train-op train/Adam")
    graph = graph_facts(layer, train_ops=(), purpose=Purpose.TRAINING)
    return (facts(layer, graph=graph), facts(layer, graph=graph, gaps=(gap,)))
