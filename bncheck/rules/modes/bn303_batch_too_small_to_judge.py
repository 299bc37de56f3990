"""BN303 batch-too-small-to-judge."""

from __future__ import annotations

import math
from collections.abc import Iterator

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import Comparison
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.modes import FEWEST_SAMPLES, FEWEST_VALUES, too_small
from bncheck.testing import classes_compared, compared, difference


@rule(
    "BN303",
    "batch-too-small-to-judge",
    severity=Severity.WARNING,
    needs=Needs.COMPARISON,
    meaning=Meaning.UNDECIDED,
    sees_too="C06",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The data are too few, or the batches too small, for train mode to be a reference.

    What it detects
    ---------------
    Fewer than 32 samples; batches that leave a layer fewer than 16 values a channel; without labels, batches in which
    train mode does not even agree with itself, or a single batch.

    Why it matters
    --------------
    The statistics of a small batch are off by chance, by 1.5 over the number of values, and every layer adds to it: an
    apparent fault of the model may be one of the reference.

    How it decides
    --------------
    Train mode is run on the same samples dealt to other batches. If it agrees with itself on less than 70 % of them, or
    differs by more than half of the signal's energy, it proves nothing. The verdict is then inconclusive (exit code 3)
    unless something else fails; with labels that train mode meets, the accuracies decide all the same.

    Not detected
    ------------
    Batches of one class each, or of frames of one video: their statistics are stable and wrong. bncheck shuffles.

    Fix
    ---
    More data, in larger batches:

        bncheck compare train-vs-eval PATH --data images/ --batch-size 64

    References
    ----------
    arXiv 1702.03275, arXiv 1803.08494, keras#6977. Failure modes B16, C05, C06.
    """
    comparison = model.comparison
    reason = "" if comparison is None or comparison.data.synthetic else too_small(comparison)
    if comparison is not None and reason:
        fewest = min((layer.samples for layer in comparison.layers), default=0)
        yield Evidence(
            layers=(),
            message=f"{reason}.",
            fix=_fix(model, comparison, fewest),
            measurements=(
                Measurement(name="samples", value=comparison.data.samples, limit=FEWEST_SAMPLES),
                Measurement(name="fewest values a channel and batch", value=fewest, limit=FEWEST_VALUES),
            ),
        )


def _fix(model: Facts, comparison: Comparison, fewest: int) -> str:
    """More samples, other outputs, or the same run with batches that are large enough."""
    size = comparison.data.batch_size
    if comparison.data.samples < FEWEST_SAMPLES:
        return f"Give more samples: at least {FEWEST_SAMPLES}, better a few hundred."
    if comparison.data.batches > 1 and all(output.floor is None for output in comparison.outputs):
        command = fixes.compare(fixes.without(model, "--outputs"), "--outputs", "TENSOR")
        return f"Name an output with one row per sample:\n{fixes.indented(command)}"
    larger = max(2 * size, math.ceil(size * FEWEST_VALUES / max(fewest, 1)))
    wanted = str(min(larger, comparison.data.samples)) if comparison.data.batches > 1 else str(max(size // 4, 8))
    command = fixes.compare(fixes.without(model, "--batch-size"), "--batch-size", wanted)
    return f"Give more data, or another batch size:\n{fixes.indented(command)}"


def clean() -> tuple[Facts, ...]:
    """Eleven batches of 32; noisy, but labels decide; noise made up."""
    return (
        compared(difference()),
        compared(difference(), output=classes_compared(0.4, agreement_floor=0.5), accuracy=(0.5, 0.5)),
        compared(difference(), output=classes_compared(0.4, agreement_floor=0.4), synthetic=True),
    )


def broken() -> tuple[Facts, ...]:
    """Eight images; one value a channel; train mode against itself; one batch."""
    return (
        compared(difference(), samples=8),
        compared(difference(samples=1)),
        compared(difference(), output=classes_compared(0.4, agreement_floor=0.5)),
        compared(difference(), output=classes_compared(0.4, agreement_floor=None, floor=None)),
    )
