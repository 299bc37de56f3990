"""BN118 frozen-weights-drifting-statistics."""

from __future__ import annotations

import numpy as np
from one_evidence import only

from bncheck.rules.statistics.bn118_frozen_weights_drifting_statistics import check
from bncheck.testing import batch_norm, facts, untouched

REFERENCE = {"bn": (np.full(4, 0.5), np.full(4, 4.0))}
FROZEN = {"bn": True}


def test_the_shift_is_told_in_deviations() -> None:
    """0.9 against 0.5 with a deviation of 2."""
    evidence = only(check, facts(batch_norm("bn", mean=0.9), reference=REFERENCE, reference_weights=FROZEN))
    assert evidence.measurements[-1].value == 0.2
    assert "up to 0.2 of" in evidence.message


def test_one_of_the_pair_is_enough() -> None:
    """The variance alone moved."""
    layer = batch_norm("bn", mean=0.5, variance=3.9)
    assert only(check, facts(layer, reference=REFERENCE, reference_weights=FROZEN)).layers == ("bn",)


def test_silent() -> None:
    """On the reference's own statistics, on other weights, on weights not compared, on initial statistics."""
    same = batch_norm("bn", mean=0.5, variance=4.0)
    moved = batch_norm("bn", mean=0.9)
    assert not list(check.check(facts(same, reference=REFERENCE, reference_weights=FROZEN)))
    assert not list(check.check(facts(moved, reference=REFERENCE, reference_weights={"bn": False})))
    assert not list(check.check(facts(moved, reference=REFERENCE)))
    assert not list(check.check(facts(untouched("bn"), reference=REFERENCE, reference_weights=FROZEN)))
