"""BN220 always-batch-statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import norm_kinds, remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode
from bncheck.facts.training import has_statistics, served_outputs
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.rules.wiring.bn205_served_in_train_mode import statistics_dropped
from bncheck.testing import batch_norm, served, serving, unwired, wired, with_graph


@rule(
    "BN220",
    "always-batch-statistics",
    severity=Severity.INFO,
    confidence=Confidence.MEDIUM,
    needs=Needs.SITES,
    meaning=Meaning.WIRING_FAULT,
    sees="A17",
    sees_too="F06",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A layer normalises with batch statistics and has no stored ones at all.

    What it detects
    ---------------
    Sites that compute batch moments and normalise with them while the graph holds no moving mean or variance for them.

    Why it matters
    --------------
    A prediction depends on the other samples of its batch, a batch of one is special, and nothing can be folded. It is
    also how pix2pix, MAML and some style transfer networks work, by design.

    How it decides
    --------------
    No statistics variables, no updates, train mode. WARNING where a serving output depends on it: by design, or
    exported from the training graph. WARNING too where a train op goes through it and nothing by design explains it:
    batches of one (pix2pix), weights that are stepped inside the graph (MAML), two networks that are trained against
    each other. INFO elsewhere. Instance, group and layer norm reduce over other axes and are not
    batch norm here. A fused op of a frozen graph had statistics once, which freezing dropped (BN205).

    Not detected
    ------------
    Whether it is intended.

    Fix
    ---
    If it is not: a layer with statistics, its updates run with the train op (BN201), and a graph for serving:

        {CHOSEN_MODE}

    If it is: serve batches as in training, or one image at a time, always the same way, and ignore this code with a
    reason in `[tool.bncheck]`.

    References
    ----------
    carpedm20/DCGAN-tensorflow#10, bamos/dcgan-completion#3, cbfinn/maml#9, udacity/deep-learning#130,
    tensorflow#16895. Failure modes A17, F06; P16.
    """
    layers = [layer for layer in model.layers if _batch_only(layer) and not statistics_dropped(model, layer)]
    in_service = model.graph is not None and model.graph.serving
    served_ones = [layer for layer in layers if in_service and any(served_outputs(s.outputs) for s in layer.sites)]
    idle = [] if in_service else layers
    meant = [layer for layer in idle if not layer.sites[0].train_ops or _by_design(model, layer)]
    others = [layer for layer in idle if layer not in meant]
    if served_ones:
        text = "Serving outputs depend on {} that {} with batch statistics and {} no moving ones: by design, or "
        text += "exported from the training graph."
        yield _evidence(model, served_ones, Severity.WARNING, text)
    if others:
        text = "{} in the training path {} with batch statistics and {} no moving ones: there is nothing to serve one "
        text += "sample with, and nothing to fold."
        yield _evidence(model, others, Severity.WARNING, text)
    of_keras_1 = [layer for layer in meant if layer.mean.reason == norm_kinds.KERAS_1_MODE_2]
    meant = [layer for layer in meant if layer not in of_keras_1]
    if of_keras_1:
        text = "{} {} with the batch at hand and {} no moving statistics: `mode=2` of Keras 1 asks for it. What is "
        text += "predicted for one image depends on those beside it."
        yield _evidence(model, of_keras_1, Severity.INFO, text)
    if meant:
        text = "{} {} with batch statistics only and {} no moving ones: normal in pix2pix or MAML, otherwise a fault."
        yield _evidence(model, meant, Severity.INFO, text)


def _by_design(model: Facts, layer: Layer) -> bool:
    """Whether the graph itself tells why: batches of one (pix2pix), weights that are stepped inside it (MAML)."""
    if any(site.reduced is not None and site.reduced[0] == 1 for site in layer.sites):
        return True
    computed = any(site.linear is not None and not site.linear.kernel for site in layer.sites)
    ops = model.graph.train_ops if model.graph is not None else ()
    several = len(ops) > 1 and not set(ops[0].variables).intersection(*(op.variables for op in ops[1:]))
    return computed or several


def _batch_only(layer: Layer) -> bool:
    return not has_statistics(layer) and not layer.updates and any(site.mode is Mode.TRAIN for site in layer.sites)


def _evidence(model: Facts, layers: Sequence[Layer], severity: Severity, text: str) -> Evidence:
    sites = [site for layer in layers for site in layer.sites]
    verbs = ("normalises", "has") if len(layers) == 1 else ("normalise", "have")
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{text.format(many(len(layers), 'layer'), *verbs)} {quoted(site.name for site in sites)}.",
        severity=severity,
        location=sites[0].name,
        fix=fixes.training_code(
            in_framework(remedies.CHOSEN_MODE, made_with(model, layers)),
            note="unless intended, use a layer with statistics",
        ),
        measurements=(Measurement(name="layers without statistics", value=len(layers), limit=0, unit="layers"),),
    )


def clean() -> tuple[Facts, ...]:
    """Layers with statistics, trained and served; an uncalled training function of a SavedModel; a frozen graph's."""
    bare = batch_norm("bn", mean=None, variance=None)
    return (
        with_graph(wired(batch_norm("bn"))),
        serving(served(batch_norm("bn"), Mode.TRAIN)),
        serving(served(bare, Mode.TRAIN, outputs=())),
        serving(served(bare, Mode.TRAIN), variables={}),
    )


def broken() -> tuple[Facts, ...]:
    """Served without statistics; trained without; two networks against each other (a note)."""
    bare = batch_norm("bn", mean=None, variance=None)
    return (
        serving(served(bare, Mode.TRAIN), variables={"bn/beta": (4,)}),
        with_graph(replace(unwired(bare), updates=())),
        with_graph(
            replace(unwired(bare, "g_adam"), updates=()),
            wired(batch_norm("d"), "d_adam"),
        ),
    )
