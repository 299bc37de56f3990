"""The init share as running the model shows it: found where it is the whole difference, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Facts
from bncheck.rules.modes import bn301_output_junk_in_eval
from bncheck.rules.shared.init_share_measured import share_in_data
from bncheck.rules.statistics import bn103_init_share_too_high
from bncheck.testing import batch_norm, classes_compared, compared, difference

CHANNELS, EPSILON = 16, 1e-3
DRAWN = np.random.default_rng(0)
TRUE = {name: np.exp(DRAWN.normal(-2, 1, CHANNELS)) for name in "ab"}
MEANS = {name: DRAWN.normal(0, 1, CHANNELS) for name in "ab"}


def model(share: float, *, scale: float = 1.0, noise: float = 0.1, unlike: float = 0.0, **facts: Any) -> Facts:
    """Two layers with a share of 0 and 1 in them, noise as of a run; data `scale` times as large, or `unlike` them."""
    layers, places = [], []
    for name in "ab":
        drawn = np.random.default_rng(1)
        stored = share + (1 - share) * TRUE[name] * np.exp(drawn.normal(0, noise, CHANNELS))
        mean = (1 - share) * MEANS[name]
        seen = TRUE[name] * scale**2 * np.exp(drawn.normal(0, unlike, CHANNELS))
        shift = (MEANS[name] * scale - mean) / np.sqrt(stored + EPSILON)
        ratio = np.log((seen + EPSILON) / (stored + EPSILON))
        layers.append(batch_norm(name, mean=mean, variance=stored, channels=CHANNELS, epsilon=EPSILON))
        places.append(difference(name, local=0.5, mean_shift=shift, log_variance_ratio=ratio, worst_channels=()))
    return compared(*places, layers=layers, output=classes_compared(0.2), **facts)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.85, 0.99])
def test_the_share_is_found(share: float) -> None:
    """To a few per cent, from noisy averages, in both layers; the output is then accused without labels."""
    facts = model(share)
    found = share_in_data(facts)
    assert found is not None
    assert found.share == pytest.approx(share, abs=0.02)
    assert found.layers == ("a", "b")
    (told,) = bn103_init_share_too_high.check.check(facts)
    assert told.severity is Severity.ERROR
    assert told.message.startswith(f"{100 * found.share:.1f} % of the statistics is still initial value")
    (junk,) = bn301_output_junk_in_eval.check.check(facts)
    assert junk.severity is None


@pytest.mark.parametrize(
    "facts",
    [
        model(0.0),
        model(0.0, scale=0.3),
        model(0.0, scale=4.0),
        model(0.0, unlike=1.0),
        model(0.5, unlike=1.5),
        model(0.85, samples=8),
        model(0.85, synthetic=True),
    ],
)
def test_other_differences_are_none(facts: Facts) -> None:
    """Healthy; darker and lighter images; other data; too few of them, or noise."""
    assert share_in_data(facts) is None


def test_variances_near_one_are_no_share() -> None:
    """Layers whose data have variances near 1 by themselves, on data that are darker: one factor explains as much."""
    facts = model(0.0, scale=0.3)
    near = [
        replace(layer, variance=replace(layer.variance, values=np.exp(DRAWN.normal(0, 0.1, CHANNELS))))
        for layer in facts.layers
    ]
    assert share_in_data(replace(facts, layers=tuple(near))) is None
