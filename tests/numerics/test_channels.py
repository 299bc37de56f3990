"""What rules share: dead channels, init shares, folded ranges, and their known answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Debias, Linear, Role, RunFacts
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.channel_ranges import folded_ranges, levels
from bncheck.numerics.channels import OBJECT_GRAPH, dead, dead_channels, keras_made, never_moved, trained
from bncheck.numerics.fold_forecast import fold_scale
from bncheck.numerics.init_share import counted_share, init_shares, share_bound, shrink
from bncheck.rules.statistics.bn107_dead_channels import floor_decay
from bncheck.testing import batch_norm, facts, unread, untouched, updates, vector


def run(count: int) -> RunFacts:
    """A run of `count` updates."""
    return RunFacts(values=True, updates=count, global_step=count)


@pytest.mark.parametrize(
    ("decay", "count", "share", "said"),
    [
        (0.9997, 300, 0.914, "91.4 %"),
        (0.99, 300, 0.049, "4.9 %"),
        (0.997, 10, 0.97, "97.0 %"),
        (0.997, 100, 0.74, "74.0 %"),
        (0.997, 1000, 0.05, "5.0 %"),
        (0.999, 1000, 0.368, "36.8 %"),
    ],
)
def test_known_shares(decay: float, count: int, share: float, said: str) -> None:
    """decay**n gives the published shares, printed with one decimal."""
    found = counted_share(batch_norm("bn", decay=decay), run(count))
    assert found == pytest.approx(share, abs=6e-4)
    assert percent(found or 0.0) == said


def test_share_is_unknown_without_decay_or_count() -> None:
    """Unknown is None, not zero; a debiased variance keeps nothing."""
    assert counted_share(batch_norm("bn"), run(300)) is None
    assert counted_share(batch_norm("bn", decay=0.99), RunFacts(values=True)) is None
    assert counted_share(batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=True)), run(3)) == 0.0
    assert counted_share(batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=False)), run(1)) == 0.99


def test_two_updates_a_step_count_twice() -> None:
    """A layer that one train op updates from two towers ages twice as fast; two train ops do not add up."""
    twice = (*updates("bn", train_ops=("Adam",)), *updates("bn", train_ops=("Adam",)))
    apart = (*updates("bn", train_ops=("d",)), *updates("bn", train_ops=("g",)))
    assert counted_share(batch_norm("bn", decay=0.99, updates=twice), run(150)) == pytest.approx(0.99**300)
    assert counted_share(batch_norm("bn", decay=0.99, updates=apart), run(150)) == pytest.approx(0.99**150)


def test_contribution_of_the_story() -> None:
    """With decay 0.99 after 300 updates a true 0.020 is stored as 0.067, of which 73 % is the initial 1."""
    share = 0.99**300
    stored = share + (1 - share) * 0.020
    assert stored == pytest.approx(0.067, abs=2e-3)
    found = init_shares([batch_norm("bn", variance=stored, decay=0.99)], run(300))[0]
    assert found.share == pytest.approx(0.049, abs=1e-3)
    assert found.median == pytest.approx(0.73, abs=0.015)


def test_share_bound() -> None:
    """The smallest variance of all layers bounds the share; NaN and unread layers do not take part."""
    layers = [batch_norm("a", variance=[0.3, 2.0, float("nan"), 1.0]), unread(batch_norm("b", variance=1e-3))]
    assert share_bound(layers) == 0.3
    assert share_bound([unread(batch_norm("b"))]) is None
    assert share_bound([batch_norm("a", variance=-1.0)]) == 0.0


def test_shrink() -> None:
    """52 layers that each divide by 5 % too much variance shrink the signal 3.8-fold; none do nothing."""
    assert shrink([0.05] * 52) == pytest.approx(0.95**-26)
    assert shrink([]) == 1.0
    assert np.isfinite(shrink([1.0] * 52))


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


def test_kernel_of_other_length_is_left_out() -> None:
    """A kernel that does not fit the channels does not enter the ranges."""
    kernel = Linear(name="conv", op="Conv2D", kernel="w", channel_max=np.ones(3))
    ranges = folded_ranges(batch_norm("bn", linear=kernel))
    assert ranges is not None
    assert not ranges.with_kernel


def test_moved_and_trained() -> None:
    """Both statistics must be decided to call a layer untouched; beta tells training before gamma does."""
    assert never_moved(untouched("bn")) is True
    assert never_moved(batch_norm("bn", mean=0.0)) is False
    assert never_moved(unread(untouched("bn"))) is None
    assert never_moved(batch_norm("bn", mean=None, variance=None)) is None
    assert trained(batch_norm("bn", gamma=[1.01, 0.98, 1.02, 1.0], beta=0.0)) is False
    assert trained(batch_norm("bn", beta=None)) is True
    assert trained(batch_norm("bn", gamma=None, beta=None)) is None


def test_words() -> None:
    """Lists are cut after three names, counts agree with their nouns, small shares keep two digits."""
    assert listing(["a", "b", "c"]) == "a, b, c"
    assert listing(["a", "b", "c", "d"]) == "a, b, c and 1 more"
    assert (many(1, "layer"), many(2000, "layer")) == ("1 layer", "2,000 layers")
    assert (percent(0.0), percent(0.000061), percent(1.0)) == ("0.0 %", "0.0061 %", "100.0 %")


@pytest.mark.parametrize("keys", [{"bn/gamma"}, {"m/bn/gamma/.ATTRIBUTES/VARIABLE_VALUE", OBJECT_GRAPH}])
def test_remedies_are_those_of_tf2(keys: set[str]) -> None:
    """A SavedModel with an object graph was made by TF2, though its layers were found in a graph."""
    model = facts(batch_norm("bn"), run=RunFacts(values=True, keys=frozenset(keys)))
    assert keras_made(model) is (OBJECT_GRAPH in keys)
