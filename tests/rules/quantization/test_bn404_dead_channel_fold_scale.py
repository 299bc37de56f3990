"""BN404 dead-channel-fold-scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.layers import Facts, Layer, Linear
from bncheck.rules.quantization.bn404_dead_channel_fold_scale import check as dead
from bncheck.testing import batch_norm, facts
from bncheck.testing.quantized import operator_loss, quantized


def layer(channel_max: list[float], **facts_of_it: Any) -> Layer:
    """A layer after a convolution with these largest weights."""
    known = {"linear": Linear(name="c", op="Conv2D", kernel="c/w", channel_max=np.array(channel_max, np.float64))}
    return batch_norm("bn", channels=len(channel_max), **(known | facts_of_it))


def only(evidence: list[Evidence]) -> dict[str, object]:
    """Measurements of the one piece of evidence."""
    (found,) = evidence
    return {item.name: item.value for item in found.measurements}


def run_dead(model: Facts) -> list[Evidence]:
    """What BN404 yields."""
    return list(dead.check(model))


@pytest.mark.parametrize(("gamma", "speaks"), [(0.50, False), (0.51, True)])
def test_dead_limit(gamma: float, speaks: bool) -> None:  # noqa: FBT001 - the table's second column
    """At epsilon 1e-3 a dead channel with half the gamma of the living just reaches a ratio of 16."""
    model = facts(layer([1, 1, 1, 1], variance=[0.0, 1.0, 1.0, 1.0], gamma=[gamma, 1.0, 1.0, 1.0]))
    assert bool(run_dead(model)) is speaks


@pytest.mark.parametrize(
    ("epsilon", "ratio", "left", "severity"),
    [(1e-3, 32, 8, Severity.WARNING), (1e-5, 316, 0.8, Severity.ERROR)],
)
def test_published_ratios(epsilon: float, ratio: float, left: float, severity: Severity) -> None:
    """One channel with variance 1e-8 beside 1: 8 of 255 levels left at epsilon 1e-3, all else rounds to 0 at 1e-5."""
    found = run_dead(facts(layer([0.3] * 4, variance=[1e-8, 1.0, 1.0, 1.0], epsilon=epsilon)))
    values = only(found)
    assert values["fold scale ratio, dead to living median"] == pytest.approx(ratio, rel=0.02)
    assert values["levels left for the median channel"] == pytest.approx(left, abs=0.15)
    assert found[0].severity is severity


def test_rounding_to_nothing_is_true() -> None:
    """At the ratio that is called an error every other weight really is zero after 8-bit rounding."""
    random = np.random.default_rng(0)
    kernel = random.uniform(-0.3, 0.3, (3, 3, 32, 32))
    variance = np.ones(32)
    variance[0] = 1e-8
    for epsilon, lost in ((1e-5, 1.0), (1e-3, 0.06)):
        scaled = kernel / np.sqrt(variance + epsilon)
        step = np.abs(scaled).max() / 127
        assert (np.round(scaled[..., 1:] / step) == 0).mean() == pytest.approx(lost, abs=0.08)
        found = run_dead(
            facts(layer(list(np.abs(kernel).max((0, 1, 2))), variance=variance, gamma=1.0, epsilon=epsilon))
        )
        assert (found[0].severity is Severity.ERROR) is (lost == 1.0)


def test_dead_but_not_dominant() -> None:
    """Where a living channel is larger still, the dead one takes nothing (BN403's)."""
    assert run_dead(facts(layer([1, 1, 1, 99], variance=[0.0, 1.0, 1.0, 1.0], gamma=1.0))) == []


def test_error_only_with_the_kernel() -> None:
    """Fold scales alone never make an error: the kernel of a dead channel may be dead too."""
    model = facts(batch_norm("bn", variance=[1e-8, 1.0, 1.0, 1.0], epsilon=1e-5))
    assert [evidence.severity for evidence in run_dead(model)] == [Severity.WARNING]


def test_a_run_that_lost_nothing_refutes_it() -> None:
    """Quantized with one scale and run: a layer that keeps its precision needs no forecast; noise refutes none."""
    lost = layer([1, 1, 1, 1], variance=[1e-8, 1.0, 1.0, 1.0])
    for local, synthetic, told in ((5e-4, False, 0), (0.3, False, 1), (5e-4, True, 1)):
        measured = quantized(operator_loss("bn", weight_per_channel=False, local=local), synthetic=synthetic).quantized
        assert len(list(dead.check(facts(lost, quantized=measured)))) == told


def test_what_does_not_fold() -> None:
    """Where other layers have a linear operator before them, one behind a ReLU takes no weights' levels."""
    bare = batch_norm("behind_relu", variance=[1e-8, 1.0, 1.0, 1.0])
    assert len(list(dead.check(facts(bare)))) == 1
    assert list(dead.check(facts(layer([1, 1, 1, 1]), bare))) == []
