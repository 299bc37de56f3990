"""BN221 evaluated-in-train-mode."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Site
from bncheck.facts.training import has_statistics, training_sites
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.layer_calls import eval_copy
from bncheck.testing import batch_norm, site, wired, with_graph


@rule(
    "BN221",
    "evaluated-in-train-mode",
    severity=Severity.WARNING,
    needs=Needs.GRAPH,
    explained_by=("BN222",),
    meaning=Meaning.WIRING_FAULT,
    sees="B03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A second application of the network, which nothing trains, uses batch statistics: its metrics lie.

    What it detects
    ---------------
    Layers that are trained at one place of the graph and applied at another, for validation or prediction, in train
    mode as well.

    Why it matters
    --------------
    Its output depends on the other samples of the batch and never on the moving statistics. Validation then looks as
    good as training even if eval mode, which will be served, is broken; and a prediction for one sample differs from
    that for many.

    How it decides
    --------------
    A site in train mode that no train op depends on and no gradient flows from, of a layer that has statistics and is
    trained through another site. A switched site is no fault. What a train op depends on, such as a second view in
    self-supervised learning, is part of training.

    Not detected
    ------------
    A validation graph in a process of its own: inspect its MetaGraph (BN205). A switch that is fed True in validation.

    Fix
    ---
    Build the second application in eval mode, on the same variables:

        {EVAL_MODE_COPY}

    References
    ----------
    dongmingsun/tx2-erfpsp, tensorflow/models#391, tensorflow#7469. Failure mode B03.
    """
    if model.graph is None or not model.graph.train_ops:
        return
    found = {layer: sites for layer in model.layers if (sites := _second(layer))}
    if not found:
        return
    sites = [site for of_layer in found.values() for site in of_layer]
    fed = tuple(dict.fromkeys(name for site in sites for name in site.inputs))
    source = f", fed by {quoted(fed)}," if fed else ""
    yield Evidence(
        layers=tuple(layer.name for layer in found),
        message=f"{many(len(found), 'trained layer')} {'is' if len(found) == 1 else 'are'} applied again in train "
        "mode at "
        f"{quoted(site.name for site in sites)}{source} where nothing is trained: an evaluation there depends on the "
        "batch and does not test the moving statistics.",
        location=sites[0].name,
        fix=fixes.training_code(eval_copy(model, list(found)), note="where the layer is applied again"),
        measurements=(
            Measurement(name="sites in train mode that nothing trains", value=len(sites), limit=0, unit="sites"),
        ),
    )


def _second(layer: Layer) -> list[Site]:
    trained = training_sites(layer)
    if not has_statistics(layer) or all(site.mode is Mode.EVAL for site in trained):
        return []
    return [
        site
        for site in layer.sites
        if site.mode is Mode.TRAIN and not site.train_ops and site.backpropagated is False and site not in trained
    ]


def _with(mode: Mode, **facts_of_site: object) -> Layer:
    layer = wired(batch_norm("bn"))
    known: dict[str, object] = {"inputs": ("val_images",), "backpropagated": False}
    return replace(layer, sites=(*layer.sites, site("val/bn/FusedBatchNormV3", mode, **(known | facts_of_site))))


def clean() -> tuple[Facts, ...]:
    """A validation tower in eval mode, or switched; a second view that is trained; one that its train op only reads."""
    return (
        with_graph(_with(Mode.EVAL)),
        with_graph(_with(Mode.SWITCHED)),
        with_graph(_with(Mode.TRAIN, train_ops=("Adam",), backpropagated=True)),
        with_graph(_with(Mode.TRAIN, train_ops=("Adam",))),
    )


def broken() -> tuple[Facts, ...]:
    """A validation tower in train mode."""
    return (with_graph(_with(Mode.TRAIN)),)
