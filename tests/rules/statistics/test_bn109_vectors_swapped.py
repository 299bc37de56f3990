"""BN109 vectors-swapped."""

from __future__ import annotations

import numpy as np

from bncheck.rules.statistics.bn109_vectors_swapped import check
from bncheck.testing import batch_norm, facts


def test_swapped_in_a_minority_is_chance() -> None:
    """An order is wrong in all layers or none: one suspicious layer of three says nothing."""
    positive, signed = np.linspace(0.2, 2, 8), np.linspace(-1, 1, 8)
    odd = batch_norm("odd", mean=positive, variance=signed, channels=8)
    fine = [batch_norm(name, mean=signed, variance=positive, channels=8) for name in "ab"]
    assert list(check.check(facts(odd, *fine))) == []
    assert len(list(check.check(facts(odd, fine[0])))) == 1


def test_swapped_needs_enough_channels() -> None:
    """Seven channels of one sign may be chance."""
    few = batch_norm("bn", mean=np.linspace(0.2, 2, 7), variance=np.linspace(-1, 1, 7), channels=7)
    assert list(check.check(facts(few))) == []
