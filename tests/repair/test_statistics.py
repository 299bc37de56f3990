"""The formulas of repair: averages made as training makes them are undone, what cannot be known is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncheck.facts.layers import Debias, Layer, Presence, Vector
from bncheck.numerics.moments import Moments, from_batch, merge_all, of
from bncheck.repair.statistics import MAX_STORAGE_ERROR, Refused, debiased, reestimated
from bncheck.testing import batch_norm, updates


def averaged(values: np.ndarray[Any, Any], start: float, decay: float) -> np.ndarray[Any, Any]:
    """A moving average as TensorFlow's float32 kernel keeps it: `v -= (v - batch) * (1 - decay)`, batch by batch."""
    average = np.full(values.shape[1], start, np.float32)
    rate = np.float32(1.0 - decay)
    for batch in values.astype(np.float32):
        average -= (average - batch) * rate
    return average


def trained(
    decay: float, steps: int, *, channels: int = 64
) -> tuple[Layer, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A layer after so many updates from batches of constant moments, and these."""
    random = np.random.default_rng(steps)
    mean, variance = random.normal(0.0, 2.0, channels), random.uniform(0.005, 3.0, channels)
    layer = batch_norm(
        "bn",
        channels=channels,
        mean=averaged(np.tile(mean, (steps, 1)), 0.0, decay),
        variance=averaged(np.tile(variance, (steps, 1)), 1.0, decay),
        decay=decay,
    )
    return layer, mean, variance


@pytest.mark.parametrize(
    ("decay", "steps"), [(0.9, 5), (0.99, 30), (0.99, 300), (0.997, 100), (0.9997, 300), (0.9997, 30)]
)
def test_what_training_averaged_is_undone(decay: float, steps: int) -> None:
    """Mean and variance of the batches come back, within what float32 left of them, at shares from 4 to 99 %."""
    layer, mean, variance = trained(decay, steps)
    found = debiased(layer, steps=steps)
    assert found is not None
    assert found.share == pytest.approx(decay**steps)
    error = 2.0**-23 * min(steps, 1 / (1 - decay)) / (1 - decay**steps)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6, atol=8 * error)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-6, atol=error)
    assert found.clipped == 0


def test_a_dead_channel_is_set_to_0_and_counted() -> None:
    """A channel that never varied holds decay**n; undone it is 0 but for rounding, and never below."""
    moments = np.zeros((300, 4))
    layer = batch_norm(
        "bn", mean=averaged(moments + 1.0, 0.0, 0.9997), variance=averaged(moments, 1.0, 0.9997), decay=0.9997
    )
    assert layer.variance.values is not None
    below = replace(layer, variance=replace(layer.variance, values=layer.variance.values - 2e-6))
    found = debiased(below, steps=300)
    assert found is not None
    assert found.variance.tolist() == [0.0] * 4
    assert found.clipped == 4


@given(share_of=st.floats(0.1, 0.9), start=st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_any_initial_value_is_undone(share_of: float, start: float) -> None:
    """`(v - s v0) / (1 - s)` inverts `s v0 + (1 - s) t`, for variances and means that start anywhere."""
    truth = np.array([0.5, 1.5, 3.0])
    mixed = share_of * start + (1 - share_of) * truth
    layer = batch_norm("bn", mean=mixed, variance=mixed, decay=share_of)
    layer = replace(layer, mean=replace(layer.mean, initial=start), variance=replace(layer.variance, initial=start))
    found = debiased(layer, steps=1)
    assert found is not None
    np.testing.assert_allclose(found.mean, truth, rtol=1e-9)
    np.testing.assert_allclose(found.variance, truth, rtol=1e-9)


def test_what_training_debiased_itself_stays() -> None:
    """With zero-debias of the mean (TF-slim's option) only the variance is undone."""
    layer, mean, variance = trained(0.99, 100)
    half = replace(layer, mean=replace(layer.mean, values=mean), debias=Debias(mean=True, variance=False))
    found = debiased(half, steps=100)
    assert found is not None
    assert np.array_equal(found.mean, mean)
    np.testing.assert_allclose(found.variance, variance, atol=1e-5)


def test_updates_of_several_in_a_step_all_count() -> None:
    """A layer that the train op updates twice a step has half the run length to be undone in."""
    layer, mean, _ = trained(0.99, 100)
    twice = replace(layer, updates=(*updates("bn", train_ops=("Adam",)), *updates("bn", train_ops=("Adam",))))
    found = debiased(twice, steps=50)
    assert found is not None
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4, atol=1e-5)


def test_nothing_left_is_nothing_to_do() -> None:
    """After 300 updates with decay 0.9 the initial share is 2e-14."""
    layer, _, _ = trained(0.9, 300)
    assert debiased(layer, steps=300) is None


def unread(vector: Vector) -> Vector:
    """The vector without its values."""
    return replace(
        vector, presence=Presence.UNREAD, values=None, constant_checked=False, reason="its data file is absent"
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: batch_norm("bn", mean=0.0, variance=[0.9, 0.95], decay=0.99), "moving mean never moved"),
        (lambda _: batch_norm("bn", mean=[0.1, 0.2], variance=1.0, decay=0.99), "moving variance never moved"),
        (lambda _: batch_norm("bn", mean=[0.1, np.nan], variance=[0.9, 0.95], decay=0.99), "NaN"),
        (lambda layer: replace(layer, variance=unread(layer.variance)), "unread: its data file is absent"),
        (lambda layer: replace(layer, updates=tuple(replace(u, decay_rises=True) for u in updates("bn"))), "rises"),
        (lambda layer: replace(layer, variance=replace(layer.variance, dtype="float16")), "mostly rounding"),
        (lambda layer: replace(layer, variance=replace(layer.variance, dtype="bfloat16")), "mostly rounding"),
    ],
)
def test_what_cannot_be_known_is_refused(change: Any, reason: str) -> None:
    """Each with its reason: never moved, not finite, not at hand, a decay that rises, too coarse a type."""
    layer, _, _ = trained(0.99, 100)
    with pytest.raises(Refused, match=reason):
        debiased(change(layer), steps=100)


@pytest.mark.parametrize(
    ("decay", "steps", "reason"),
    [
        (None, 100, "give --decay"),
        (0.99, None, "give --steps"),
        (1.0, 100, "not an average"),
        (0.99, 0, "0 times"),
        (0.999999, 100, "mostly rounding"),
        (0.99, 50, "more updates went in.*from --steps 9"),
    ],
)
def test_counts_that_are_lacking_or_wrong_are_refused(decay: float | None, steps: int | None, reason: str) -> None:
    """Unknown, impossible, too short for float32, and ruled out by the stored values."""
    layer, _, _ = trained(0.99, 100)
    with pytest.raises(Refused, match=reason):
        debiased(replace(layer, decay=decay), steps=steps)


def test_the_limit_is_where_rounding_reaches_it() -> None:
    """float32: refused below 1 - d**n = 0.0012, taken above."""
    least = 2.0**-23 / MAX_STORAGE_ERROR
    layer, mean, _ = trained(1 - 1.1 * least, 1)
    found = debiased(layer, steps=1)
    assert found is not None
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    layer, _, _ = trained(1 - 0.9 * least, 1)
    with pytest.raises(Refused, match="mostly rounding"):
        debiased(layer, steps=1)


def test_population_statistics_are_those_of_all_samples() -> None:
    """Mean and biased variance over everything, `mean of variances + variance of means`, not a mean of variances."""
    samples = np.random.default_rng(0).normal(5.0, 2.0, (640, 8))
    batches = [of(part) for part in np.split(samples, 20)]
    found = reestimated("bn", merge_all(batches))
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.variance, samples.var(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("moments", "reason"),
    [
        (Moments(count=1, mean=np.zeros(2), m2=np.zeros(2)), "1 value per channel"),
        (from_batch(10, np.array([0.0, np.nan]), np.ones(2)), "NaN or infinity reaches it"),
        (from_batch(10, np.zeros(2), np.array([1.0, np.inf])), "NaN or infinity reaches it"),
    ],
)
def test_moments_of_nothing_or_nan_are_refused(moments: Moments, reason: str) -> None:
    """They would be written as statistics that no one can use."""
    with pytest.raises(Refused, match=reason):
        reestimated("bn", moments)
