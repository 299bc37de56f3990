"""Elements as they are stored."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.sources.elements import LAYOUTS, decoded


@pytest.mark.parametrize("dtype", sorted(set(LAYOUTS) - {"bfloat16", "bool"}))
@pytest.mark.parametrize("order", "<>")
def test_numbers_of_both_byte_orders(dtype: str, order: str) -> None:
    """Come in this machine's, read-only."""
    values = np.array([0, 1, 2], dtype)
    found = decoded(values.astype(order + LAYOUTS[dtype]), dtype)
    assert found.dtype == values.dtype
    assert found.tolist() == values.tolist()
    assert not found.flags.writeable


def test_bfloat16_is_the_upper_half_of_float32() -> None:
    """Exactly."""
    assert decoded(np.array([0x3F80, 0xC000, 0x7F80], "<u2"), "bfloat16").tolist() == [1, -2, np.inf]


def test_truth_values() -> None:
    """Any byte but 0 is true."""
    assert decoded(np.array([0, 1, 255], "u1"), "bool").tolist() == [False, True, True]
