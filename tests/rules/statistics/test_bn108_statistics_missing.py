"""BN108 statistics-missing."""

from __future__ import annotations

from bncheck.rules.statistics.bn108_statistics_missing import check
from bncheck.testing import batch_norm, facts, unread


def test_missing_is_not_unread() -> None:
    """Statistics that were not read are not missing."""
    assert list(check.check(facts(unread(batch_norm("bn"))))) == []
