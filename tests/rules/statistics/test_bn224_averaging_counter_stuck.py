"""BN224 averaging-counter-stuck."""

from __future__ import annotations

from one_evidence import only

from bncheck.judge.judge import judge
from bncheck.rules.statistics.bn224_averaging_counter_stuck import check
from bncheck.testing import batch_norm, wired, with_graph


def test_counter_and_decay_are_named() -> None:
    """In the message and in the fix, which speaks of this graph's variable."""
    evidence = only(check, with_graph(wired(batch_norm("bn"), decay=0.1, stuck_counter="step")))
    assert "`step`" in evidence.message
    assert "stays at 0.1, so each step keeps 10.0 %" in evidence.message
    assert "# `step`, the variable given as num_updates" in evidence.fix


def test_the_small_decay_is_not_called_a_choice() -> None:
    """0.1 is what the stuck counter leaves of the decay that was asked for: BN211 is silent."""
    stuck = with_graph(wired(batch_norm("bn"), decay=0.1, stuck_counter="step"))
    assert [f.code for f in judge(stuck).findings] == ["BN224"]
