"""BN116 statistics-equal-reference."""

from __future__ import annotations

import numpy as np
from one_evidence import severities

from bncheck.facts.findings import Severity
from bncheck.facts.layers import RunFacts
from bncheck.rules.statistics.bn116_statistics_equal_reference import check
from bncheck.testing import batch_norm, facts, untouched


def test_reference() -> None:
    """Equal in one of two vectors is not equal; without signs of training equality is a note; untouched is BN101's."""
    published = {"bn": (np.full(4, 0.5), np.full(4, 2.0))}
    still = RunFacts(values=True, updates=0, global_step=0)
    assert severities(check, facts(batch_norm("bn"), reference=published)) == [Severity.WARNING]
    assert severities(check, facts(batch_norm("bn"), reference=published, run=still)) == [Severity.INFO]
    assert list(check.check(facts(batch_norm("bn", variance=2.1), reference=published))) == []
    assert list(check.check(facts(batch_norm("other"), reference=published))) == []
    initial = {"bn": (np.zeros(4), np.ones(4))}
    assert list(check.check(facts(untouched("bn"), reference=initial))) == []
