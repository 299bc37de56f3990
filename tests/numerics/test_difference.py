"""How far two models' layers differ."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Layer
from bncheck.numerics.difference import fold_error, matched_layers
from bncheck.testing import batch_norm

RNG = np.random.default_rng(5)


def test_fold_error_is_what_inputs_show() -> None:
    """The formula against a million normal inputs, each channel its own."""
    old, new = (
        _layer("a", mean, variance, gamma, beta)
        for mean, variance, gamma, beta in (
            ([0.1, -2.0], [1.0, 0.3], [1.0, 0.5], [0.0, 0.2]),
            ([0.3, -1.0], [2.0, 0.5], [1.1, 0.4], [0.1, 0.2]),
        )
    )
    inputs = RNG.normal([0.3, -1.0], np.sqrt([2.0, 0.5]), (1_000_000, 2))
    wrong, right = _normalised(old, inputs), _normalised(new, inputs)
    assert fold_error(old, new) == pytest.approx(((wrong - right) ** 2).sum() / (right**2).sum(), rel=0.01)
    assert fold_error(new, new) == 0.0


def test_what_changed() -> None:
    """Roles, the shift in old deviations, the ratio of variances."""
    old = _layer("a", [0.0, 0.0], [4.0, 4.0], [1.0, 1.0], [0.0, 0.0])
    new = _layer("a", [2.0, 2.0], [16.0, 16.0], [1.0, 1.0], [0.0, 0.0])
    (found,) = matched_layers([old], [new]).both
    assert found.changed == ("mean", "variance")
    assert found.mean_shift == pytest.approx(1.0, rel=1e-3)
    assert found.variance_ratio == pytest.approx(4.0, rel=1e-3)


def test_unread_is_not_the_same() -> None:
    """Values that were not read are neither equal nor different; those that cannot be compared give no number."""
    old = _layer("a", [0.0], [4.0], [1.0], [0.0])
    new = replace(old, mean=replace(old.mean, values=None, constant=None))
    (found,) = matched_layers([old], [new]).both
    assert found.unread == ("mean",)
    assert found.changed == ()
    assert (found.mean_shift, found.fold_error) == (None, None)
    broken = _layer("a", [math.nan], [4.0], [1.0], [0.0])
    (found,) = matched_layers([old], [broken]).both
    assert found.changed == ("mean",)
    assert found.fold_error is not None
    assert math.isnan(found.fold_error)


def test_matching() -> None:
    """By name; by position only where no name is in both and the channels agree."""
    a, b, c = (_layer(name, [0.0] * n, [1.0] * n, [1.0] * n, [0.0] * n) for name, n in (("a", 1), ("b", 1), ("c", 2)))
    found = matched_layers([a, c], [c, b])
    assert [one.layer for one in found.both] == ["c"]
    assert (found.only_old, found.only_new, found.by_position) == (("a",), ("b",), False)
    assert matched_layers([a], [b]).by_position
    assert not matched_layers([a], [c]).both
    assert not matched_layers([], []).by_position


def _layer(name: str, mean: list[float], variance: list[float], gamma: list[float], beta: list[float]) -> Layer:
    numbers = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta}
    return batch_norm(name, channels=len(mean), **{key: np.array(value) for key, value in numbers.items()})


def _normalised(layer: Layer, inputs: np.ndarray) -> np.ndarray:
    mean, variance, gamma, beta = (np.asarray(v.values) for v in (layer.mean, layer.variance, layer.gamma, layer.beta))
    return (inputs - mean) / np.sqrt(variance + 1e-3) * gamma + beta
