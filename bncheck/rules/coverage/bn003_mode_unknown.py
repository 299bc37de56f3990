"""BN003 mode-unknown."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.gaps import Gap, GapKind
from bncheck.facts.layers import Facts, Mode
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, served, serving, wired, with_graph


@rule("BN003", "mode-unknown", severity=Severity.INFO, needs=Needs.NOTHING, sees="F07")
def check(model: Facts) -> Iterator[Evidence]:
    """Whether a site normalises with batch or with stored statistics is unknown.

    What it detects
    ---------------
    Sites of which neither "train", "eval" nor "switched by this tensor" could be derived.

    Why it matters
    --------------
    The rules on modes (BN203 to BN206, BN220) cannot judge these sites. In a serving graph this is a warning:
    predictions may depend on the rest of the batch.

    How it decides
    --------------
    From what recognition reports. WARNING where a serving output depends on such a site, else INFO.

    Not detected
    ------------
    A site whose mode was derived wrongly.

    Fix
    ---
    Build the graph to be judged with a constant mode:

        # TF-slim
        with slim.arg_scope(training_scope(is_training=False)): ...
        # tf.layers
        net = tf.layers.batch_normalization(net, training=False)
        # Keras
        model.export("saved_model")

    or measure it: `bncheck compare train-vs-eval PATH --data images/`.

    References
    ----------
    tensorflow#60855 (how to see the mode of a SavedModel, unanswered). Failure modes F07, B02.
    """
    sites = [(layer, site) for layer in model.layers for site in layer.sites if site.mode is Mode.UNKNOWN]
    gaps = [gap for gap in model.gaps if gap.kind is GapKind.MODE]
    places = list(dict.fromkeys([*(site.name for _, site in sites), *(gap.where for gap in gaps)]))
    if not places:
        return
    served_ones = sum(bool(site.outputs) for _, site in sites)
    reasons = list(dict.fromkeys(gap.why for gap in gaps))
    why = f" ({'; '.join(reasons[:3])})" if reasons else ""
    yield Evidence(
        layers=tuple(dict.fromkeys(layer.name for layer, _ in sites)),
        message=f"The mode of {many(len(places), 'site')} is unknown{why}: {quoted(places)}."
        + (f" Serving outputs depend on {served_ones} of them." if served_ones else ""),
        severity=Severity.WARNING if served_ones else Severity.INFO,
        location=places[0],
        fix=next((gap.how for gap in gaps if gap.how), ""),
        measurements=(Measurement(name="sites of unknown mode", value=len(places), limit=0, unit="sites"),),
    )


def clean() -> tuple[Facts, ...]:
    """A training graph and a serving graph whose modes are known; a bare checkpoint, which has no sites."""
    return (with_graph(wired(batch_norm("bn"))), serving(served(batch_norm("bn"))), facts(batch_norm("bn")))


def broken() -> tuple[Facts, ...]:
    """A served site and a training site of unknown mode; one that recognition reported with its reason."""
    gap = Gap(kind=GapKind.MODE, where="bn/batchnorm/add_1", why="mixes stored and batch statistics")
    return (
        serving(served(batch_norm("bn"), Mode.UNKNOWN)),
        with_graph(wired(batch_norm("bn"), mode=Mode.UNKNOWN)),
        facts(batch_norm("bn"), gaps=(gap,)),
    )
