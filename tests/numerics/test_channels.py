"""What rules ask of a layer's statistics: dead channels and their floor, what moved, what was trained."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Role, RunFacts
from bncheck.numerics.channels import (
    OBJECT_GRAPH,
    dead,
    dead_channels,
    keras_made,
    median,
    medians_of_rows,
    never_moved,
    trained,
)
from bncheck.rules.statistics.bn107_dead_channels import floor_decay
from bncheck.testing import batch_norm, facts, unread, untouched, vector


@pytest.mark.parametrize(
    ("variance", "decay"),
    [(1.164e-36, 0.99), (3.908e-36, 0.997), (3.917e-35, 0.9997), (1.1664104391324957e-36, 0.99), (1.1755e-37, 0.9)],
)
def test_floor_tells_the_decay(variance: float, decay: float) -> None:
    """A channel long dead stands at FLT_MIN / (1 - decay)."""
    assert floor_decay(variance) == decay


def test_floor_as_float32_computes_it() -> None:
    """Ten thousand updates of a constant channel in float32, subnormals flushed, end where the decay is told."""
    tiny, step = np.finfo(np.float32).tiny, np.float32(1 - 0.997)
    value = np.float32(1)
    for _ in range(40_000):
        change = value * step
        value = value - (change if change >= tiny else np.float32(0))
    assert floor_decay(float(value)) == 0.997


def test_no_floor() -> None:
    """Other small numbers tell no decay, but that of the layer is tried as well."""
    assert floor_decay(1e-15) is None
    assert floor_decay(5e-36) is None
    assert floor_decay(1.1755e-38 / (1 - 0.9977), 0.9977) == 0.9977


@pytest.mark.parametrize(
    ("variance", "epsilon", "expected"),
    [
        ([9.9e-6, 1.0], 1e-3, [True, False]),
        ([1.01e-5, 1.0], 1e-3, [False, False]),
        ([9.9e-6, 1.0], 1e-6, [False, False]),
        ([9.9e-6, 9.8e-3], 1e-3, [False, False]),
        ([9.9e-6, 1.0e-2], 1e-3, [True, False]),
        ([0.0, 0.0], 1e-3, [True, True]),
        ([9e-13, 9e-13], None, [True, True]),
        ([2e-12, 2e-12], None, [False, False]),
        ([-1e-9, 1.0], 1e-3, [False, False]),
        ([float("nan"), 1e-6], 1e-3, [False, False]),
    ],
)
def test_dead(variance: list[float], epsilon: float | None, expected: list[bool]) -> None:
    """Dead is below 1e-5, epsilon and a thousandth of the largest, or below 1e-12; negative, NaN: other faults."""
    assert dead(np.array(variance), epsilon).tolist() == expected


def test_dead_needs_values_that_moved() -> None:
    """Averages that start at 0 and never moved are not dead but untouched."""
    layer = batch_norm("bn", variance=0.0)
    assert dead_channels(layer).all()
    assert not dead_channels(replace(layer, variance=vector(Role.VARIANCE, 0.0, initial=0.0))).any()
    assert dead_channels(unread(layer)).size == 0


def test_moved_and_trained() -> None:
    """Both statistics must be decided to call a layer untouched; beta tells training before gamma does."""
    assert never_moved(untouched("bn")) is True
    assert never_moved(batch_norm("bn", mean=0.0)) is False
    assert never_moved(unread(untouched("bn"))) is None
    assert never_moved(batch_norm("bn", mean=None, variance=None)) is None
    assert trained(batch_norm("bn", gamma=[1.01, 0.98, 1.02, 1.0], beta=0.0)) is False
    assert trained(batch_norm("bn", beta=None)) is True
    assert trained(batch_norm("bn", gamma=None, beta=None)) is None


@pytest.mark.parametrize("keys", [{"bn/gamma"}, {"m/bn/gamma/.ATTRIBUTES/VARIABLE_VALUE", OBJECT_GRAPH}])
def test_remedies_are_those_of_tf2(keys: set[str]) -> None:
    """A SavedModel with an object graph was made by TF2, though its layers were found in a graph."""
    model = facts(batch_norm("bn"), run=RunFacts(values=True, keys=frozenset(keys)))
    assert keras_made(model) is (OBJECT_GRAPH in keys)


@pytest.mark.parametrize("columns", [1, 2, 7, 8])
def test_medians_of_rows(columns: int) -> None:
    """Those of each row by itself, where one holds NaN or infinity too."""
    rows = np.random.default_rng(0).normal(size=(5, columns))
    rows[1, 0], rows[2, -1], rows[3] = np.nan, np.inf, np.inf
    assert np.array_equal(medians_of_rows(rows), [median(row) for row in rows], equal_nan=True)
