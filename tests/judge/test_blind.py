"""Rules that are not asked again for checkpoints of one graph: only such as find nothing, and look at no value."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.facts.layers import Facts, Layer, RunFacts
from bncheck.facts.record import replace
from bncheck.judge.blind import silent_rules
from bncheck.rules import RULES
from bncheck.rules.rule import Rule


@pytest.mark.parametrize("rule", list(RULES), ids=lambda rule: str(rule.code))
def test_no_silent_rule_finds_anything(rule: Rule) -> None:
    """In all that any rule gives as an example, whatever the values are then."""
    import sys

    module = sys.modules[rule.check.__module__]
    for model in (*module.broken(), *module.clean()):
        silent = silent_rules(model)
        for other in (model, *(_with_other_values(model, seed) for seed in range(2))):
            assert not [code for code in silent if next(RULES.rule(code).check(other), None) is not None]


def test_some_are_silent() -> None:
    """Most rules of wiring, for a graph in which all is wired; none that look at statistics."""
    module = __import__("bncheck.rules.wiring.bn201_update_not_wired", fromlist=["clean"])
    silent = silent_rules(module.clean()[0])
    assert {"BN201", "BN202", "BN216"} <= silent
    assert silent.isdisjoint({"BN101", "BN103", "BN105", "BN107", "BN119", "BN403"})


def _with_other_values(model: Facts, seed: int) -> Facts:
    random = np.random.default_rng(seed)
    layers = tuple(_other(layer, random) for layer in model.layers)
    run = model.run
    if run.updates is not None:
        run = replace(run, updates=int(random.integers(1, 10**6)), global_step=int(random.integers(1, 10**6)))
    assert isinstance(run, RunFacts)
    return replace(model, layers=layers, run=run)


def _other(layer: Layer, random: np.random.Generator) -> Layer:
    changed = {}
    for name in ("mean", "variance", "gamma", "beta"):
        vector = getattr(layer, name)
        if vector.values is not None and vector.values.size:
            values = random.choice([0.0, 1.0, np.nan, 1e-9, 300.0]) + random.normal(size=vector.values.shape)
            changed[name] = replace(vector, values=values, constant=None, constant_checked=True)
    return replace(layer, **changed)
