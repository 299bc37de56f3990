"""BN212 epsilon-mismatch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Facts, Mode
from bncheck.rules.wiring import (
    bn212_epsilon_mismatch,
)
from bncheck.testing import (
    batch_norm,
    site,
    wired,
    with_graph,
)

EPSILON = bn212_epsilon_mismatch.check


def two_epsilons(first: float, second: float, **vectors: Any) -> Facts:
    """A layer whose training and evaluation sites differ in epsilon."""
    sites = (site("a", epsilon=first, train_ops=("Adam",)), site("b", Mode.EVAL, epsilon=second))
    return with_graph(replace(wired(batch_norm("bn", **vectors)), sites=sites))


@pytest.mark.parametrize(
    ("variance", "ratio", "severity"),
    [
        (1e-4, 3.162, Severity.ERROR),
        (1e-3, 1.407, Severity.ERROR),
        (1e-2, 1.048, Severity.WARNING),
        (1.0, 1.0005, Severity.INFO),
    ],
)
def test_epsilon_is_weighed_by_the_smallest_variance(variance: float, ratio: float, severity: Severity) -> None:
    """The published ratios of 1e-3 against 1e-5 (P15), on the channel where they matter most."""
    found = only(EPSILON, two_epsilons(1e-3, 1e-5, variance=[variance, 5.0, 7.0, 9.0]))
    assert found.severity is severity
    assert found.measurements[2].value == pytest.approx(ratio, rel=1e-3)


def test_a_dead_channel_does_not_decide_the_epsilon() -> None:
    """Its input is constant: a scale that differs has nothing to act on."""
    found = only(EPSILON, two_epsilons(1e-3, 1e-5, variance=[1e-36, 5.0, 7.0, 9.0]))
    assert found.severity is Severity.INFO


def test_the_fused_minimum_is_recognised() -> None:
    """1e-5 asked for and 1.001e-5 in the op: a note that says who raised it; float noise is nothing at all."""
    found = only(EPSILON, two_epsilons(1.001e-5, 1e-5))
    assert found.severity is Severity.INFO
    assert "at least 1.001e-05" in found.message
    assert not list(EPSILON.check(two_epsilons(1e-3, float(np.float32(1e-3)))))


def test_the_configuration_counts_as_a_site() -> None:
    """A graph applied with another epsilon than its Keras configuration says."""
    layer = replace(wired(batch_norm("bn", variance=1e-3)), config={"epsilon": 1e-5})
    assert only(EPSILON, with_graph(layer)).severity is Severity.ERROR
