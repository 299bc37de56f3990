"""BN306 batch-dependent-eval."""

from __future__ import annotations

import pytest
from one_evidence import only

from bncheck.rules.modes.bn306_batch_dependent_eval import DEPENDS, check
from bncheck.testing import compared, difference


@pytest.mark.parametrize(("dependence", "speaks"), [(DEPENDS, False), (1.01 * DEPENDS, True), (None, False)])
def test_limit(dependence: float | None, *, speaks: bool) -> None:
    """Rounding of another order of summation is no dependence; what was not probed says nothing."""
    assert bool(list(check.check(compared(difference(), batch_dependence=dependence)))) is speaks


def test_remedy_is_a_graph_for_serving() -> None:
    """The number is told, and how to export without batch statistics."""
    found = only(check, compared(difference(), batch_dependence=0.7))
    assert "by 70.0 %" in found.message
    assert found.layers == ()
    assert "training=False" in found.fix
