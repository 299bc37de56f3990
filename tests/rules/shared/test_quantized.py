"""What the rules on float against quantized share: which operators lose precision."""

from __future__ import annotations

import pytest

from bncheck.rules.shared.quantized import losing
from bncheck.testing.quantized import operator_loss, quantized


@pytest.mark.parametrize(
    ("local", "rmse", "speaks"),
    [
        (0.02, 0.7, False),
        (0.02, 0.71, True),
        (0.01, 5.0, False),
        (0.1, 0.3, False),
        (0.11, 0.3, True),
        (0.09, None, False),
    ],
)
def test_precision_limits(local: float, rmse: float | None, speaks: bool) -> None:  # noqa: FBT001 - the table's column
    """Far from rounding and a hundredth of the signal, or a tenth of it whatever the scale."""
    measured = quantized(operator_loss(local=local, rmse=rmse)).quantized
    assert measured is not None
    assert bool(losing(measured)) is speaks
