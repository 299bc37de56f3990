"""BN110 exploding-variance."""

from __future__ import annotations

import numpy as np
import pytest
from one_evidence import severities

from bncheck.facts.findings import Severity
from bncheck.rules.statistics import bn106_negative_variance
from bncheck.rules.statistics.bn110_exploding_variance import check
from bncheck.testing import batch_norm, compared, difference, facts


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        ([1e12, 1, 1, 1], []),
        ([1.1e12, 1, 1, 1], [Severity.WARNING]),
        ([2e6, -1, 1, 1], [Severity.ERROR]),
        ([9e5, -1, 1, 1], []),
    ],
)
def test_explosion(variance: list[float], expected: list[Severity]) -> None:
    """Size alone warns beyond 1e12; with negative neighbours a million is an overshoot."""
    assert severities(check, facts(batch_norm("bn", variance=variance))) == expected


def test_overshoot_as_it_happens() -> None:
    """30 updates of one resource variable a step at decay 0.9 diverge; 20 do not."""

    def after(updates: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        random = np.random.default_rng(0)
        variance = np.ones(4)
        for _ in range(33):
            variance = variance - updates * (1 - 0.9) * (variance - random.uniform(0.5, 2.0, 4))
        return variance

    assert severities(bn106_negative_variance.check, facts(batch_norm("bn", variance=after(30)))) == [Severity.ERROR]
    assert severities(check, facts(batch_norm("bn", variance=after(30) * np.array([1, -1, 1, -1])))) == [Severity.ERROR]
    assert list(check.check(facts(batch_norm("bn", variance=after(15))))) == []


@pytest.mark.parametrize(("local", "expected"), [(1e-3, []), (0.5, [Severity.WARNING])])
def test_data_that_have_such_variances(local: float, expected: list[Severity]) -> None:
    """Measured in the same run, large variances are what they are; where the layer is off they are not."""
    layers = [batch_norm("a"), batch_norm("b", variance=4e9, mean=3.0), batch_norm("c")]
    measured = compared(difference("a"), difference("b", local=local), difference("c"), layers=layers)
    assert severities(check, measured) == expected
