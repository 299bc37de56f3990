"""BN214 update-reachable-from-output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Update
from bncheck.facts.training import is_conditional, served_outputs
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, served, serving, switch, updates, wired, with_graph


@rule(
    "BN214",
    "update-reachable-from-output",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    explained_by=("BN205",),
    sees="F05",
    sees_too="B08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Serving a prediction writes the moving statistics.

    What it detects
    ---------------
    Serving outputs whose computation runs an update op: in-place updates (`updates_collections=None`) in a graph that
    was exported from training, or Keras layers served with `training=True`.

    Why it matters
    --------------
    Inference changes the model: each request moves the statistics, outputs depend on earlier requests, and two replicas
    drift apart. Frozen into constants, the graph does not even load ("float incompatible with float_ref").

    How it decides
    --------------
    An update is an ancestor of a serving output. ERROR if it runs unconditionally; WARNING if a condition guards it,
    or a switch makes it write what was there: nothing changes then, but converters refuse the op.
    Outputs of signatures named `train...` update on purpose.

    Not detected
    ------------
    MetaGraphs and graphs without signatures that are not frozen: nothing says what would be served.

    Fix
    ---
    Export from a graph built for inference, which has no updates:

        {EVAL_MODE}

    References
    ----------
    tensorflow#3628, tensorflow#31524, tensorflow-onnx#77, alibaba/graph-learn#141. Failure modes F05, B08; P1.
    """
    if model.graph is None or not model.graph.serving:
        return
    free = [layer for layer in model.layers if any(not is_conditional(u) for u in _reached(layer))]
    guarded = [layer for layer in model.layers if layer not in free and _reached(layer)]
    if free:
        yield _evidence(model, free, Severity.ERROR, "each prediction changes the statistics")
    if guarded:
        yield _evidence(model, guarded, Severity.WARNING, "a condition guards them, but converters reject such a graph")


def _reached(layer: Layer) -> list[Update]:
    return [update for update in layer.updates if served_outputs(update.outputs)]


def _evidence(model: Facts, layers: Sequence[Layer], severity: Severity, effect: str) -> Evidence:
    found = [update for layer in layers for update in _reached(layer)]
    outputs = quoted(out for update in found for out in served_outputs(update.outputs))
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"Computing {outputs} runs {many(len(found), 'update op')} of {many(len(layers), 'layer')}: {effect}.",
        severity=severity,
        confidence=Confidence.HIGH,
        location=found[0].name,
        fix=fixes.training_code(in_framework(remedies.EVAL_MODE, made_with(model, layers)), note="for export"),
        measurements=(Measurement(name="update ops run by serving", value=len(found), limit=0, unit="ops"),),
    )


def clean() -> tuple[Facts, ...]:
    """Eval mode; updates that no output runs; a signature that trains on purpose; a training graph."""
    left = replace(served(batch_norm("bn")), updates=updates("bn"))
    on_device = replace(served(batch_norm("bn")), updates=updates("bn", outputs=("train/loss",)))
    return (
        serving(served(batch_norm("bn"))),
        serving(left),
        serving(on_device),
        with_graph(wired(batch_norm("bn"), in_collection=False)),
    )


def broken() -> tuple[Facts, ...]:
    """In place and unconditional; behind a switch; with a decay of 1 while off."""
    outputs = ("serving_default/logits",)
    bn = batch_norm("bn")
    return (
        serving(replace(served(bn, Mode.TRAIN), updates=updates("bn", outputs=outputs))),
        serving(replace(served(bn, Mode.SWITCHED), updates=updates("bn", outputs=outputs, branch=switch()))),
        serving(replace(served(bn, Mode.SWITCHED), updates=updates("bn", outputs=outputs, decay_when_off=1.0))),
    )
