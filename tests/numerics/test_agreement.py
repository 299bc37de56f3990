"""Stored means against those that weights predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.numerics.agreement import agreement
from bncheck.testing import batch_norm

MEANS = np.random.default_rng(0).normal(size=40)


def layer(stored: np.ndarray, *, variance: float | np.ndarray = 1.0) -> Layer:
    """A layer of which the weights predict `MEANS`, with deviation 1."""
    predicted = Predicted(mean=MEANS, variance=np.ones(40))
    return batch_norm("bn", mean=stored, variance=variance, channels=40, predicted=predicted)


def test_the_same_means() -> None:
    """Correlate by 1, have no error, and lie above what healthy layers reach."""
    found = agreement(layer(MEANS))
    assert found is not None
    assert (found.channels, found.correlation) == (40, pytest.approx(1))
    assert found.error == 0
    assert found.sigmas < 0


def test_a_share_of_the_initial_mean_is_no_other_order() -> None:
    """Means that are still 20 % zero correlate as before."""
    found = agreement(layer(0.8 * MEANS))
    assert found is not None
    assert found.correlation == pytest.approx(1)


def test_another_order() -> None:
    """No correlation, by many standard errors."""
    found = agreement(layer(np.random.default_rng(1).permutation(MEANS)))
    assert found is not None
    assert found.sigmas > 5
    assert found.error > 0.5


def test_constant_means_do_not_correlate() -> None:
    """0 in all channels, as where they never moved."""
    found = agreement(layer(np.zeros(40)))
    assert found is not None
    assert found.correlation == 0


def test_dead_channels_do_not_count() -> None:
    """Whatever mean they store."""
    variance = np.ones(40)
    variance[:10] = 0
    stored = np.where(np.arange(40) < 10, 1e3, MEANS)
    found = agreement(layer(stored, variance=variance))
    assert found is not None
    assert found.channels == 30
    assert found.error == pytest.approx(0)


def test_nothing_is_said_of_little() -> None:
    """Without a prediction, of three channels, of other sizes, of NaN, where nothing differs between channels."""
    healthy = layer(MEANS)
    assert agreement(replace(healthy, predicted=None)) is None
    three = Predicted(mean=MEANS[:3], variance=np.ones(3))
    assert agreement(batch_norm("bn", mean=MEANS[:3], variance=1.0, channels=3, predicted=three)) is None
    assert agreement(replace(healthy, predicted=three)) is None
    assert agreement(layer(np.full(40, np.nan))) is None
    assert agreement(replace(healthy, predicted=Predicted(mean=np.ones(40), variance=np.ones(40)))) is None


def test_what_was_fitted_counts_less() -> None:
    """Three numbers fitted to seven channels leave four; to six too few."""
    seven = Predicted(mean=MEANS[:7], variance=np.ones(7), fitted=3)
    found = agreement(batch_norm("bn", mean=MEANS[:7] + 0.1, variance=1.0, channels=7, predicted=seven))
    assert found is not None
    assert found.error == pytest.approx(0.1 * np.sqrt(7 / 4))
    six = replace(seven, mean=MEANS[:6], variance=np.ones(6))
    assert agreement(batch_norm("bn", mean=MEANS[:6], variance=1.0, channels=6, predicted=six)) is None
