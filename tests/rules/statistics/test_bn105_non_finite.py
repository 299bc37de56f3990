"""BN105 non-finite."""

from __future__ import annotations

from one_evidence import only

from bncheck.rules.statistics.bn105_non_finite import check
from bncheck.testing import batch_norm, facts


def test_non_finite_counts_by_vector() -> None:
    """NaN and infinity are counted apart, per vector."""
    nan, inf = float("nan"), float("inf")
    evidence = only(check, facts(batch_norm("bn", mean=[nan, nan, 1, 2], variance=[inf, 1, 1, 1])))
    assert {item.name: item.value for item in evidence.measurements} == {"NaN in mean": 2, "infinite in variance": 1}
