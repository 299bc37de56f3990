"""BN206 mode-switch-left-open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Layer, Mode, Purpose, RunFacts, Switch
from bncheck.rules.wiring import (
    bn206_mode_switch_left_open,
)
from bncheck.testing import (
    batch_norm,
    facts,
    graph_facts,
    served,
    serving,
    switch,
    unread,
    untouched,
    unwired,
    wired,
    with_graph,
)

SWITCH = bn206_mode_switch_left_open.check
OFF = switch("keras_learning_phase", "placeholder-with-default", default=False)
ON = switch("keras_learning_phase", "placeholder-with-default", default=True)
FED = switch("is_training")
INVERTED = switch("is_inference", "placeholder-with-default", default=False, train_when=False)
COMPUTED = switch("and", "computed")


@pytest.mark.parametrize(
    ("layer", "by", "in_service", "severity"),
    [
        (batch_norm("bn"), ON, True, Severity.ERROR),
        (batch_norm("bn"), ON, False, Severity.WARNING),
        (batch_norm("bn"), INVERTED, True, Severity.ERROR),
        (batch_norm("bn"), FED, True, Severity.WARNING),
        (batch_norm("bn"), FED, False, Severity.INFO),
        (batch_norm("bn"), OFF, True, Severity.INFO),
        (unread(batch_norm("bn")), OFF, True, Severity.WARNING),
        (untouched("bn"), OFF, False, Severity.ERROR),
        (untouched("bn"), COMPUTED, True, Severity.INFO),
    ],
)
def test_an_open_switch_is_weighed(layer: Layer, *, by: Switch, in_service: bool, severity: Severity) -> None:
    """By what the default selects, whether the graph is served, and whether the stored statistics ever moved."""
    outputs = ("serving_default/logits",) if in_service else ()
    switched = served(layer, Mode.SWITCHED, switch=by, outputs=outputs)
    model = serving(switched) if in_service else with_graph(switched)
    assert only(SWITCH, model).severity is severity


def test_one_switch_is_one_finding() -> None:
    """Layers on one placeholder are listed together, those on another apart."""
    layers = [served(batch_norm(name), Mode.SWITCHED, switch=FED) for name in "ab"]
    other = served(batch_norm("c"), Mode.SWITCHED, switch=OFF)
    assert [e.layers for e in SWITCH.check(serving(*layers, other))] == [("a", "b"), ("c",)]


def test_spleeter_in_small() -> None:
    """A predict graph, learning phase False by default, statistics never moved: an error that says both readings."""
    layers = [served(untouched(name), Mode.SWITCHED, switch=OFF, outputs=()) for name in "ab"]
    found = only(SWITCH, with_graph(*layers))
    assert found.severity is Severity.ERROR
    assert "2 of 2 layers never moved" in found.message


def switched(layer: Layer, by: Switch) -> Layer:
    """The layer of a training graph with its site switched by this."""
    return replace(layer, sites=tuple(replace(s, mode=Mode.SWITCHED, switch=by) for s in layer.sites))


def test_a_placeholder_is_healthy_in_training() -> None:
    """With statistics that moved, or none at hand, a training graph's placeholder is the normal way."""
    alone = unread(switched(wired(batch_norm("bn")), OFF))
    assert not list(SWITCH.check(with_graph(switched(wired(batch_norm("bn")), OFF))))
    assert not list(SWITCH.check(facts(alone, graph=graph_facts(alone), run=RunFacts())))


def test_never_fed_needs_every_piece_of_evidence() -> None:
    """Wired, switched by a placeholder, trained and never moved: only all four together mean "never fed True"."""
    layer = switched(wired(untouched("bn")), OFF)
    found = only(SWITCH, with_graph(layer))
    assert (found.severity, found.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert "was never fed True in training" in found.message
    assert '"keras_learning_phase:0": True' in found.fix
    assert only(SWITCH, with_graph(switched(layer, FED))).confidence is Confidence.MEDIUM
    untrained = switched(wired(batch_norm("bn", mean=0.0, variance=1.0, gamma=1.0, beta=0.0)), OFF)
    unreached = switched(unwired(untouched("bn")), OFF)
    half = with_graph(layer, wired(batch_norm("other")))
    assert not any(list(SWITCH.check(m)) for m in (with_graph(untrained), with_graph(unreached), half))


def test_a_graph_that_trains_and_serves_is_judged_as_served() -> None:
    """A SavedModel with an optimizer inside is served all the same."""
    layer = served(batch_norm("bn"), Mode.SWITCHED, switch=ON)
    assert only(SWITCH, serving(layer, purpose=Purpose.TRAINING)).severity is Severity.ERROR
