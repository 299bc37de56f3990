"""Metrics: known answers, invariants, edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.numerics import metrics

EPSILON = 1e-3


def layer(seed: int, count: int, channels: int = 5) -> tuple[np.ndarray, ...]:
    """Input (count, channels), gamma and beta of a random layer."""
    random = np.random.default_rng(seed)
    x = random.normal(random.normal(size=channels), random.uniform(0.1, 3, channels), (count, channels))
    return x, random.normal(1, 0.3, channels), random.normal(0, 0.5, channels)


def apply(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Batch norm with the statistics given."""
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta


def test_nmse_and_sqnr() -> None:
    """The two are one figure in two units; no error is infinitely good, no signal undefined."""
    assert metrics.nmse(200.0, 2.0) == 0.01
    assert metrics.sqnr_db(0.01) == pytest.approx(20)
    assert metrics.sqnr_db(10.0) == pytest.approx(-10)
    assert (metrics.nmse(4.0, 0.0), metrics.sqnr_db(0.0)) == (0.0, math.inf)
    assert metrics.nmse(0.0, 0.0) == 0.0
    assert math.isnan(metrics.nmse(0.0, 1.0))
    assert math.isnan(metrics.nmse(math.nan, 0.0))
    assert math.isnan(metrics.nmse(1.0, math.nan))
    assert math.isnan(metrics.sqnr_db(math.nan))
    assert metrics.sqnr_db(math.inf) == -math.inf


def test_uniform_rounding() -> None:
    """Rounding to 8 bits errs by 0.288675 steps root mean square."""
    values = np.random.default_rng(0).uniform(0, 255, 1_000_000)
    error = np.round(values) - values
    assert math.sqrt(metrics.nmse(len(values), float(np.square(error).sum()))) == pytest.approx(0.288675, rel=2e-3)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-6, 1e6))
def test_cosine(seed: int, scale: float) -> None:
    """Equal to the scalar product's, unchanged by scale, symmetric."""
    r, t = np.random.default_rng(seed).normal(size=(2, 50))
    expected = float(r @ t / math.sqrt((r @ r) * (t @ t)))
    found = metrics.cosine(float(r @ r), float(t @ t), float((t - r) @ (t - r)))
    assert found == pytest.approx(expected, abs=1e-9)
    r2, t2, e2 = (float(v @ v) * scale**2 for v in (r, t, t - r))
    assert metrics.cosine(r2, t2, e2) == pytest.approx(found, abs=1e-9)
    assert metrics.cosine(t2, r2, e2) == pytest.approx(found, abs=1e-9)


def test_cosine_edges() -> None:
    """Both zero 1, one zero 0, opposite -1, NaN and infinity NaN."""
    assert metrics.cosine(0, 0, 0) == 1
    assert metrics.cosine(1, 0, 1) == 0
    assert metrics.cosine(0, 1, 1) == 0
    assert metrics.cosine(1, 1, 4) == -1
    assert math.isnan(metrics.cosine(math.nan, 0, 0))
    assert math.isnan(metrics.cosine(math.inf, 1, math.inf))


def test_shift_and_ratio() -> None:
    """In standard deviations and natural logarithms; 0 where batch and store agree; NaN for a negative variance."""
    one = np.array([1.0])
    assert metrics.mean_shift(3 * one, one, 4 * one - EPSILON, EPSILON)[0] == pytest.approx(1.0)
    assert metrics.log_variance_ratio(4 * one - EPSILON, one - EPSILON, EPSILON)[0] == pytest.approx(math.log(4))
    assert metrics.mean_shift(one, one, one, EPSILON)[0] == 0
    assert metrics.log_variance_ratio(one, one, EPSILON)[0] == 0
    assert math.isnan(metrics.mean_shift(one, one * 0, -one, EPSILON)[0])
    assert math.isnan(metrics.log_variance_ratio(one, -one, EPSILON)[0])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(2, 60))
def test_local_sums_are_those_of_the_outputs(seed: int, count: int) -> None:
    """The closed form is what applying both modes to the batch gives, channel by channel."""
    x, gamma, beta = layer(seed, count)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    stored = mean + 0.3, variance * 1.7
    r2, e2 = metrics.local_sums(mean, variance, *stored, gamma, beta, EPSILON)
    r, t = apply(x, mean, variance, gamma, beta), apply(x, *stored, gamma, beta)
    np.testing.assert_allclose(r2, np.square(r).mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(e2, np.square(t - r).mean(axis=0), rtol=1e-9)


def test_local_sums_without_gamma_and_beta() -> None:
    """None is 1 and 0; equal statistics make no error; channels do not mix."""
    x, _, _ = layer(1, 40)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    ones, zeros = np.ones(5), np.zeros(5)
    bare = metrics.local_sums(mean, variance, zeros, ones, None, None, EPSILON)
    full = metrics.local_sums(mean, variance, zeros, ones, ones, zeros, EPSILON)
    np.testing.assert_array_equal(bare, full)
    assert not metrics.local_sums(mean, variance, mean, variance, None, None, EPSILON)[1].any()
    order = np.array([4, 2, 0, 1, 3])
    mixed = metrics.local_sums(mean[order], variance[order], zeros, ones, None, None, EPSILON)
    np.testing.assert_array_equal(mixed[1], bare[1][order])


@settings(deadline=None)
@given(scale=st.floats(0.01, 100), shift=st.floats(-100, 100))
def test_local_error_does_not_depend_on_units(scale: float, shift: float) -> None:
    """Input, stored statistics and epsilon in other units: the same error."""
    x, gamma, beta = layer(2, 30)
    mean, variance = x.mean(axis=0), x.var(axis=0)
    here = metrics.local_sums(mean, variance, mean + 1, variance * 2, gamma, beta, EPSILON)
    there = metrics.local_sums(
        mean * scale + shift,
        variance * scale**2,
        (mean + 1) * scale + shift,
        variance * 2 * scale**2,
        gamma,
        beta,
        EPSILON * scale**2,
    )
    np.testing.assert_allclose(here, there, rtol=1e-6)


def test_non_finite_statistics() -> None:
    """NaN, infinite and negative variances stay NaN in their channel and leave the others alone; nothing warns."""
    fine = np.ones(3)
    stored = np.array([1.0, math.nan, -1.0])
    _, e2 = metrics.local_sums(fine, fine, fine, stored, None, None, EPSILON)
    assert np.isnan(e2).tolist() == [False, True, True]
    assert math.isnan(metrics.local_floor(stored, None, None, EPSILON, 8))


@pytest.mark.parametrize(("count", "epsilon"), [(32, 1e-3), (32, 0.5), (128, 1e-3), (1568, 1e-5)])
def test_local_floor_is_what_chance_makes(count: int, epsilon: float) -> None:
    """Batches drawn from a known population, judged by its own statistics, differ by the floor: within 8 %."""
    random = np.random.default_rng(count)
    mean, variance = random.normal(size=16), random.uniform(0.05, 3, 16)
    gamma, beta = random.normal(1, 0.2, 16), random.normal(0, 0.4, 16)
    sums = np.zeros(2)
    for _ in range(60):
        x = random.normal(mean, np.sqrt(variance), (count, 16))
        r2, e2 = metrics.local_sums(x.mean(axis=0), x.var(axis=0), mean, variance, gamma, beta, epsilon)
        sums += r2.sum(), e2.sum()
    floor = metrics.local_floor(variance, gamma, beta, epsilon, count)
    assert metrics.nmse(*sums) == pytest.approx(floor, rel=0.08)


@pytest.mark.parametrize("correlated", [False, True])
def test_measured_floor_is_what_batches_differ_by(*, correlated: bool) -> None:
    """From the spread of the batches' moments: the floor of independent values, and more where pixels are alike."""
    random = np.random.default_rng(3)
    mean, variance = random.normal(size=16), random.uniform(0.05, 3, 16)
    gamma, beta = random.normal(1, 0.2, 16), random.normal(0, 0.4, 16)
    batches = []
    for _ in range(200):
        x = random.normal(mean, np.sqrt(variance), (32, 16))
        batches.append(np.repeat(x[:8], 4, axis=0) if correlated else x)
    means = np.array([x.mean(axis=0) for x in batches])
    logs = np.log(np.array([x.var(axis=0) for x in batches]) + EPSILON)
    sums = [metrics.local_sums(x.mean(axis=0), x.var(axis=0), mean, variance, gamma, beta, EPSILON) for x in batches]
    floor = metrics.measured_floor(means.var(axis=0, ddof=1), logs.var(axis=0, ddof=1), variance, gamma, beta, EPSILON)
    assert metrics.nmse(*np.sum(sums, axis=(0, 2))) == pytest.approx(floor, rel=0.3 if correlated else 0.1)
    independent = metrics.local_floor(variance, gamma, beta, EPSILON, 32)
    assert floor == pytest.approx(independent * (4 if correlated else 1), rel=0.4 if correlated else 0.1)


def test_local_floor_falls_with_samples() -> None:
    """Near 1.5 / N where epsilon and beta are small; one sample tells nothing."""
    one = np.ones(4)
    assert metrics.local_floor(one, None, None, 0.0, 1001) == pytest.approx(1.5e-3, rel=1e-2)
    assert metrics.local_floor(one, None, None, 1e-3, 1) == math.inf


def test_softmax_drift() -> None:
    """0 for equal and for shifted logits, 1 for certain and opposite ones, NaN for NaN."""
    a = np.random.default_rng(0).normal(size=(6, 4))
    assert metrics.softmax_drift(a, a + 7) == pytest.approx(0, abs=1e-12)
    sure = np.array([[1e3, 0.0], [1e3, 0.0]])
    assert metrics.softmax_drift(sure, sure[:, ::-1]) == pytest.approx(1)
    assert metrics.softmax_drift(np.array([[0.0, 0.0]]), np.array([[math.log(3), 0.0]])) == pytest.approx(0.25)
    chances = np.array([[0.5, 0.5], [1.0, 0.0]])
    assert metrics.softmax_drift(chances, chances[:, ::-1]) == pytest.approx(0.5)
    assert math.isnan(metrics.softmax_drift(a, np.full_like(a, math.nan)))


def test_agreement_and_accuracy() -> None:
    """Counted over samples; the same samples in another order give the same; NaN rows count as wrong."""
    a = np.array([[1.0, 0], [0, 1], [1, 0], [0, 1]])
    b = np.array([[2.0, 0], [0, 1], [0, 1], [math.nan, 1]])
    assert metrics.agreement(a, b) == 0.5
    assert metrics.agreement(a[::-1], b[::-1]) == 0.5
    assert metrics.top1(a, np.array([0, 1, 1, 1])) == 0.75
    assert metrics.top1(b, np.array([0, 1, 1, 1])) == 0.75
    assert metrics.agreement(np.full_like(a, math.nan), np.full_like(a, math.nan)) == 0
    assert math.isnan(metrics.agreement(a[:0], b[:0]))


def test_lost_confidence_is_what_the_other_class_costs() -> None:
    """Nothing where both name one class, the margin where they do not, the mean of both directions."""
    a, b = np.array([[0.9, 0.1], [0.6, 0.4]]), np.array([[0.7, 0.3], [0.1, 0.9]])
    assert metrics.lost_confidence(a, a).sum() == 0.0
    assert metrics.lost_confidence(a, b).sum() == pytest.approx(((0.6 - 0.4) + (0.9 - 0.1)) / 2)
