"""Folded ranges of a layer's channels: what dead ones do to the living, and what is left where none lives."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.facts.layers import Layer, Linear
from bncheck.facts.record import replace
from bncheck.numerics.channel_ranges import folded_ranges, levels
from bncheck.numerics.fold import fold_scale
from bncheck.numerics.fold_forecast import forecast
from bncheck.rules.quantization.bn403_per_tensor_range_collapse import check as collapse
from bncheck.rules.quantization.bn404_dead_channel_fold_scale import check as dead_scale
from bncheck.rules.statistics.bn107_dead_channels import check as dead_channels
from bncheck.testing import batch_norm, facts, unread


@pytest.mark.parametrize(("epsilon", "ratio", "left"), [(1e-3, 32, 8.0), (1e-5, 316, 0.8)])
def test_fold_scale_of_a_dead_channel(epsilon: float, ratio: float, left: float) -> None:
    """Variance 1e-8 beside 1: 32-fold at epsilon 1e-3 (8 of 255 levels left), 316-fold at 1e-5 (none)."""
    ranges = folded_ranges(batch_norm("bn", variance=[1e-8, 1.0, 1.0, 1.0], epsilon=epsilon))
    assert ranges is not None
    assert ranges.dead_ratio == pytest.approx(ratio, rel=0.02)
    assert 2 * levels(ranges.dead_ratio) == pytest.approx(left, abs=0.15)


def test_fold_scale_without_its_parts() -> None:
    """No scale where gamma or variance is unread, or variance + epsilon not positive; an absent gamma counts as 1."""
    assert fold_scale(unread(batch_norm("bn"))) is None
    assert fold_scale(batch_norm("bn", epsilon=None)) is None
    assert fold_scale(batch_norm("bn", variance=[-1.0, 1.0, 1.0, 1.0])) is None
    assert fold_scale(batch_norm("bn", variance=float("nan"))) is None
    scale = fold_scale(batch_norm("bn", gamma=None, variance=1.0, epsilon=0.0))
    assert scale is not None
    assert scale.tolist() == [1.0] * 4


def test_an_infinite_scale_of_a_weight_that_is_zero_tells_nothing() -> None:
    """Nor does it warn, which would end a command that runs with warnings as errors."""
    kernel = Linear(name="conv", op="Conv2D", kernel="w", channel_max=np.array([0.0, 1.0]))
    layer = batch_norm("bn", gamma=[1e308, 1.0], variance=[0.0, 1.0], channels=2, epsilon=1e-300)
    assert folded_ranges(replace(layer, linear=kernel)) is None


def test_kernel_of_other_length_is_left_out() -> None:
    """A kernel that does not fit the channels does not enter the ranges."""
    kernel = Linear(name="conv", op="Conv2D", kernel="w", channel_max=np.ones(3))
    ranges = folded_ranges(batch_norm("bn", linear=kernel))
    assert ranges is not None
    assert not ranges.with_kernel


def kernel(largest: float | list[float], channels: int = 4) -> Linear:
    """A convolution with normal weights of these largest sizes."""
    sizes = np.broadcast_to(np.asarray(largest, np.float64), (channels,))
    return Linear(
        name="conv",
        op="Conv2D",
        kernel="conv/weights",
        channel_max=sizes,
        channel_rms=sizes / 3,
        channel_mean=sizes / 3 * np.sqrt(2 / np.pi),
    )


WITHOUT_A_LIVING_CHANNEL = {
    "every variance at float32's floor": batch_norm("dead", mean=0.5, variance=1.07e-37, linear=kernel(0.3)),
    "every variance 0": batch_norm("dead", mean=0.5, variance=0.0, linear=kernel(0.3)),
    "every gamma 0": batch_norm("dead", gamma=0.0, linear=kernel(0.3)),
    "every weight 0": batch_norm("dead", linear=kernel(0.0)),
    "one channel, dead": batch_norm("dead", mean=0.5, variance=0.0, channels=1, linear=kernel(0.3, 1)),
    "weights of the dead channels alone": batch_norm(
        "dead", variance=[0.0, 0.0, 1.0, 2.0], linear=kernel([0.3, 0.2, 0.0, 0.0])
    ),
    "gamma of the dead channels alone": batch_norm(
        "dead", variance=[0.0, 0.0, 1.0, 2.0], gamma=[1.0, 1.0, 0.0, 0.0], linear=kernel(0.3)
    ),
}


@pytest.mark.parametrize("case", WITHOUT_A_LIVING_CHANNEL)
@pytest.mark.parametrize("beside", [[0.3, 0.3, 0.3, 0.3], [0.01, 0.01, 0.01, 1.0]])
def test_a_layer_without_a_living_channel(case: str, beside: list[float]) -> None:
    """It has no ranges to spread and nothing to lose; a layer beside it is judged as it is without it."""
    layer, other = WITHOUT_A_LIVING_CHANNEL[case], batch_norm("other", linear=kernel(beside))
    ranges = folded_ranges(layer)
    assert ranges is not None
    assert ranges.alive_spread == 0.0
    assert ranges.dead_ratio == 0.0
    assert forecast(layer) is None
    assert list(dead_scale.check(facts(layer, other))) == []
    alone, both = (list(collapse.check(facts(*layers))) for layers in ((other,), (layer, other)))
    assert [e.layers for e in both] == [e.layers for e in alone]
    assert [e.measurements for e in both] == [e.measurements for e in alone]


def test_one_living_channel() -> None:
    """It is the largest and the median: 128 levels, no warning."""
    layer = batch_norm("bn", channels=1, linear=kernel(0.3, 1))
    ranges = folded_ranges(layer)
    assert ranges is not None
    assert ranges.alive_spread == 1.0
    assert levels(ranges.alive_spread) == 128
    assert forecast(layer) is not None
    assert list(collapse.check(facts(layer))) == []


@pytest.mark.parametrize("variance", [1.07e-37, 0.0])
def test_a_dead_layer_is_named_for_what_it_is(variance: float) -> None:
    """BN107 names it."""
    layer: Layer = batch_norm("dead", mean=0.5, variance=variance, linear=kernel(0.3))
    (found,) = dead_channels.check(facts(layer, batch_norm("other")))
    assert found.layers == ("dead",)
