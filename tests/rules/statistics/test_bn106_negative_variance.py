"""BN106 negative-variance."""

from __future__ import annotations

import pytest
from one_evidence import only, severities

from bncheck.facts.findings import Severity
from bncheck.rules.statistics.bn106_negative_variance import check
from bncheck.testing import batch_norm, facts


@pytest.mark.parametrize(
    ("variance", "epsilon", "expected"),
    [
        (-9.9e-6, 1e-3, [Severity.WARNING]),
        (-1.1e-5, 1e-3, [Severity.ERROR]),
        (-1e-7, None, [Severity.WARNING]),
        (-2e-7, None, [Severity.ERROR]),
        (0.0, 1e-3, []),
        (float("nan"), 1e-3, []),
    ],
)
def test_negative_variance(variance: float, epsilon: float | None, expected: list[Severity]) -> None:
    """Rounding up to a hundredth of epsilon is a warning, more an error; zero and NaN are others'."""
    assert severities(check, facts(batch_norm("bn", variance=[variance, 1, 1, 1], epsilon=epsilon))) == expected


@pytest.mark.parametrize(("variance", "count"), [(-9e-4, 0), (-1e-3, 1), (-5.7e9, 1)])
def test_certain_nan(variance: float, count: int) -> None:
    """Channels that stay at or below zero with epsilon added are counted."""
    evidence = only(check, facts(batch_norm("bn", variance=[variance, 1, 1, 1])))
    assert next(m.value for m in evidence.measurements if m.name == "variance + epsilon not positive") == count
