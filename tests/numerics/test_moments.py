"""Moments: any split of the data gives the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.numerics.moments import Moments, from_batch, merge, merge_all, nothing, of


def parts(values: np.ndarray, cuts: list[int]) -> list[Moments]:
    """Moments of the pieces between the cuts."""
    return [of(piece) for piece in np.split(values, sorted(c % (len(values) + 1) for c in cuts))]


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(2, 300),
    cuts=st.lists(st.integers(0, 300), max_size=8),
    mean=st.sampled_from([0.0, 1.0, -1e4, 1e4, 1e5]),
    deviation=st.sampled_from([1.0, 1e3]),
)
def test_any_split(seed: int, count: int, cuts: list[int], mean: float, deviation: float) -> None:
    """Whatever the batches, mean and variance are those of all values, to 1e-9 relative."""
    values = np.random.default_rng(seed).normal(mean, deviation, (count, 3))
    merged = merge_all([nothing(3), *parts(values, cuts)])
    whole = of(values)
    assert merged.count == count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-9, atol=1e-9 * deviation)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-9)
    np.testing.assert_allclose(whole.variance, values.var(axis=0), rtol=1e-7)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), counts=st.tuples(*[st.integers(1, 40)] * 3))
def test_order_and_grouping(seed: int, counts: tuple[int, int, int]) -> None:
    """Merging is commutative and associative: shards may be reduced in any order."""
    random = np.random.default_rng(seed)
    a, b, c = (of(random.normal(1e4, 1, (n, 2))) for n in counts)
    left, right = merge(merge(a, b), c), merge(c, merge(b, a))
    np.testing.assert_allclose(left.mean, right.mean, rtol=1e-12)
    np.testing.assert_allclose(left.m2, right.m2, rtol=1e-9)


def test_known_answers() -> None:
    """[1, 2, 3, 4]: mean 2.5, variance 1.25 biased and 5/3 corrected; 2, 2, 4, ..., 64 in batches of any size."""
    few = of(np.array([[1.0], [2.0], [3.0], [4.0]]))
    assert (few.mean[0], few.variance[0], few.bessel[0]) == (2.5, 1.25, pytest.approx(5 / 3))
    values = np.array([2.0, 2, 4, 8, 16, 32, 64])[:, None]
    for size in range(1, 8):
        merged = merge_all([of(values[n : n + size]) for n in range(0, 7, size)])
        assert merged.mean[0] == pytest.approx(128 / 7)
        assert merged.variance[0] == pytest.approx(values.var())


def test_from_batch() -> None:
    """What a kernel computed merges with what was computed here."""
    values = np.random.default_rng(0).normal(1e4, 1, (64, 5))
    kernel = from_batch(40, values[:40].mean(axis=0), values[:40].var(axis=0))
    np.testing.assert_allclose(merge(kernel, of(values[40:])).variance, of(values).variance, rtol=1e-9)


def test_channel_axis() -> None:
    """Channels first and channels last agree."""
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.testing.assert_array_equal(of(values, axis=1).mean, of(np.moveaxis(values, 1, -1)).mean)
    assert of(values, axis=1).count == 40


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(bad: float) -> None:
    """A value that is not finite makes its channel's variance NaN for good, and no other channel's."""
    values = np.ones((8, 2))
    values[3, 1] = bad
    merged = merge(merge(of(values[:4]), of(values[4:])), of(np.ones((9, 2))))
    assert merged.variance[0] == 0
    assert np.isnan(merged.variance[1])
    assert not np.isfinite(merged.mean[1])


def test_nothing() -> None:
    """No values: no variance; one value: a variance of 0 and none corrected."""
    assert np.isnan(of(np.zeros((0, 2))).variance).all()
    one = of(np.ones((1, 2)))
    assert (one.variance == 0).all()
    assert np.isnan(one.bessel).all()
    assert merge(nothing(2), one).count == 1
