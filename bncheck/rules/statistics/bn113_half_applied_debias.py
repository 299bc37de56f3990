"""BN113 half-applied-debias."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Debias, Facts, RunFacts
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channels import names
from bncheck.numerics.init_share import HARMLESS, init_share
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN113",
    "half-applied-debias",
    severity=Severity.WARNING,
    needs=Needs.NOTHING,
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA | Meaning.BY_COUNTERS,
    sees="C03",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Zero-debias corrects only one of the two statistics; the other keeps its init share.

    What it detects
    ---------------
    Layers with zero-debias variables (`biased`, `local_step`) for the moving mean and none for the moving variance, as
    TF-slim's `zero_debias_moving_mean=True` makes them, or the other way round.

    Why it matters
    --------------
    The mean is right from the first steps on, so the warm-up seems solved. The variance still starts at 1 and needs all
    of it.

    How it decides
    --------------
    By the auxiliary variables. A warning while the init share of the statistic without them (decay**n) is above 1 %,
    else, or where decay or count are unknown, a note. BN103 judges the damage.

    Not detected
    ------------
    Corrections computed without variables of their own.

    Fix
    ---
    Lower the decay instead; it cures both:

        slim.batch_norm(net, decay=0.99, zero_debias_moving_mean=False)

    This checkpoint: `bncheck repair PATH -o OUT --debias`. When restoring, list `biased` and `local_step` as well.

    References
    ----------
    tensorflow#6270, keras#9003, tensorflow/benchmarks#43. Failure mode C03.
    """
    half = [layer for layer in model.layers if layer.debias and layer.debias.mean != layer.debias.variance]
    for layers, severity in (
        ([x for x in half if (init_share(x, model.run.updates) or 0.0) > HARMLESS], Severity.WARNING),
        ([x for x in half if (init_share(x, model.run.updates) or 0.0) <= HARMLESS], Severity.INFO),
    ):
        if layers:
            first = layers[0]
            fixed, left = ("mean", "variance") if first.debias and first.debias.mean else ("variance", "mean")
            shares = [share for layer in layers if (share := init_share(layer, model.run.updates)) is not None]
            said = f", up to {percent(max(shares))} of which is initial value" if shares else ""
            yield Evidence(
                layers=names(layers),
                message=(
                    f"Zero-debias corrects the moving {fixed} of {many(len(layers), 'layer')} but not the moving "
                    f"{left}{said}: {listing(names(layers))}."
                ),
                severity=severity,
                measurements=(
                    Measurement(name="layers debiased by half", value=len(layers), limit=0, unit="layers"),
                    *(Measurement(name="init share", value=max(shares), limit=HARMLESS) for _ in shares[:1]),
                ),
            )


def clean() -> tuple[Facts, ...]:
    """No zero-debias; zero-debias of both."""
    return (
        facts(batch_norm("bn")),
        facts(batch_norm("bn", debias=Debias(mean=True, variance=True))),
    )


def broken() -> tuple[Facts, ...]:
    """Still warming up, its variances large enough to bear it; long past it (a note)."""
    half = Debias(mean=True, variance=False)
    return (
        facts(
            batch_norm("bn", variance=[9.0, 12.0, 20.0, 7.0], decay=0.999, debias=half),
            run=RunFacts(values=True, updates=3000, global_step=3000),
        ),
        facts(batch_norm("bn", decay=0.99, debias=half)),
    )
