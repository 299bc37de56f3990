"""The factor of the input's range: found through any share of the initial value, silent where nothing tells."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.numerics.input_range import range_factor
from bncheck.numerics.moments import Moments
from bncheck.testing import batch_norm

TRUE = np.geomspace(0.02, 3.0, 16)


def _measured(factor: float) -> Moments:
    return Moments(count=1000, mean=np.zeros(16), m2=1000 * TRUE * factor**2)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 127.5])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.9])
def test_factor_is_found(factor: float, share: float) -> None:
    """Whatever part of the stored variance is still its initial 1."""
    layer = batch_norm("bn", variance=share + (1 - share) * TRUE)
    assert range_factor(layer, _measured(factor), share) == pytest.approx(factor, rel=1e-6)


def test_what_never_moved_tells_nothing() -> None:
    """All of it is initial value."""
    assert range_factor(batch_norm("bn", variance=np.ones(16)), _measured(2.0), 1.0) is None


def test_channels_that_disagree_tell_nothing() -> None:
    """Another model's data change every channel by a factor of its own."""
    wild = Moments(count=1000, mean=np.zeros(16), m2=1000 * TRUE[::-1] * 4)
    assert range_factor(batch_norm("bn", variance=TRUE), wild, 0.0) is None
