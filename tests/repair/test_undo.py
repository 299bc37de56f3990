"""`--debias` over whole models: what can be undone is; counts are doubted where the values speak against them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bncheck.facts.errors import UsageError
from bncheck.facts.layers import DecaySource, Facts, Layer, RunFacts
from bncheck.facts.predicted import Predicted
from bncheck.repair.undo import undo
from bncheck.settings.options import Options
from bncheck.testing import batch_norm, facts, untouched, unwired, wired

SHARE = 0.99**100


def mixed(name: str, *, truth: Any = (0.01, 0.5, 1.0, 2.0), **facts_of_it: Any) -> Layer:
    """A layer of which SHARE is initial value."""
    values = np.asarray(truth)
    return batch_norm(name, mean=(1 - SHARE) * values, variance=SHARE + (1 - SHARE) * values, decay=0.99, **facts_of_it)


def model(*layers: Layer, updates: int | None = 100) -> Facts:
    """Layers after so many updates."""
    return facts(*layers, run=RunFacts(values=True, updates=updates, updates_from="global_step"))


def test_every_layer_is_undone() -> None:
    """Both layers get what their batches had."""
    found = undo(model(mixed("a"), mixed("b")), Options())
    assert [new.layer for new in found.new] == ["a", "b"]
    for new in found.new:
        np.testing.assert_allclose(new.variance, [0.01, 0.5, 1.0, 2.0], rtol=1e-9)
        np.testing.assert_allclose(new.mean, [0.01, 0.5, 1.0, 2.0], rtol=1e-9)
    assert found.left == ()


def test_means_are_those_that_the_weights_predict() -> None:
    """Where the prediction has to do with the average, and that reaches back over the whole training."""
    truth = np.linspace(-2.0, 2.0, 16)
    newer = Predicted(mean=truth + 0.1, variance=np.ones(16))
    other = Predicted(mean=np.cos(np.arange(16) * 2.0), variance=np.ones(16))
    share = 0.99**100

    def layer(name: str, predicted: Predicted) -> Layer:
        stored = (1 - share) * truth
        return batch_norm(
            name, mean=stored, variance=share + (1 - share) * 1.1, channels=16, decay=0.99, predicted=predicted
        )

    good, bad = undo(model(layer("a", newer), layer("b", other)), Options(steps=100)).new
    np.testing.assert_allclose(good.mean, truth + 0.1)
    assert good.from_weights == pytest.approx(0.1, rel=0.1)
    np.testing.assert_allclose(bad.mean, truth)
    assert bad.from_weights is None
    (recent,) = undo(model(layer("a", newer), updates=600), Options(steps=600, decay=0.99)).new
    assert recent.from_weights is None


def test_layers_that_need_nothing_stay() -> None:
    """One was never trained, one has no statistics: both are named with the reason, the third is undone."""
    frozen = batch_norm("frozen", mean=0.0, variance=1.0, gamma=1.0, beta=0.0, decay=0.99)
    bare = batch_norm("bare", mean=None, variance=None)
    found = undo(model(mixed("a"), frozen, bare), Options())
    assert [new.layer for new in found.new] == ["a"]
    assert {left.layer: left.reason.split(":")[0] for left in found.left} == {
        "frozen": "it was never trained",
        "bare": "it has no statistics",
    }


def test_one_layer_that_cannot_be_known_refuses_all() -> None:
    """Half a repair would look like one: the layer is named, its reason given, and the way out."""
    with pytest.raises(UsageError, match=r"1 of 2 layers; b: its moving mean never moved.*--data"):
        undo(model(mixed("a"), untouched("b", decay=0.99)), Options())


def test_equal_reasons_are_told_once() -> None:
    """Five layers that never moved are one reason."""
    layers = [untouched(f"l{number}", decay=0.99) for number in range(5)]
    with pytest.raises(UsageError, match="l0 and 4 more: its moving mean never moved"):
        undo(model(*layers), Options())


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (model(mixed("a"), updates=None), "give --steps"),
        (model(replace(mixed("a"), decay=None)), "give --decay"),
        (model(mixed("a"), updates=30), "smallest moving variance.*from --steps"),
        (model(mixed("a", truth=[900.0, 950.0, 990.0, 1000.0]), updates=100), "no stored variance is near"),
        (model(unwired(mixed("a"))), "no train op runs its updates"),
        (model(mixed("a"), updates=100_000), "there is nothing to debias"),
    ],
)
def test_counts_that_are_not_sure_are_refused(target: Facts, reason: str) -> None:
    """Unknown, contradicted by the values, or nobody's: updates that no train op runs."""
    with pytest.raises(UsageError, match=reason):
        undo(target, Options())


def test_steps_that_the_user_gives_are_believed() -> None:
    """`--steps` vouches for what the values alone make doubtful."""
    far = mixed("a", truth=[900.0, 950.0, 990.0, 1000.0])
    found = undo(model(far), Options(steps=100))
    np.testing.assert_allclose(found.new[0].variance, [900.0, 950.0, 990.0, 1000.0], rtol=1e-9)
    assert undo(model(unwired(mixed("a"))), Options(steps=100)).new
    assert undo(model(wired(mixed("a"))), Options()).new


def test_the_decay_that_the_user_gives_goes_before_all_others() -> None:
    """Where a file tells none, as weights without a configuration, and where it tells another."""
    truth = [0.01, 0.5, 1.0, 2.0]
    for layer in (replace(mixed("a"), decay=None), replace(mixed("a"), decay=0.5, decay_from=DecaySource.GRAPH)):
        found = undo(model(layer), Options(decay=0.99, steps=100))
        np.testing.assert_allclose(found.new[0].variance, truth, rtol=1e-9)
