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
    side, alive = SideBySide(sizes), random.random(sum(sizes)) > 0.4
    alive[3] = False
    parts = side.parts(values)
    assert side.medians(values).tolist() == [float(np.median(part)) for part in parts]
    chosen = [part[there] for part, there in zip(parts, side.parts(alive), strict=True)]
    expected = [float(np.median(part)) if part.size else float("nan") for part in chosen]
    assert np.array_equal(side.medians(values, alive), expected, equal_nan=True)
