"""Averages that trail: told where wiring, decay and length are in order and labels say that eval mode is worse."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncheck.facts.layers import Facts, RunFacts
from bncheck.rules.modes import bn302_layer_diverges
from bncheck.rules.shared.lag import lag
from bncheck.testing import batch_norm, classes_compared, compared, difference, graph_facts, unwired, wired


def _drifting(*local: float, decay: float = 0.9, updates: int = 60, connect: bool = True) -> Facts:
    make = wired if connect else unwired
    names = [f"bn{number}" for number in range(len(local))]
    layers = [make(batch_norm(name), decay=decay) for name in names]
    model = compared(
        *(difference(name, local=loss) for name, loss in zip(names, local, strict=True)),
        output=classes_compared(0.7),
        accuracy=(0.768, 0.674),
        layers=layers,
    )
    run = RunFacts(values=True, global_step=updates, updates=updates)
    return replace(model, graph=graph_facts(*layers), run=run)


def test_most_layers_drift() -> None:
    """The story is that of weights that still moved, with what to do about it."""
    model = _drifting(0.002, 0.03, 0.02, 0.04)
    assert "the last 10 updates" in lag(model)
    (found,) = bn302_layer_diverges.check.check(model)
    assert "the first of 3 layers that drift" in found.message
    assert "learning_rate" in found.fix


def test_the_first_layer_too() -> None:
    """Then the data may be of another domain."""
    assert "another domain" in lag(_drifting(0.02, 0.03, 0.02, 0.04))


@pytest.mark.parametrize(
    "model",
    [
        _drifting(0.002, 0.002, 0.002, 0.4),
        _drifting(0.002, 0.03, 0.02, 0.04, decay=0.99),
        _drifting(0.002, 0.03, 0.02, 0.04, connect=False),
        replace(_drifting(0.002, 0.03, 0.02, 0.04), graph=None),
    ],
)
def test_any_other_cause_comes_first(model: Facts) -> None:
    """One layer alone, a run too short for its decay, updates that nothing runs, or no graph that would tell."""
    assert lag(model) == ""


def test_without_labels() -> None:
    """Nothing tells that eval mode is the worse one."""
    model = compared(*(difference(name, local=0.03) for name in "abc"), output=classes_compared(0.3))
    assert lag(model) == ""
