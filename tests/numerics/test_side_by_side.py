"""Channels of many layers side by side: the same numbers as layer by layer."""

from __future__ import annotations

import numpy as np

from bncheck.numerics.side_by_side import SideBySide


def test_medians_are_those_of_each_layer() -> None:
    """Layers of one size are sorted together, of odd and even sizes, infinities among them."""
    random = np.random.default_rng(0)
    sizes = [3, 1, 4, 3, 8, 4, 1]
    values = random.normal(size=sum(sizes))
    values[[0, 5, 9]] = np.inf, -np.inf, np.inf
    side = SideBySide(sizes)
    expected = [float(np.median(part)) for part in side.parts(values)]
    assert side.medians_of_all(values).tolist() == expected
    assert side.medians(values, np.ones(values.size, bool)).tolist() == expected
