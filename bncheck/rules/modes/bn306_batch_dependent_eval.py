"""BN306 batch-dependent-eval."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts import remedies
from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.wording import percent
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import compared, difference

DEPENDS = 1e-3
"""NMSE: kernels that sum in another order for another batch size stay below 1e-6, batch statistics are near 1;
between the two a guess."""


@rule(
    "BN306",
    "batch-dependent-eval",
    severity=Severity.ERROR,
    needs=Needs.COMPARISON,
    explained_by=("BN205", "BN220", "BN206"),
    sees_too="B08",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A prediction depends on what else is in its batch.

    What it detects
    ---------------
    Models to be served whose answer for one sample is another alone than in a batch.

    Why it matters
    --------------
    The served graph uses batch statistics: the same image gets different predictions from one request to the next, and
    alone it is normalised by itself, to nearly nothing.

    How it decides
    --------------
    The first sample of a batch is run again alone. An error above 0.001 of the signal's energy is no rounding. Only for
    graphs that are there to serve: SavedModels and frozen graphs.

    Not detected
    ------------
    Models with a fixed batch size. Training graphs, which depend on the batch by nature.

    Fix
    ---
    Build the graph for inference, then export:

        {EVAL_MODE}

    References
    ----------
    tensorflow#15599, tensorflow/serving#1266, tensorflow#50502. Failure modes B08, F01, F02.
    """
    comparison = model.comparison
    if comparison is None or comparison.batch_dependence is None or comparison.batch_dependence <= DEPENDS:
        return
    yield Evidence(
        layers=(),
        message="The output for one sample changes by "
        f"{percent(comparison.batch_dependence)} when it is run alone instead of in its batch.",
        fix=fixes.training_code(in_framework(remedies.EVAL_MODE, made_with(model)), note="for export"),
        measurements=(
            Measurement(name="NMSE of f(X)[0] against f(X[:1])", value=comparison.batch_dependence, limit=DEPENDS),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """Rounding; not probed."""
    return (compared(difference(), batch_dependence=1e-9), compared(difference()))


def broken() -> tuple[Facts, ...]:
    """Served in train mode, seen with made-up data as well."""
    return (
        compared(difference(), batch_dependence=0.7),
        compared(difference(), batch_dependence=0.7, synthetic=True),
    )
