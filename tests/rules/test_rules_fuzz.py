"""No values that a file can hold make a rule on statistics raise, warn, or measure what is no number."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bncheck.facts.layers import Debias, Facts, Layer, Linear, RunFacts
from bncheck.facts.lite import FoldedOperator
from bncheck.rules import RULES
from bncheck.testing import batch_norm, facts, folded, lite

NUMBERS = st.one_of(
    st.sampled_from(
        [0.0, 1.0, -0.0, 1e-38, 1.1664e-36, 1e300, 5e-324, float("nan"), float("inf"), -float("inf"), 65504.0]
    ),
    st.floats(width=32),
)
SHARES = st.sampled_from([None, 0.0, 0.9, 0.99, 0.9997, 1.0, 1.5, -0.1])


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    """A layer of arbitrary values, some vectors absent, empty or of another length than the rest."""
    channels = draw(st.integers(0, 20))

    def values(length: int = channels) -> list[float]:
        return draw(st.lists(NUMBERS, min_size=length, max_size=length))

    def constant() -> dict[str, object]:
        return {"channels": max(channels, 1)}

    if channels == 0:
        return batch_norm(draw(st.sampled_from("ab")), **constant())
    kernel = np.array(values(draw(st.sampled_from([channels, channels + 1]))), np.float64)
    return batch_norm(
        draw(st.sampled_from("abc")),
        mean=draw(st.sampled_from([0.0, values()])),
        variance=draw(st.sampled_from([1.0, values()])),
        gamma=draw(st.sampled_from([None, 1.0, values(), values(3)])),
        beta=draw(st.sampled_from([None, 0.0, values()])),
        channels=channels,
        epsilon=draw(st.sampled_from([None, 0.0, 1e-5, 1e-3])),
        decay=draw(SHARES),
        debias=draw(st.sampled_from([None, Debias(mean=True, variance=False), Debias(mean=True, variance=True)])),
        linear=Linear(name="conv", op="Conv2D", kernel="w", channel_max=draw(st.sampled_from([None, kernel]))),
    )


@st.composite
def operators(draw: st.DrawFn) -> FoldedOperator:
    """A TFLite operator of arbitrary channel ranges."""
    ranges = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=6)), np.float64)
    return folded(channel_max=ranges, weight_scales=draw(st.sampled_from([None, 0.1])))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(layers(), max_size=4, unique_by=lambda layer: layer.name),
    st.sampled_from([None, 0, 1, 300, 10**9]),
)
def test_any_values(found: list[Layer], updates: int | None) -> None:
    """Rules yield evidence or nothing; warnings are errors here, so 0 / 0 would show."""
    judge(facts(*found, run=RunFacts(values=True, updates=updates, global_step=updates)))


@settings(max_examples=30, deadline=None)
@given(st.lists(operators(), max_size=3))
def test_any_ranges(found: list[FoldedOperator]) -> None:
    """The same for TFLite files."""
    judge(lite(*found))


def judge(model: Facts) -> None:
    """Runs the rules on statistics and folding, and looks at what they measure."""
    for rule in RULES:
        if rule.code.startswith(("BN1", "BN4")):
            for evidence in rule.check(model):
                assert evidence.message
                assert not any(isinstance(item.value, float) and np.isnan(item.value) for item in evidence.measurements)
