"""What a batch norm's output is distributed as."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.recognise.predicted.after_batch_norm import after_batch_norm
from bncheck.testing import batch_norm


@pytest.mark.parametrize(("variance", "known"), [(10.0, True), (1e-5, False), (np.nan, True), (None, True)])
def test_gamma_is_the_deviation(variance: float | None, *, known: bool) -> None:
    """Beta is the mean; where epsilon is most of what the layer divides by, the deviation is a guess."""
    found = after_batch_norm(batch_norm("bn", variance=variance, gamma=2.0, beta=0.5, channels=2, epsilon=1e-3))
    assert found is not None
    assert found.mean == pytest.approx([0.5, 0.5])
    assert np.sqrt(found.variance) == pytest.approx([2, 2], rel=1e-3)
    assert found.spread_known is known
