"""What samples look like: any split into batches gives the same, noise is told from pictures."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bncheck.compare.data.summary import InputTotals
from bncheck.facts.inputs import InputSummary


def _summary(images: NDArray[np.float32], size: int) -> InputSummary:
    totals = InputTotals()
    for start in range(0, len(images), size):
        totals.add(images[start : start + size])
    return totals.summary()


@pytest.fixture(scope="module")
def ramps() -> NDArray[np.float32]:
    """Images that grow brighter to one side, each by its own slope."""
    slopes = np.random.default_rng(0).uniform(0.5, 1.0, (12, 1, 1, 3))
    return (slopes * np.linspace(-1, 1, 16).reshape(1, 1, 16, 1) * np.ones((1, 16, 1, 1))).astype(np.float32)


@pytest.mark.parametrize("size", [1, 5, 12])
def test_any_split_gives_the_same(ramps: NDArray[np.float32], size: int) -> None:
    """Sums are merged, not averaged."""
    found, whole = _summary(ramps, size), _summary(ramps, 12)
    assert (found.samples, found.distinct, found.low, found.high) == (12, 12, whole.low, whole.high)
    assert [found.mean, found.deviation] == pytest.approx([ramps.mean(), ramps.std()], abs=1e-6)
    assert found.neighbours == pytest.approx(whole.neighbours, abs=0.02)


def test_pictures_and_noise(ramps: NDArray[np.float32]) -> None:
    """Neighbouring pixels of noise have nothing to do with each other."""
    noise = np.random.default_rng(1).normal(size=ramps.shape).astype(np.float32)
    picture, random = _summary(ramps, 4).neighbours, _summary(noise, 4).neighbours
    assert picture is not None
    assert random is not None
    assert picture > 0.8
    assert abs(random) < 0.05


def test_repeated_and_constant_samples() -> None:
    """One image sixty-four times is one; a grey one has no deviation, and its neighbours tell nothing."""
    found = _summary(np.full((64, 16, 16, 3), 0.5, np.float32), 32)
    assert (found.distinct, found.constant, found.neighbours) == (1, True, None)


def test_vectors_have_no_neighbours() -> None:
    """Only images have."""
    assert _summary(np.random.default_rng(0).normal(size=(8, 40)).astype(np.float32), 4).neighbours is None
