"""BN112 collapsed-gamma."""

from __future__ import annotations

import pytest
from one_evidence import severities

from bncheck.facts.findings import Severity
from bncheck.rules.statistics.bn112_collapsed_gamma import check
from bncheck.testing import batch_norm, facts


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ([1e-4, 1e-4, 1, 1], [Severity.WARNING]),
        ([1e-4, 1.1e-3, 1, 1], []),
        ([0, 0, 1, 1], [Severity.INFO]),
        ([0, 1e-4, 1, 1], []),
    ],
)
def test_collapsed_gamma(gamma: list[float], expected: list[Severity]) -> None:
    """Half of the channels below 1e-3 warn, half at exactly 0 are pruned."""
    assert severities(check, facts(batch_norm("bn", gamma=gamma))) == expected
