"""BN224 averaging-counter-stuck."""

from __future__ import annotations

from one_evidence import only

from bncheck.rules import RULES
from bncheck.rules.rule import causes
from bncheck.rules.statistics.bn224_averaging_counter_stuck import check
from bncheck.testing import batch_norm, wired, with_graph


def test_counter_and_decay_are_named() -> None:
    """In the message and in the fix, which speaks of this graph's variable."""
    evidence = only(check, with_graph(wired(batch_norm("bn"), decay=0.1, stuck_counter="step")))
    assert "`step`" in evidence.message
    assert "stays at 0.1, so a step keeps 10.0 %" in evidence.message
    assert "# `step`, the variable given as num_updates" in evidence.fix


def test_it_explains_the_small_decay() -> None:
    """BN211 sees that 0.1 is too small; this is why."""
    assert "BN224" in causes(RULES.rule("BN211"), RULES)
