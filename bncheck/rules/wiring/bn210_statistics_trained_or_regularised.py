"""BN210 statistics-trained-or-regularised."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, GraphFacts, Layer, Mode, Presence
from bncheck.facts.training import training_sites
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.testing import batch_norm, unwired, wired, with_graph

_LISTED = 8
"""Variables that a remedy names one by one; more are told by how their names end."""
LEAVE_OUT = """\
weights = [v for v in tf.trainable_variables() if "moving_" not in v.name]
loss += 1e-4 * tf.add_n([tf.nn.l2_loss(v) for v in weights if "BatchNorm" not in v.name])
train_op = optimizer.minimize(loss, global_step, var_list=weights)"""


@rule(
    "BN210",
    "statistics-trained-or-regularised",
    severity=Severity.ERROR,
    needs=Needs.GRAPH,
    meaning=Meaning.WIRING_FAULT,
    sees="C16",
    sees_too="C17",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Moving statistics are treated as weights: an optimizer writes them, or weight decay shrinks them.

    What it detects
    ---------------
    A moving mean or variance that an optimizer op writes, on which an L2 loss stands, or that is listed in
    `trainable_variables`; and, as a note, L2 losses on gamma or beta.

    Why it matters
    --------------
    Statistics are measurements. Gradients can turn them into anything, even a negative variance; weight decay pulls
    both towards 0, and dividing by a root of nearly 0 blows up the output, in inference only. Many recipes choose
    weight decay on gamma, which shrinks channels to nothing; folding makes that visible.

    How it decides
    --------------
    Written by an optimizer: ERROR; WARNING if all training sites are switched and no L2 loss is there, for then the
    gradient is zero while training. An L2 loss alone, without an optimizer on it: WARNING, it only adds to the loss.
    Merely listed as trainable: INFO, some do it so that their Saver keeps them. L2 on gamma or beta: INFO.

    Not detected
    ------------
    Decoupled weight decay (AdamW) written as plain assigns; regularisers of another form than `tf.nn.l2_loss`.

    Fix
    ---
    TF-slim, tf.layers: keep them out of the list, and batch norm out of the decay:

        {LEAVE_OUT}

    By hand: `tf.get_variable("moving_mean", ..., trainable=False)`. Keras: `add_weight(..., trainable=False)`, and
    `optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "moving"])`.

    References
    ----------
    facenet#424 (listed on purpose), keras#6818, tensorflow#17438, tensorflow/models#2755. Failure modes C16, C17.
    """
    graph = model.graph
    if graph is None:
        return
    optimised = [layer for layer in model.layers if _statistics(layer, graph.optimized)]
    harmful = [layer for layer in optimised if not _zero_gradient(graph, layer)]
    zero = [layer for layer in optimised if _zero_gradient(graph, layer)]
    rest = [layer for layer in model.layers if not _statistics(layer, graph.optimized)]
    regularised = [layer for layer in rest if _statistics(layer, graph.regularised)]
    listed = [x for x in rest if _statistics(x, graph.trainable) and not _statistics(x, graph.regularised)]
    if harmful:
        text = "An optimizer trains the moving statistics of {}: they follow gradients instead of the data."
        yield _evidence(graph, harmful, Severity.ERROR, Confidence.HIGH, text)
    if zero:
        text = "An optimizer is given the moving statistics of {}, but a switch makes their gradient zero in training."
        yield _evidence(graph, zero, Severity.WARNING, Confidence.MEDIUM, text)
    if regularised:
        text = "The moving statistics of {} have an L2 loss; no optimizer writes them, so it only adds to the loss."
        yield _evidence(graph, regularised, Severity.WARNING, Confidence.HIGH, text)
    if listed:
        text = "The moving statistics of {} are listed as trainable, but no optimizer writes them."
        yield _evidence(graph, listed, Severity.INFO, Confidence.LOW, text)
    yield from _affine(graph, model)


def _statistics(layer: Layer, names: Collection[str]) -> list[str]:
    """Names of the layer's statistics among `names`."""
    present = [v.name for v in layer.statistics if v.presence is not Presence.ABSENT and v.name]
    return [name for name in present if name in names]


def _zero_gradient(graph: GraphFacts, layer: Layer) -> bool:
    """Whether no gradient reaches the statistics while the switch says train, nor any weight decay."""
    sites = training_sites(layer) or layer.sites
    switched = bool(sites) and all(site.mode is Mode.SWITCHED for site in sites)
    return switched and not _statistics(layer, graph.regularised)


def _evidence(
    graph: GraphFacts, layers: Sequence[Layer], severity: Severity, confidence: Confidence, text: str
) -> Evidence:
    treated = {*graph.optimized, *graph.regularised, *graph.trainable}
    vectors = [name for layer in layers for name in _statistics(layer, treated)]
    decayed, trained = (any(name in of for name in vectors) for of in (graph.regularised, graph.optimized))
    code = _left_out(vectors, decayed=decayed, trained=trained)
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{text.format(many(len(layers), 'layer'))} {quoted(vectors)}.",
        severity=severity,
        confidence=confidence,
        location=vectors[0],
        fix=remedies.NOTHING if severity is Severity.INFO else fixes.training_code(code),
        measurements=(
            Measurement(name="statistics treated as weights", value=len(vectors), limit=0, unit="variables"),
        ),
    )


def _left_out(names: Sequence[str], *, decayed: bool, trained: bool) -> str:
    """Code that keeps these variables, by name, from weight decay and from the optimizer, as far as each has them."""
    many_names = len(names) > _LISTED
    kept = sorted({f"/{name.rpartition('/')[2]}" for name in names}) if many_names else list(dict.fromkeys(names))
    listed = "".join(f'    "{name}",\n' for name in kept)
    test = "not v.op.name.endswith(left_out)" if many_names else "v.op.name not in left_out"
    lines = [f"left_out = (\n{listed})", f"weights = [v for v in tf.trainable_variables() if {test}]"]
    if decayed:
        lines += [
            "# in place of the present weight decay",
            "loss += 1e-4 * tf.add_n([tf.nn.l2_loss(v) for v in weights])",
        ]
    if trained:
        lines.append("train_op = optimizer.minimize(loss, global_step, var_list=weights)")
    return "\n".join(lines)


def _affine(graph: GraphFacts, model: Facts) -> Iterator[Evidence]:
    """C17: L2 losses on gamma or beta."""
    layers = [x for x in model.layers if any(v.name and v.name in graph.regularised for v in (x.gamma, x.beta))]
    if layers:
        decayed = [v.name for x in layers for v in (x.gamma, x.beta) if v.name in graph.regularised]
        yield Evidence(
            layers=tuple(layer.name for layer in layers),
            message=f"Weight decay (an L2 loss) applies to gamma or beta of {many(len(layers), 'layer')}: channels may "
            "shrink to zero (BN112).",
            severity=Severity.INFO,
            confidence=Confidence.HIGH,
            location=layers[0].gamma.name or layers[0].beta.name,
            fix=fixes.training_code(_left_out(decayed, decayed=True, trained=False)),
            measurements=(Measurement(name="layers with decayed gamma or beta", value=len(layers), unit="layers"),),
        )


def clean() -> tuple[Facts, ...]:
    """Trainable gamma and beta only; weight decay on a kernel."""
    layer = wired(batch_norm("bn"))
    return (with_graph(layer), with_graph(layer, regularised={"conv/weights": ("L2Loss",)}))


def broken() -> tuple[Facts, ...]:
    """Optimised; optimised through a switch; an L2 loss alone; merely listed; weight decay on gamma."""
    layer = wired(batch_norm("bn"))
    by = {"bn/moving_variance": ("Adam/update_bn/moving_variance/ApplyAdam",)}
    evaluated = replace(unwired(batch_norm("bn"), mode=Mode.EVAL), trained_by=())
    return (
        with_graph(evaluated, optimized=by),
        with_graph(wired(batch_norm("bn"), mode=Mode.SWITCHED), optimized=by),
        with_graph(layer, regularised={"bn/moving_variance": ("L2Loss",)}),
        with_graph(layer, trainable=frozenset({"bn/gamma", "bn/moving_mean", "bn/moving_variance"})),
        with_graph(layer, regularised={"bn/gamma": ("L2Loss_1",)}),
    )
