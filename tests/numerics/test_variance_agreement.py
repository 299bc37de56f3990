"""Stored variances against those that weights predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.numerics.variance_agreement import (
    VarianceAgreement,
    flat,
    off_level,
    together,
    variance_agreement,
    variance_agreements,
)
from bncheck.testing import batch_norm

_RANDOM = np.random.default_rng(0)
PREDICTED = np.exp(_RANDOM.normal(-2, 0.7, 64))
TRUE = 1.5 * PREDICTED * np.exp(_RANDOM.normal(0, 0.3, 64))
"""As training leaves them: a common factor, and a third more or less by channel."""


def shuffled(values: np.ndarray) -> np.ndarray:
    """In another order, the same for all tests."""
    return np.random.default_rng(3).permutation(values)


def layer(variance: np.ndarray) -> Layer:
    """64 channels of mean 0."""
    predicted = Predicted(mean=np.zeros(64), variance=PREDICTED)
    return batch_norm("bn", mean=np.zeros(64), variance=variance, channels=64, predicted=predicted)


def fit(variance: np.ndarray) -> VarianceAgreement:
    """Of these, which is known."""
    found = variance_agreement(layer(variance))
    assert found is not None
    return found


def test_variances_follow_the_prediction() -> None:
    """By the power 1, whatever the factor."""
    for scale in (1.0, 100.0):
        found = fit(scale * TRUE)
        assert found.slope == pytest.approx(1, abs=0.2)
        assert found.level == pytest.approx(np.log(1.5 * scale), abs=0.15)
        assert not found.flat


def test_deviations_rise_half_as_fast() -> None:
    """Standard deviations in place of variances; those in another order, or that a share fills, do not rise."""
    root = fit(np.sqrt(TRUE))
    assert root.slope == pytest.approx(0.5, abs=0.1)
    assert root.flat
    assert fit(shuffled(TRUE)).flat
    assert fit(0.8 * TRUE + 0.2).flat


def test_nothing_is_said_of_little() -> None:
    """Without a prediction, of three channels; of seven and of constants no slope; behind images no level."""
    one = layer(TRUE)
    assert one.predicted is not None
    assert variance_agreement(replace(one, predicted=None)) is None
    images = variance_agreement(replace(one, predicted=replace(one.predicted, fitted=3)))
    assert images is not None
    assert not images.levelled
    for count, known in ((3, False), (7, True)):
        some = Predicted(mean=np.zeros(count), variance=PREDICTED[:count])
        found = variance_agreement(
            batch_norm("bn", mean=np.zeros(count), variance=TRUE[:count], channels=count, predicted=some)
        )
        assert (found is not None) is known
        assert found is None or found.slope_error == np.inf
    constant = replace(one, predicted=Predicted(mean=np.zeros(64), variance=np.ones(64)))
    found = variance_agreement(constant)
    assert found is not None
    assert found.slope_error == np.inf


def levels(*found: float, spread: float = 0.3) -> dict[str, VarianceAgreement]:
    """Layers of these levels, in forward order."""
    return {str(place): VarianceAgreement(channels=64, level=level, spread=spread) for place, level in enumerate(found)}


def test_a_layer_of_another_scale() -> None:
    """Ten times and a tenth of the variance are named, twice is not; nor what lies between its neighbours."""
    healthy = (0.2, 0.4, 0.1, 0.3, 0.5, 0.3, 0.2)
    assert not off_level(levels(*healthy))
    for factor, named in ((10, ["3"]), (0.1, ["3"]), (2, [])):
        changed = (*healthy[:3], healthy[3] + np.log(factor), *healthy[4:])
        assert list(off_level(levels(*changed))) == named
    assert not off_level(levels(*healthy[:4], 1.7, 1.8))
    assert not off_level(levels(*healthy[:3], healthy[3] + np.log(10), *healthy[4:], spread=1.5))
    assert not off_level(levels(0.1, 0.2, 2.6))


def test_the_last_layer_may_lie_above_the_others() -> None:
    """Its channels vary together, as classes ask; ten times that is named, and so is a tenth."""
    before = (0.1, 0.2, 0.05, 0.15, 0.3, 0.2, 0.55)
    assert not off_level(levels(*before, 1.9))
    for factor in (10, 0.01):
        assert list(off_level(levels(*before, 1.9 + np.log(factor)))) == ["7"]
    assert list(off_level(levels(*before, 1.9, 0.4))) == ["7"]


def test_kernels_of_one_place_are_held_against_such() -> None:
    """The shortcuts of a residual net lie below its other layers, where neighbouring places vary together."""
    found = levels(1.23, 1.37, 1.41, 0.12, 2.08, 2.16, 2.22, 2.64, 0.99, 3.31, 3.37, 4.21)
    assert "3" in off_level(found)
    shortcuts = {name: replace(one, one_place=name in {"3", "8"}) for name, one in found.items()}
    assert not off_level(shortcuts)
    more = {f"1x1-{n}": replace(one, one_place=True) for n, one in enumerate(levels(0.1, 0.2, 0.3, 2.5, 0.2).values())}
    assert list(off_level({**shortcuts, **more})) == ["1x1-3"]


def test_levels_tell_nothing_where_predictions_do_not_hold() -> None:
    """Slopes of 1 within layers let a level tell; of 2, as where channels vary together, they do not."""
    found = levels(0.2, 0.4, 0.1, 0.3 + np.log(10), 0.5, 0.3, 0.2)
    for slope, off in ((1.0, ["3"]), (2.0, []), (0.5, [])):
        of_slope = {name: replace(one, along=slope, across=1.0) for name, one in found.items()}
        assert list(off_level(of_slope)) == off


def test_all_layers_of_another_scale() -> None:
    """Ten times the variance everywhere lies beyond what channels that vary together make; a rise to the end does not.

    The second are the levels of twelve plain layers, trained on photographs.
    """
    assert len(off_level(levels(*(np.log(10) + one for one in (0.2, 0.4, 0.1, 0.3, 0.5))))) == 5
    rising = (0.51, 0.72, 1.64, 1.50, 2.05, 2.28, 2.36, 2.43, 2.62, 2.68, 2.94)
    assert not off_level(levels(*rising))
    assert len(off_level(levels(*(np.log(10) + one for one in rising)))) == len(rising)


def model(
    count: int,
    *,
    change: Callable[[np.ndarray], np.ndarray] = lambda v: v,
    differ: float = 0.15,
    scatter: float = 0.15,
) -> list[Layer]:
    """Layers of 32 channels whose predicted variances hardly differ, each less than half as large as the one before."""
    random = np.random.default_rng(2)
    layers = []
    for number in range(count):
        predicted = np.exp(random.normal(-0.4 * number, differ, 32))
        stored = change(1.5 * predicted * np.exp(random.normal(0, scatter, 32)))
        told = Predicted(mean=np.zeros(32), variance=predicted)
        layers.append(batch_norm(f"bn{number}", mean=np.zeros(32), variance=stored, channels=32, predicted=told))
    return layers


def seen(layers: list[Layer]) -> dict[str, VarianceAgreement]:
    """Layers of which something is known."""
    told = zip(layers, variance_agreements(layers), strict=True)
    return {layer.name: found for layer, found in told if found is not None}


def test_what_no_layer_tells_all_do_together() -> None:
    """Variances in another order, their roots: one layer says nothing, twelve do; four do not, nor healthy ones."""
    for change in (shuffled, np.sqrt):
        found = seen(model(12, change=change))
        assert not any(one.flat for one in found.values())
        assert len(flat(found)) > 8
        assert not flat(seen(model(4, change=change)))
    assert not flat(seen(model(12)))


def test_medians_tell_of_roots_from_layer_to_layer() -> None:
    """Where channels hardly differ within a layer, as those of Inception's layers."""
    found = together(seen(model(24, change=np.sqrt, differ=0.07, scatter=0.6)))
    assert found is not None
    assert found.between == pytest.approx(0.5, abs=0.05)
    assert found.flat
    healthy = together(seen(model(24, differ=0.07, scatter=0.6)))
    assert healthy is not None
    assert healthy.between == pytest.approx(1, abs=0.05)
    assert not healthy.flat


def test_no_layer_is_told_by_itself_where_the_others_do_not_follow() -> None:
    """One in another order stands out among ten that follow; not among ten whose channels vary together."""
    random = np.random.default_rng(4)
    predicted, alike = np.exp(random.normal(-2, 0.7, 64)), np.exp(random.normal(0, 0.9, (10, 64)))
    for others, told in ((1.5 * predicted * np.ones((10, 1)), ["odd"]), (predicted**0.6 * alike, [])):
        layers = [replace(layer(one), name=str(number)) for number, one in enumerate(others)]
        layers = [replace(one, predicted=Predicted(mean=np.zeros(64), variance=predicted)) for one in layers]
        odd = replace(layers[0], name="odd", variance=layer(shuffled(1.5 * predicted)).variance)
        found = seen([*layers, odd])
        assert found["odd"].flat
        assert sorted(flat(found)) == told


def test_behind_images_another_power_and_a_share_are_told() -> None:
    """Roots of what photographs predict, and a fifth of initial value; not what noise flattens, nor another order."""
    told = Predicted(mean=np.zeros(64), variance=PREDICTED, fitted=3)
    noise = 0.05 * np.exp(np.random.default_rng(4).normal(0, 0.7, 64))
    right = 0.3 * PREDICTED
    changed = (np.sqrt(right), 0.8 * right + 0.2, right + noise, shuffled(right))
    found = [variance_agreement(replace(layer(variance), predicted=told)) for variance in changed]
    seen = [one for one in found if one is not None and one.slope < 0.7]
    assert [one.flat for one in seen] == [True, True, False, False]
    assert [one.filled for one in seen] == pytest.approx([0, 0.2, 0, 0], abs=0.005)


def test_how_variances_below_epsilon_differ_says_nothing() -> None:
    """They are not what the layer divides by."""
    small = replace(layer(1e-6 * shuffled(TRUE)), epsilon=1e-3)
    found = variance_agreement(small)
    assert found is not None
    assert not found.flat


def test_predictions_that_err_as_much_as_they_differ_say_nothing() -> None:
    """A healthy layer's slope on them is 0 then; fitted the other way round, it is not."""
    random = np.random.default_rng(1)
    predicted = Predicted(mean=np.zeros(16), variance=np.exp(random.normal(0, 0.24, 16)))
    stored = 0.45 * np.exp(random.normal(0, 0.18, 16))
    found = variance_agreement(batch_norm("bn", mean=np.zeros(16), variance=stored, channels=16, predicted=predicted))
    assert found is not None
    assert found.slope < 0.4
    assert not found.flat


def test_a_level_that_may_rise() -> None:
    """Where the prediction is the least, a level above the others' is none of theirs, and one below is off."""
    found = {
        f"bn{number}": VarianceAgreement(channels=64, level=0.5 + 0.1 * (number % 3), spread=0.2) for number in range(9)
    }
    for level, off in ((3.0, ["odd"]), (-2.0, ["odd"])):
        odd = VarianceAgreement(channels=64, level=level, spread=0.2)
        assert list(off_level({**found, "odd": odd})) == off
        assert list(off_level({**found, "odd": replace(odd, may_rise=True)})) == (off if level < 0 else [])
