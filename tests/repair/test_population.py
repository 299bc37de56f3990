"""Population statistics: the same for any split, pooled over sites, stopped when they stand still."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from bncheck.facts.errors import UsageError
from bncheck.numerics.moments import of
from bncheck.repair.population import PooledMoments, population

Array = np.ndarray[Any, Any]


class Sites:
    """A model whose sites see the data themselves, shifted by their number."""

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = layers
        self.runs = 0

    def run(self, batch: Array) -> PooledMoments:
        """Moments of each site's input."""
        self.runs += 1
        found = [of(batch + number) for number in range(len(self.layers))]
        return PooledMoments(
            samples=[m.count for m in found], means=[m.mean for m in found], variances=[m.variance for m in found]
        )


def batches(samples: Array, size: int) -> Iterator[tuple[Array, None]]:
    """In order, the last one smaller."""
    for start in range(0, len(samples), size):
        yield samples[start : start + size], None


@pytest.mark.parametrize("size", [2, 4, 8, 16, 32, 64, 7, 100])
def test_any_split_gives_the_same(size: int) -> None:
    """Means of 1e4 with deviation 1 included: 1e-9 relative (METRICS, known answers)."""
    samples = np.random.default_rng(1).normal(1e4, 1.0, (200, 3))
    found = population(Sites(["bn"]), batches(samples, size), tolerance=0)
    np.testing.assert_allclose(found.moments["bn"].mean, samples.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.moments["bn"].variance, samples.var(0), rtol=1e-9)
    assert (found.samples, found.converged) == (200, False)


def test_sites_of_one_layer_are_pooled() -> None:
    """A layer used twice stores what both sites see together: here the same samples, the second shifted by 1."""
    samples = np.random.default_rng(2).normal(0.0, 1.0, (64, 3))
    found = population(Sites(["shared", "shared"]), batches(samples, 8), tolerance=0)
    both = np.concatenate([samples, samples + 1])
    np.testing.assert_allclose(found.moments["shared"].mean, both.mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.moments["shared"].variance, both.var(0), rtol=1e-9)


def test_it_stops_when_nothing_changes() -> None:
    """Equal batches stand still at once: the first sets the statistics, five more confirm them."""
    model = Sites(["bn"])
    found = population(model, ((np.arange(12.0).reshape(4, 3), None) for _ in range(100)))
    assert found.converged
    assert model.runs == found.batches == 6


def test_it_goes_on_while_something_changes() -> None:
    """Noise of 4 samples a batch needs more than the 40 batches there are; the change that is left is told."""
    samples = np.random.default_rng(3).normal(0.0, 1.0, (160, 3))
    found = population(Sites(["bn"]), batches(samples, 4))
    assert not found.converged
    assert found.batches == 40
    assert 1e-3 < found.change < 0.1


def test_progress_hears_of_every_batch() -> None:
    """Samples done, after each batch."""
    heard: list[int] = []
    population(Sites(["bn"]), batches(np.random.default_rng(4).normal(size=(20, 2)), 8), progress=heard.append)
    assert heard == [8, 16, 20]


def test_dead_channels_do_not_hold_it_up() -> None:
    """A channel without any variance changes nothing, and is no division by zero."""
    samples = np.zeros((400, 2))
    samples[:, 1] = np.tile([-1.0, 1.0], 200)
    found = population(Sites(["bn"]), batches(samples, 4))
    assert found.converged
    assert found.moments["bn"].variance.tolist() == [0.0, 1.0]


def test_nan_is_kept_and_never_converges() -> None:
    """One NaN makes the channel's statistics NaN, which is then refused, not averaged away."""
    samples = np.random.default_rng(5).normal(size=(80, 2))
    samples[3, 0] = np.nan
    found = population(Sites(["bn"]), batches(samples, 8))
    assert np.isnan(found.moments["bn"].mean[0])
    assert np.isfinite(found.moments["bn"].mean[1])


def test_no_data_and_batches_of_one_value_are_refused() -> None:
    """A dense layer's batch norm has no variance in a batch of one."""
    with pytest.raises(UsageError, match="no samples"):
        population(Sites(["bn"]), iter(()))
    with pytest.raises(UsageError, match="larger --batch-size"):
        population(Sites(["bn"]), batches(np.ones((4, 2)), 1))
