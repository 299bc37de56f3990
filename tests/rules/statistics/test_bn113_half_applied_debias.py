"""BN113 half-applied-debias."""

from __future__ import annotations

import pytest
from one_evidence import severities

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Debias, RunFacts
from bncheck.rules.statistics.bn113_half_applied_debias import check
from bncheck.testing import batch_norm, facts


@pytest.mark.parametrize(("updates", "severity"), [(458, Severity.WARNING), (459, Severity.INFO)])
def test_half_debias(updates: int, severity: Severity) -> None:
    """At decay 0.99 the share falls below 1 % with the 459th update."""
    layer = batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=False))
    assert severities(check, facts(layer, run=RunFacts(values=True, updates=updates))) == [severity]
