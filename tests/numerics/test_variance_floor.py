"""The floor of the variances: where it lies, whether others crowd above it, whether layers share it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.numerics.variance_floor import MANY_CHANNELS, expected_at, variance_floor
from bncheck.testing import batch_norm


def _layers(*ranges: tuple[float, float], channels: int = MANY_CHANNELS) -> list[Layer]:
    spread = (np.linspace(low, high, channels) for low, high in ranges)
    return [batch_norm(f"bn{n}", variance=values, channels=channels) for n, values in enumerate(spread)]


@pytest.mark.parametrize(
    ("layers", "crowded", "shared"),
    [
        (_layers((0.91, 1.1), (0.91, 1.2), (0.915, 1.3)), True, True),
        (_layers((0.91, 1.1), (0.91, 1.2)), True, False),
        (_layers((0.91, 1.1), (1.2, 1.3), (1.3, 1.4)), True, False),
        (_layers((0.91, 90.0), (0.91, 90.0), (0.91, 90.0)), False, False),
        (_layers((0.91, 0.92), (0.91, 0.92), (0.91, 0.92), channels=8), False, False),
        (_layers((0.91, 0.95), *[(0.98, 1.1)] * 15), True, False),
        (_layers(*[(0.91, 0.96)] * 3, *[(0.98, 1.1)] * 13), True, True),
        (_layers(*[(0.91, 0.915)] * 3, *[(1.8, 2.0)] * 6), True, True),
        (_layers(*[(0.91, 0.915)] * 2, *[(1.8, 2.0)] * 6), True, False),
    ],
    ids=[
        "three layers",
        "two layers",
        "one lies lower",
        "spread out",
        "few channels",
        "one of many lies lower",
        "many layers",
        "three layers at one number",
        "two layers at one number",
    ],
)
def test_floor(layers: list[Layer], *, crowded: bool, shared: bool) -> None:
    """Three layers and 64 channels are asked for, all just above one value."""
    floor = variance_floor(layers)
    assert floor is not None
    assert (floor.bound, floor.crowded, floor.shared) == (pytest.approx(0.91), crowded, shared)


def test_nothing_read() -> None:
    """Without values there is no floor."""
    assert variance_floor([]) is None
    assert variance_floor([batch_norm("bn", variance=None)]) is None


def test_what_the_weights_expect_at_a_floor() -> None:
    """Channels at 0.2 although their weights predict 0.01, a tenth of what is usual; of too few nothing is said."""
    low = Predicted(mean=np.zeros(160), variance=np.concatenate([np.full(80, 0.01), np.full(80, 0.5)]))
    stored = np.concatenate([np.linspace(0.2, 0.22, 80), np.full(80, 1.0)])
    layers = [batch_norm("bn", variance=stored, channels=160, predicted=low)]
    found = expected_at(layers, 0.2)
    assert found is not None
    assert 0.09 < found < 0.102
    assert expected_at([replace(layers[0], predicted=None)], 0.2) is None
    assert expected_at(layers, 0.1) is None


def test_a_factor_that_all_channels_share_is_no_floor() -> None:
    """Stored variances of ten times the predicted ones, as behind images whose channels vary together."""
    stored = np.exp(np.random.default_rng(0).uniform(np.log(0.2), np.log(2), 400))
    told = Predicted(mean=np.zeros(400), variance=stored / 10)
    found = expected_at([batch_norm("bn", variance=stored, channels=400, predicted=told)], 0.2)
    assert found is None or found > 0.9
