"""BN106 negative-variance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bncheck.facts.findings import Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Role
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import DEAD_VARIANCE, finite, lowest_finite, names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import this_checkpoint, training_code_and_repair
from bncheck.rules.shared.wiring_fix import one_application
from bncheck.testing import batch_norm, facts

ROUNDING = 0.01
"""Part of epsilon up to which a negative variance changes nothing but tells of a cancellation; a guess."""


@rule(
    "BN106",
    "negative-variance",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explained_by=("BN208", "BN109", "BN110"),
    meaning=Meaning.VALUES_FAULT | Meaning.FITS_NO_DATA,
    ends_gate="the square root of a negative variance is NaN",
    sees="C04",
    sees_too="B11 C09",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A moving variance is negative.

    What it detects
    ---------------
    Moving variances below zero, and among them those that even epsilon does not lift above zero.

    Why it matters
    --------------
    Inference divides by sqrt(variance + epsilon): the result is NaN if the sum is negative, and far too large if it is
    nearly 0. Training normalises with the batch's variance and shows nothing.

    How it decides
    --------------
    Any negative channel is an error. Below a hundredth of epsilon in size it is a warning: the layer still works, but
    a variance computed as E[x^2] - E[x]^2 in float32, or a race between updates, left its mark.

    Not detected
    ------------
    Variances that are positive and wrong; that BN101 to BN103 and `compare train-vs-eval` judge.

    Fix
    ---
    Several updates of one resource variable in one step overshoot when their number times (1 - decay) exceeds 2: run
    one of them, or average the batch statistics first.

        {UPDATE_ONCE}

    This checkpoint: `bncheck repair PATH -o OUT --data images/` (population variance by merging, never negative).

    References
    ----------
    tensorflow#18334, tensorflow#14353, keras#9646, tensorflow#118701. Failure modes B11, C04, C09, C21, E03.
    """
    bad = [layer for layer in model.layers if _lowest(layer) < 0]
    if not bad:
        return
    serious = [layer for layer in bad if -_lowest(layer) > ROUNDING * _epsilon(layer)]
    without_root = {layer.name: int((_variance(layer) + _epsilon(layer) <= 0).sum()) for layer in bad}
    nan = sum(without_root.values())
    channels = sum(int((_variance(layer) < 0).sum()) for layer in bad)
    worst = min(bad, key=_lowest)
    others = f": {listing(names(bad))}" if len(bad) > 1 else ""
    stay = f"{many(nan, 'channel')} {'stays' if nan == 1 else 'stay'}"
    end = f" With epsilon added, {stay} at or below 0: inference gives NaN." if nan else ""
    yield Evidence(
        layers=names(bad),
        message=(
            f"The moving variance is negative in {many(channels, 'channel')} of {many(len(bad), 'layer')}, down to "
            f"{_lowest(worst):.3g} in {worst.name}{others}.{end}"
        ),
        severity=Severity.ERROR if serious else Severity.WARNING,
        location=worst.variance.name,
        fix=_fix(model, bad),
        ends_gate_for=tuple(name for name, count in without_root.items() if count),
        measurements=(
            Measurement(name="negative variances", value=channels, limit=0, unit="channels"),
            Measurement(name="variance + epsilon not positive", value=nan, limit=0, unit="channels"),
            Measurement(name="lowest variance", value=_lowest(worst), limit=0.0),
        ),
    )


def _fix(model: Facts, bad: list[Layer]) -> str:
    """One update a step where the graph has several of them; otherwise new statistics are all there is to do."""
    several = [layer for layer in bad if sum(update.role is Role.VARIANCE for update in layer.updates) > 1]
    if several:
        return training_code_and_repair(model, one_application(model, several))
    return this_checkpoint(model)


def _variance(layer: Layer) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    values = values_of(layer.variance)
    return np.zeros(0) if values is None else finite(values)


def _lowest(layer: Layer) -> float:
    """Lowest finite variance, 0 where none was read."""
    return lowest_finite(layer.variance)


def _epsilon(layer: Layer) -> float:
    """The layer's epsilon, or where unknown the smallest in use."""
    return DEAD_VARIANCE if layer.epsilon is None else layer.epsilon


def clean() -> tuple[Facts, ...]:
    """Positive and zero variances; negative means."""
    return (
        facts(batch_norm("bn", variance=[0.02, 1.0, 2.0, 3.0])),
        facts(batch_norm("bn", mean=-3.0)),
    )


def broken() -> tuple[Facts, ...]:
    """A certain NaN; too small to be a NaN but no rounding; rounding only (a warning)."""
    return (
        facts(batch_norm("bn", variance=[2.0, -0.3, 1.0, 0.7])),
        facts(batch_norm("bn", variance=[2.0, -5e-4, 1.0, 0.7])),
        facts(batch_norm("bn", variance=[2.0, -1e-9, 1.0, 0.7])),
    )
