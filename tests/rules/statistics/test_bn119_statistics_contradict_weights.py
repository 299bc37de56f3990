"""BN119 statistics-contradict-weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Facts, GraphFacts, Layer, Mode, Purpose, Site
from bncheck.facts.predicted import Predicted
from bncheck.recognise import recognise
from bncheck.rules.statistics.bn119_statistics_contradict_weights import check
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.testing import batch_norm, facts

FIXTURES = Path(__file__).parents[3] / "fixtures"
MEANS = np.random.default_rng(0).normal(size=64)
SHUFFLED = np.random.default_rng(1).permutation(MEANS)


def layer(name: str, stored: np.ndarray, predicted: np.ndarray = MEANS, **more: object) -> Layer:
    """Of deviation 1."""
    told = Predicted(mean=predicted, variance=np.ones(len(predicted)))
    return batch_norm(name, mean=stored, variance=1.1, channels=len(stored), predicted=told, **more)


def test_another_order_is_an_error() -> None:
    """64 channels in another order: beyond chance."""
    evidence = only(check, facts(layer("good", MEANS), layer("bad", SHUFFLED)))
    assert evidence.severity is Severity.ERROR
    assert evidence.layers == ("bad",)


def test_the_layer_whose_vectors_they_are_is_named() -> None:
    """Two layers that exchanged their statistics."""
    evidence = only(check, facts(layer("one", SHUFFLED), layer("two", MEANS, SHUFFLED)))
    assert evidence.layers == ("one", "two")
    assert "those of one fit the weights before two" in evidence.message


def test_a_warning_where_chance_is_not_out_of_the_question() -> None:
    """The same of 24 channels."""
    means = MEANS[:24]
    evidence = only(check, facts(layer("bad", np.roll(np.sort(means), 12), np.sort(means))))
    assert evidence.severity is Severity.WARNING


def test_silent() -> None:
    """On a layer frozen in eval mode or not trainable, on small errors, on a share of initial value."""
    frozen = Site(name="bn/FusedBatchNormV3", form="FusedBatchNormV3", mode=Mode.EVAL)
    graph = GraphFacts(path="graph.meta", format=facts().format, nodes=1, purpose=Purpose.TRAINING)
    near = MEANS + np.random.default_rng(2).normal(scale=0.2, size=64)
    assert not list(check.check(facts(layer("bn", SHUFFLED, sites=(frozen,)), graph=graph)))
    assert not list(check.check(facts(layer("bn", SHUFFLED, trainable=False))))
    assert not list(check.check(facts(layer("bn", near), layer("share", 0.5 * MEANS))))
    assert not list(check.check(facts(layer("bn", 0.01 * SHUFFLED, 0.01 * MEANS))))


def test_few_channels_whose_means_are_far_off() -> None:
    """Six, of which a correlation tells little."""
    means = np.array([-3.0, 1.0, 0.0, 2.0, -1.0, 3.0])
    others = [layer(f"good{number}", MEANS + 0.01) for number in range(5)]
    mixed = np.array([2.0, 3.0, -3.0, 1.0, 0.0, -1.0])
    assert only(check, facts(*others, layer("bad", mixed, means))).layers == ("bad",)
    assert not list(check.check(facts(*others, layer("good", means + 0.3, means))))
    assert not list(check.check(facts(layer("alone", mixed, means))))


def test_statistics_of_an_earlier_step() -> None:
    """Twelve layers that correlate by 0.95, none of which is suspicious by itself; not five of twelve."""
    random = np.random.default_rng(4)
    older = [layer(f"old{number}", MEANS + 0.3 * random.normal(size=64)) for number in range(12)]
    newer = [layer(f"new{number}", MEANS) for number in range(7)]
    assert len(only(check, facts(*older)).layers) >= 10
    assert not list(check.check(facts(*newer, *older[:5])))


def test_a_correlation_of_half_the_layers_that_is_nearly_healthy() -> None:
    """0.975 in the median: named where means are off by a fifth of a deviation, not where by a tenth."""
    random = np.random.default_rng(4)
    off = [random.normal(size=64) for _ in range(12)]
    for scale, named in ((1.0, True), (0.5, False)):
        found = [
            layer(f"bn{n}", scale * (MEANS + (0.26 if n % 2 else 0.18) * by), scale * MEANS) for n, by in enumerate(off)
        ]
        assert bool(list(check.check(facts(*found)))) is named


def test_another_layers_vectors_whose_means_are_small() -> None:
    """Off by a hundredth of a deviation, but neither means nor variances are those that the weights predict."""
    random = np.random.default_rng(6)
    variance = np.exp(random.normal(0, 0.5, 64))
    told = Predicted(mean=0.02 * MEANS, variance=variance)
    other = random.permutation(variance)
    bad = batch_norm("bad", mean=0.02 * SHUFFLED, variance=other, channels=64, predicted=told)
    fine = batch_norm("fine", mean=0.02 * SHUFFLED, variance=variance, channels=64, predicted=told)
    assert only(check, facts(bad)).layers == ("bad",)
    assert not list(check.check(facts(fine)))


def test_means_that_hardly_differ_from_channel_to_channel() -> None:
    """Twelve layers that correlate as badly, and whose means are off by a hundredth of a deviation."""
    random = np.random.default_rng(4)
    near = [0.02 * (MEANS + 0.3 * random.normal(size=64)) for _ in range(12)]
    layers = [layer(f"bn{number}", stored, 0.02 * MEANS) for number, stored in enumerate(near)]
    assert not list(check.check(facts(*layers)))


def test_variances_alone() -> None:
    """Standard deviations in their place: named by their power, as an error."""
    variance = np.exp(np.random.default_rng(3).normal(-3, 1, 64))
    told = Predicted(mean=MEANS, variance=variance)
    healthy = batch_norm("bn", mean=MEANS, variance=1.2 * variance, channels=64, predicted=told)
    assert not list(check.check(facts(healthy)))
    wrong = batch_norm("bn", mean=MEANS, variance=np.sqrt(variance), channels=64, predicted=told)
    evidence = only(check, facts(wrong))
    assert evidence.severity is Severity.ERROR
    assert evidence.location == wrong.variance.name
    assert "standard deviations" in evidence.message
    power = next(one for one in evidence.measurements if one.name == "power of the predicted variances")
    assert power.value == pytest.approx(0.5, abs=0.05)


@pytest.fixture(scope="module")
def healthy() -> Facts:
    """MobileNetV2 on digits."""
    return recognise(open_model(FIXTURES / "mobilenet_v2" / "wired" / "model.ckpt-300"), Options())


@pytest.mark.parametrize("seed", range(3))
def test_every_layer_that_it_matters_for_is_named(healthy: Facts, seed: int) -> None:
    """MobileNetV2, one layer after the other with its channels in another order.

    Of those with 32 channels and more whose means then differ by half a deviation, 19 of 20 are named; no other is.
    """
    random = np.random.default_rng(seed)
    matter, named = 0, 0
    for place, one in enumerate(healthy.layers):
        mean, variance = one.mean.values, one.variance.values
        assert mean is not None
        assert variance is not None
        order = random.permutation(mean.size)
        moved = replace(
            one,
            mean=replace(one.mean, values=mean[order]),
            variance=replace(one.variance, values=variance[order]),
        )
        layers = (*healthy.layers[:place], moved, *healthy.layers[place + 1 :])
        found = [layer for evidence in check.check(replace(healthy, layers=layers)) for layer in evidence.layers]
        assert found in ([], [one.name])
        harm = float(np.sqrt(np.mean((mean[order] - mean) ** 2 / np.maximum(variance, variance[order]))))
        if harm > 0.5 and one.predicted is not None and mean.size >= 32:
            matter += 1
            named += bool(found)
    assert matter >= 20
    assert named >= 0.95 * matter


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_one_layer_of_another_scale(healthy: Facts, factor: float) -> None:
    """MobileNetV2, the variances of one layer after the other ten times as large, or a tenth: 49 of 51 are named."""
    named = 0
    for place, one in enumerate(healthy.layers):
        assert one.variance.values is not None
        scaled = replace(one, variance=replace(one.variance, values=factor * one.variance.values))
        layers = (*healthy.layers[:place], scaled, *healthy.layers[place + 1 :])
        found = [layer for evidence in check.check(replace(healthy, layers=layers)) for layer in evidence.layers]
        assert found in ([], [one.name])
        named += bool(found)
    assert named >= 49
