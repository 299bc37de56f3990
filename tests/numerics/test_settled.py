"""How settled an estimate is, by its halves: known answers, and that more samples settle it."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.numerics.moments import of
from bncheck.numerics.settled import expected_error, expected_loss, noise, samples_needed


def test_halves_that_agree_settle_only_with_enough_samples() -> None:
    """All of 64 samples alike is settled; all of 8 is luck, however often they are cut."""
    assert expected_loss(0.0, 0.0, samples=64, splits=1) < 0.05
    assert expected_loss(0.0, 0.0, samples=16, splits=8) < 0.05 < expected_loss(0.0, 0.0, samples=8, splits=8)


def test_standard_errors_are_added() -> None:
    """With many samples nothing but the loss is left."""
    assert expected_loss(0.1, 0.0, samples=10**8, splits=1) == pytest.approx(0.1, abs=1e-4)
    assert expected_loss(0.03, 0.02, samples=10**8, splits=1) == pytest.approx(0.06)
    assert expected_loss(1.0, 0.5, samples=2, splits=1) == 1.0


def test_error_is_a_quarter() -> None:
    """Distances halve, squares quarter."""
    assert expected_error(0.04) == pytest.approx(0.01)


def test_needed_samples_grow_with_the_square() -> None:
    """Twice as far off takes four times as many; what is settled takes no more."""
    assert samples_needed(16, 0.1, 0.05) == 64
    assert samples_needed(16, 0.01, 0.05) == 16


def test_noise_is_that_of_the_means() -> None:
    """Halves of n normal values: a mean of all 2n is off by 1 / sqrt(2n), a log variance by sqrt(2 / 2n)."""
    random = np.random.default_rng(0)
    one, other = (of(random.normal(size=(200, 2000))) for _ in range(2))
    mean, log_variance = noise({"bn": one}, {"bn": other})["bn"]
    assert mean == pytest.approx(1 / np.sqrt(400), rel=0.1)
    assert log_variance == pytest.approx(np.sqrt(2 / 400), rel=0.1)


def test_dead_channels_have_no_noise() -> None:
    """A channel without a spread tells nothing."""
    dead = of(np.zeros((4, 3)))
    assert noise({"bn": dead}, {"bn": dead}) == {"bn": (0.0, 0.0)}
