"""BN104 one-of-pair-moved."""

from __future__ import annotations

from one_evidence import only

from bncheck.rules.statistics import bn104_one_of_pair_moved
from bncheck.testing import batch_norm, facts

PAIR = bn104_one_of_pair_moved.check


def test_one_of_the_pair() -> None:
    """Each half is named; an input of zeros, whose variance falls alike in all channels, is no fault."""
    assert "moving mean is exactly 0" in only(PAIR, facts(batch_norm("bn", mean=0.0, variance=[2, 3, 1, 1]))).message
    assert "moving variance is exactly 1" in only(PAIR, facts(batch_norm("bn", variance=1.0))).message
    assert list(PAIR.check(facts(batch_norm("zeros", mean=0.0, variance=0.99**300)))) == []
