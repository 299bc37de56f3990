"""BN305: what helps depends on whether NaN is stored or arrives."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.rules.modes.bn305_non_finite_activation import check
from bncheck.testing import batch_norm, compared, difference

NAN = np.full(4, np.nan)


@pytest.mark.parametrize(("stored", "helps"), [(1.0, False), (np.nan, True)])
def test_new_statistics_help_where_the_stored_ones_are_no_numbers(stored: float, *, helps: bool) -> None:
    """NaN that reaches the layer with batch statistics as well comes from weights before it."""
    place = difference("a", local=float("nan"), non_finite=8, mean_shift=NAN, log_variance_ratio=NAN)
    (found,) = check.check(compared(place, layers=[batch_norm("a", variance=[stored] * 4)]))
    assert ("bncheck repair" in found.fix) is helps
    assert ("New statistics do not help" in found.fix) is not helps
