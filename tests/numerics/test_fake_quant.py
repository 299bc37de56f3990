"""Rounding within a range, against TensorFlow's own FakeQuant ops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.numerics.fake_quant import extent, rounded, rounding_noise


def test_zero_is_a_level_and_what_lies_outside_is_cut_off() -> None:
    """Two bits within -1..2: the levels are -1, 0, 1 and 2."""
    found = rounded(np.array([-9.0, -0.4, 0.0, 0.6, 1.4, 7.0]), np.array(-1.0), np.array(2.0), bits=2, narrow=False)
    np.testing.assert_allclose(found, [-1.0, 0.0, 0.0, 1.0, 1.0, 2.0])


def test_an_empty_range_rounds_all_to_zero() -> None:
    """As the op does."""
    assert not rounded(np.array([1.0, -1.0]), np.array(0.0), np.array(0.0), bits=8, narrow=True).any()


def test_the_extent_holds_zero() -> None:
    """Training records no range without it; per channel, the last axis is kept."""
    low, high = extent(np.array([[1.0, -2.0], [3.0, -1.0]]), per_channel=True)
    np.testing.assert_array_equal(low, [0.0, -2.0])
    np.testing.assert_array_equal(high, [3.0, 0.0])
    assert [float(end) for end in extent(np.array([1.0, 3.0]), per_channel=False)] == [0.0, 3.0]


def test_a_range_three_times_too_narrow_costs_most_of_the_energy() -> None:
    """And its own range next to nothing; weights that are all zero have none to lose."""
    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 16))
    low, high = extent(weights, per_channel=False)
    own = rounding_noise(weights, low, high, bits=8, narrow=True)
    narrow = rounding_noise(weights, low / 10, high / 10, bits=8, narrow=True)
    assert own is not None
    assert narrow is not None
    assert own < 2e-4
    assert narrow > 0.3
    assert rounding_noise(0 * weights, low, high, bits=8, narrow=True) is None


@pytest.mark.tensorflow
@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-8, 0, width=32),
    size=st.floats(0.015625, 16, width=32),
    bits=st.integers(2, 8),
    narrow=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_rounds_as_tensorflow_does(*, low: float, size: float, bits: int, narrow: bool, seed: int) -> None:
    """Any range that holds zero; float32 may fall on the other side of a tie."""
    import tensorflow as tf

    high = max(low + size, 0.0)
    x = np.random.default_rng(seed).normal(scale=max(high, -low), size=(64,)).astype(np.float32)
    expected = tf.quantization.fake_quant_with_min_max_args(x, low, high, bits, narrow).numpy()
    found = rounded(x.astype(np.float64), np.array(low), np.array(high), bits=bits, narrow=narrow)
    step = (high - low) / (2**bits - 1 - narrow)
    apart = np.abs(found - expected)
    assert np.all(apart < 1.01 * step)
    assert np.mean(apart > 1e-3 * step) < 0.05
