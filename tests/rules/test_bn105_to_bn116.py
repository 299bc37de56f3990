"""Thresholds and readings of the rules on values, beyond their own examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.layers import Debias, Facts, Purpose, RunFacts
from bncheck.rules import RULES
from bncheck.testing import batch_norm, facts, unread, untouched, with_graph

BY_CODE = {rule.code: rule for rule in RULES}


def found(code: str, model: Facts) -> list[Evidence]:
    """What the rule of that code yields."""
    return list(BY_CODE[code].check(model))


def severities(code: str, model: Facts) -> list[Severity]:
    """Severity of each, the rule's own where it has none."""
    return [evidence.severity or BY_CODE[code].severity for evidence in found(code, model)]


def test_non_finite_counts_by_vector() -> None:
    """NaN and infinity are counted apart, per vector."""
    nan, inf = float("nan"), float("inf")
    (evidence,) = found("BN105", facts(batch_norm("bn", mean=[nan, nan, 1, 2], variance=[inf, 1, 1, 1])))
    assert {item.name: item.value for item in evidence.measurements} == {"NaN in mean": 2, "infinite in variance": 1}


@pytest.mark.parametrize(
    ("variance", "epsilon", "expected"),
    [
        (-9.9e-6, 1e-3, [Severity.WARNING]),
        (-1.1e-5, 1e-3, [Severity.ERROR]),
        (-1e-7, None, [Severity.WARNING]),
        (-2e-7, None, [Severity.ERROR]),
        (0.0, 1e-3, []),
        (float("nan"), 1e-3, []),
    ],
)
def test_negative_variance(variance: float, epsilon: float | None, expected: list[Severity]) -> None:
    """Rounding up to a hundredth of epsilon is a warning, more an error; zero and NaN are others'."""
    assert severities("BN106", facts(batch_norm("bn", variance=[variance, 1, 1, 1], epsilon=epsilon))) == expected


@pytest.mark.parametrize(("variance", "count"), [(-9e-4, 0), (-1e-3, 1), (-5.7e9, 1)])
def test_certain_nan(variance: float, count: int) -> None:
    """Channels that stay at or below zero with epsilon added are counted."""
    (evidence,) = found("BN106", facts(batch_norm("bn", variance=[variance, 1, 1, 1])))
    assert next(m.value for m in evidence.measurements if m.name == "variance + epsilon not positive") == count


def test_dead_channels_are_counted() -> None:
    """Dead channels, channels, exact zeros and the decay that the floor tells stand in the finding as numbers."""
    layer = batch_norm("bn", variance=[0.0, 1.1664e-36, 1.0, 2.0])
    (evidence,) = found("BN107", facts(layer, batch_norm("b")))
    values = {item.name: item.value for item in evidence.measurements}
    assert (values["dead channels"], values["channels"], values["variances of exactly 0"]) == (2, 8, 1)
    assert values["decay told by the floor"] == 0.99


def test_missing_is_not_unread() -> None:
    """Statistics that were not read are not missing."""
    assert found("BN108", facts(unread(batch_norm("bn")))) == []


def test_swapped_in_a_minority_is_chance() -> None:
    """An order is wrong in all layers or none: one suspicious layer of three says nothing."""
    positive, signed = np.linspace(0.2, 2, 8), np.linspace(-1, 1, 8)
    odd = batch_norm("odd", mean=positive, variance=signed, channels=8)
    fine = [batch_norm(name, mean=signed, variance=positive, channels=8) for name in "ab"]
    assert found("BN109", facts(odd, *fine)) == []
    assert len(found("BN109", facts(odd, fine[0]))) == 1


def test_swapped_needs_enough_channels() -> None:
    """Seven channels of one sign may be chance."""
    few = batch_norm("bn", mean=np.linspace(0.2, 2, 7), variance=np.linspace(-1, 1, 7), channels=7)
    assert found("BN109", facts(few)) == []


@pytest.mark.parametrize(
    ("variance", "expected"),
    [
        ([1e12, 1, 1, 1], []),
        ([1.1e12, 1, 1, 1], [Severity.WARNING]),
        ([2e6, -1, 1, 1], [Severity.ERROR]),
        ([9e5, -1, 1, 1], []),
    ],
)
def test_explosion(variance: list[float], expected: list[Severity]) -> None:
    """Size alone warns beyond 1e12; with negative neighbours a million is an overshoot."""
    assert severities("BN110", facts(batch_norm("bn", variance=variance))) == expected


def test_overshoot_as_it_happens() -> None:
    """30 updates of one resource variable a step at decay 0.9 diverge; 20 do not."""

    def after(updates: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        random = np.random.default_rng(0)
        variance = np.ones(4)
        for _ in range(33):
            variance = variance - updates * (1 - 0.9) * (variance - random.uniform(0.5, 2.0, 4))
        return variance

    assert severities("BN106", facts(batch_norm("bn", variance=after(30)))) == [Severity.ERROR]
    assert severities("BN110", facts(batch_norm("bn", variance=after(30) * np.array([1, -1, 1, -1])))) == [
        Severity.ERROR
    ]
    assert found("BN110", facts(batch_norm("bn", variance=after(15)))) == []


def test_half_precision_needs_all_layers_on_the_grid() -> None:
    """One layer on the float16 grid beside one that is not tells nothing."""
    fine = np.linspace(0.3, 2.9, 20) ** 1.7
    coarse = fine.astype(np.float16).astype(np.float64)
    on = batch_norm("a", mean=coarse, variance=coarse, channels=20)
    off = batch_norm("b", mean=fine, variance=fine, channels=20)
    assert severities("BN111", facts(on)) == [Severity.INFO]
    assert found("BN111", facts(on, off)) == []


def test_bfloat16_grid() -> None:
    """float32 values whose lower 16 bits are zero are bfloat16 numbers."""
    fine = np.linspace(0.3, 900, 40).astype(np.float32)
    coarse = (fine.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    (evidence,) = found("BN111", facts(batch_norm("bn", mean=coarse, variance=coarse, channels=40)))
    assert "bfloat16" in evidence.message


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        ([1e-4, 1e-4, 1, 1], [Severity.WARNING]),
        ([1e-4, 1.1e-3, 1, 1], []),
        ([0, 0, 1, 1], [Severity.INFO]),
        ([0, 1e-4, 1, 1], []),
    ],
)
def test_collapsed_gamma(gamma: list[float], expected: list[Severity]) -> None:
    """Half of the channels below 1e-3 warn, half at exactly 0 are pruned."""
    assert severities("BN112", facts(batch_norm("bn", gamma=gamma))) == expected


@pytest.mark.parametrize(("updates", "severity"), [(458, Severity.WARNING), (459, Severity.INFO)])
def test_half_debias(updates: int, severity: Severity) -> None:
    """At decay 0.99 the share falls below 1 % with the 459th update."""
    layer = batch_norm("bn", decay=0.99, debias=Debias(mean=True, variance=False))
    assert severities("BN113", facts(layer, run=RunFacts(values=True, updates=updates))) == [severity]


def test_averages_in_training_are_normal() -> None:
    """Shadows beside the raw weights, all saved by a training graph, are a note."""
    layer = batch_norm("bn", averaged={"gamma": "bn/gamma/ExponentialMovingAverage"})
    model = with_graph(layer, purpose=Purpose.TRAINING)
    assert severities("BN114", model) == [Severity.INFO]


def test_inference_graph_may_leave_heads_out() -> None:
    """Statistics of an auxiliary head are a note in an inference graph and a warning in a training graph."""
    layer = batch_norm("bn")
    keys = frozenset({"bn/moving_mean", "bn/moving_variance", "aux/bn/moving_mean", "aux/bn/moving_variance"})
    run = RunFacts(values=True, keys=keys)
    for purpose, severity in ((Purpose.INFERENCE, Severity.INFO), (Purpose.TRAINING, Severity.WARNING)):
        model = replace(with_graph(layer, purpose=purpose), run=run)
        assert severities("BN115", model) == [severity]
        assert found("BN115", model)[0].layers == ("aux/bn",)


def test_reference() -> None:
    """Equal in one of two vectors is not equal; without signs of training equality is a note; untouched is BN101's."""
    published = {"bn": (np.full(4, 0.5), np.full(4, 2.0))}
    still = RunFacts(values=True, updates=0, global_step=0)
    assert severities("BN116", facts(batch_norm("bn"), reference=published)) == [Severity.WARNING]
    assert severities("BN116", facts(batch_norm("bn"), reference=published, run=still)) == [Severity.INFO]
    assert found("BN116", facts(batch_norm("bn", variance=2.1), reference=published)) == []
    assert found("BN116", facts(batch_norm("other"), reference=published)) == []
    initial = {"bn": (np.zeros(4), np.ones(4))}
    assert found("BN116", facts(untouched("bn"), reference=initial)) == []
