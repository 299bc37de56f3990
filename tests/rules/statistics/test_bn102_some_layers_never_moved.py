"""BN102 some-layers-never-moved."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Origin
from bncheck.rules.statistics import bn102_some_layers_never_moved
from bncheck.testing import batch_norm, facts, untouched

SOME = bn102_some_layers_never_moved.check


def test_early_collection_is_recognised_by_order() -> None:
    """All layers from one on in forward order: UPDATE_OPS was read too early. By name alone the order says nothing."""
    layers = [batch_norm("a"), batch_norm("b"), untouched("c"), untouched("d")]
    assert "from `c` on" in only(SOME, facts(*layers)).message
    named = [replace(layer, origin=Origin.NAME) for layer in layers]
    assert "from `c` on" not in only(SOME, facts(*named)).message


def test_scope_is_recognised() -> None:
    """All layers of one scope: a target network; a scope that also holds moved layers is none."""
    layers = [untouched("target/a"), untouched("target/b"), batch_norm("online/a")]
    assert "layers of `target`" in only(SOME, facts(*layers)).message
    assert "layers of" not in only(SOME, facts(*layers, batch_norm("target/c"))).message.partition(":")[2]


def test_trained_and_frozen_layers_are_told_apart() -> None:
    """One error for trained layers that stood still, one note for frozen ones."""
    model = facts(batch_norm("a"), untouched("b"), untouched("frozen", gamma=1.0, beta=0.0))
    assert [(e.layers, e.severity) for e in SOME.check(model)] == [
        (("b",), Severity.ERROR),
        (("frozen",), Severity.INFO),
    ]
