"""BN220 always-batch-statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode
from bncheck.facts.training import has_statistics, served_outputs
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
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
    A prediction depends on the other images of its batch, a batch of one is special, and nothing can be folded. It is
    also how pix2pix, MAML and some style transfer networks work, by design.

    How it decides
    --------------
    No statistics variables, no updates, train mode. WARNING where a serving output depends on it: by design, or
    exported from the training graph. INFO elsewhere. Instance, group and layer norm reduce over other axes and are not
    batch norm here. A fused op of a frozen graph had statistics once, which freezing dropped (BN205).

    Not detected
    ------------
    Whether it is meant so.

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
    others = [] if in_service else layers
    if served_ones:
        text = "Serving outputs depend on {} that {} with the batch at hand and {} no moving statistics: by design, or "
        text += "exported from the training graph."
        yield _evidence(served_ones, Severity.WARNING, text)
    if others:
        text = "{} {} with batch statistics only and {} no moving ones: by design in pix2pix or MAML, else a fault."
        yield _evidence(others, Severity.INFO, text)


def _batch_only(layer: Layer) -> bool:
    return not has_statistics(layer) and not layer.updates and any(site.mode is Mode.TRAIN for site in layer.sites)


def _evidence(layers: Sequence[Layer], severity: Severity, text: str) -> Evidence:
    sites = [site for layer in layers for site in layer.sites]
    verbs = ("normalises", "has") if len(layers) == 1 else ("normalise", "have")
    return Evidence(
        layers=tuple(layer.name for layer in layers),
        message=f"{text.format(many(len(layers), 'layer'), *verbs)} {quoted(site.name for site in sites)}.",
        severity=severity,
        location=sites[0].name,
        fix=fixes.training_code(remedies.TRAIN_MODE, note="a layer with statistics, if it is not meant so"),
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
    """Served without statistics (a warning); in a training graph (a note)."""
    bare = batch_norm("bn", mean=None, variance=None)
    return (
        serving(served(bare, Mode.TRAIN), variables={"bn/beta": (4,)}),
        with_graph(replace(unwired(bare), updates=())),
    )
