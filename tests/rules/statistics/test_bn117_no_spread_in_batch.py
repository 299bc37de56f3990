"""BN117 no-spread-in-batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence
from bncheck.facts.layers import Layer, Linear, Mode, RunFacts
from bncheck.rules.statistics.bn117_no_spread_in_batch import check
from bncheck.testing import batch_norm, facts, site, wired, with_graph

Numbers = float | list[float]
MEANS: Numbers = [0.1, 0.2, 0.3, 0.4]


def behind(op: str, variance: Numbers, mean: Numbers = MEANS) -> Layer:
    """A layer right behind this op."""
    layer = batch_norm("fc", mean=mean, variance=variance)
    return replace(layer, linear=Linear(name=f"fc/{op}", op=op, kernel="fc/w"), decay=0.9)


@pytest.mark.parametrize(
    ("sizes", "mode", "found"),
    [
        ((1,), Mode.TRAIN, True),
        ((1, 1, 1), Mode.SWITCHED, True),
        ((1, 1, 1), Mode.EVAL, False),
        ((2,), Mode.TRAIN, False),
        ((-1,), Mode.TRAIN, False),
        ((1, 1, 4), Mode.TRAIN, False),
        (None, Mode.TRAIN, False),
    ],
)
def test_by_shape(sizes: tuple[int, ...] | None, mode: Mode, *, found: bool) -> None:
    """Every axis but the channels' has to be known to be 1, in a trained site that is not fixed in eval mode."""
    layer = wired(batch_norm("fc"))
    model = with_graph(replace(layer, sites=(replace(site("fc/bn", mode), reduced=sizes, train_ops=("Adam",)),)))
    assert bool(list(check.check(model))) is found


def test_one_of_two_trained_places_with_more_values_is_enough() -> None:
    """A layer that sees several values somewhere has a spread there."""
    layer = wired(batch_norm("fc"))
    places = [replace(layer.sites[0], name=str(size), reduced=(size,)) for size in (1, 32)]
    assert not list(check.check(with_graph(replace(layer, sites=tuple(places)))))


@pytest.mark.parametrize(("steps", "found"), [(50, True), (51, False), (300, False)])
def test_by_what_is_left_of_the_variance(steps: int, *, found: bool) -> None:
    """0.9**50 is what 50 updates of 0 leave, and no other number of them."""
    model = facts(behind("MatMul", 0.9**50), run=RunFacts(values=True, updates=steps))
    assert bool(list(check.check(model))) is found


def test_the_numbers_are_told() -> None:
    """Decay, count and what is left."""
    message = only(check, facts(behind("MatMul", 0.9**50), run=RunFacts(values=True, updates=50))).message
    assert "0.00515 in all 4 channels, 0.9 to the power of 50" in message


def test_by_value_confidence_is_lower() -> None:
    """Shapes are proof; equal variances are a strong sign."""
    unknown = RunFacts(values=True)
    assert only(check, facts(behind("MatMul", 0.25), run=unknown)).confidence is Confidence.MEDIUM


@pytest.mark.parametrize(
    "layer",
    [
        behind("Conv2D", 0.25),
        behind("MatMul", 0.25, mean=0.5),
        behind("MatMul", 1.0),
        behind("MatMul", [0.25, 0.25, 0.25, 0.2500001]),
    ],
    ids=["positions", "dead input", "initial", "a spread"],
)
def test_what_else_equal_variances_may_be(layer: Layer) -> None:
    """A convolution averages over positions; a dead layer's means are alike too; initial is BN101's."""
    assert not list(check.check(facts(layer, run=RunFacts(values=True))))


def test_float32s_floor_is_nothing_left() -> None:
    """After thousands of steps the variance stands where float32 stops falling."""
    assert only(check, facts(behind("MatMul", 1.07e-37), run=RunFacts(values=True, updates=1500)))
