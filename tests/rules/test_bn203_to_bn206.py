"""Modes: no updates at all, trained in eval mode, served in train mode, a switch left open."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Layer, Mode, Origin, Purpose, RunFacts, Switch
from bncheck.rules.wiring import (
    bn203_no_update_op,
    bn204_trained_in_eval_mode,
    bn205_served_in_train_mode,
    bn206_mode_switch_left_open,
)
from bncheck.testing import (
    batch_norm,
    facts,
    graph_facts,
    keras_file,
    served,
    serving,
    site,
    switch,
    unread,
    untouched,
    unwired,
    wired,
    with_graph,
)

NO_UPDATE = bn203_no_update_op.check
EVAL = bn204_trained_in_eval_mode.check
SERVED = bn205_served_in_train_mode.check
SWITCH = bn206_mode_switch_left_open.check


def bare(layer: Layer, mode: Mode = Mode.TRAIN) -> Layer:
    """The layer in a training graph that holds no update of it."""
    return replace(unwired(layer, mode=mode), updates=())


def test_no_update_is_weighed_with_the_values() -> None:
    """Never moved: error, sure; unread: error, less so; moved: a warning of low confidence."""
    never = only(NO_UPDATE, with_graph(bare(untouched("bn"))))
    unknown = only(NO_UPDATE, with_graph(unread(bare(batch_norm("bn")))))
    moved = only(NO_UPDATE, with_graph(bare(batch_norm("bn"))))
    assert (never.severity, never.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert (unknown.severity, unknown.confidence) == (Severity.ERROR, Confidence.MEDIUM)
    assert (moved.severity, moved.confidence) == (Severity.WARNING, Confidence.LOW)


def test_statistics_that_an_optimizer_writes_lack_no_update() -> None:
    """They are written, wrongly: BN210 says so."""
    model = with_graph(bare(batch_norm("bn")), optimized={"bn/moving_mean": ("Adam/update",)})
    assert not list(NO_UPDATE.check(model))


def test_an_unknown_mode_is_no_reason_to_miss_an_update() -> None:
    """Only sites that surely use batch statistics ask for an update."""
    assert not list(NO_UPDATE.check(with_graph(bare(batch_norm("bn"), Mode.UNKNOWN))))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([bare(untouched("a"), Mode.EVAL)], [(Severity.ERROR, Confidence.HIGH)]),
        ([unread(bare(batch_norm("a"), Mode.EVAL))], [(Severity.ERROR, Confidence.MEDIUM)]),
        (
            [unread(bare(batch_norm("a"), Mode.EVAL)), unread(wired(batch_norm("b")))],
            [(Severity.WARNING, Confidence.MEDIUM)],
        ),
        ([bare(batch_norm("a"), Mode.EVAL)], [(Severity.INFO, Confidence.LOW)]),
        (
            [bare(batch_norm("backbone"), Mode.EVAL), bare(untouched("head"), Mode.EVAL)],
            [(Severity.ERROR, Confidence.HIGH), (Severity.INFO, Confidence.LOW)],
        ),
    ],
)
def test_trained_in_eval_mode_is_weighed(layers: list[Layer], expected: list[tuple[Severity, Confidence]]) -> None:
    """Never moved is an error; pretrained statistics are deliberate fine-tuning, beside which a new head is not."""
    found = list(EVAL.check(with_graph(*layers)))
    assert [(e.severity, e.confidence) for e in found] == expected


def test_a_tower_that_gradients_do_not_reach_does_not_count() -> None:
    """A train-mode validation tower hanging on the train op by its updates does not make the loss train on batches."""
    layer = bare(untouched("bn"), Mode.EVAL)
    aside = site("val/bn", Mode.TRAIN, train_ops=("Adam",), backpropagated=False)
    assert only(EVAL, with_graph(replace(layer, sites=(*layer.sites, aside)))).severity is Severity.ERROR


def test_training_in_eval_mode_does_not_offer_repair() -> None:
    """The weights fit the affine: new statistics would break such a model."""
    assert "bncheck repair" not in only(EVAL, with_graph(bare(untouched("bn"), Mode.EVAL))).fix


def test_served_train_mode_names_the_output() -> None:
    """The message says which output depends on the batch, and how many layers do it."""
    found = only(SERVED, serving(served(batch_norm("a"), Mode.TRAIN), served(batch_norm("b"))))
    assert found.message.startswith("`serving_default/logits` depends on train-mode sites of 1 of 2 layers")
    assert found.severity is Severity.ERROR


def test_a_predict_graph_with_an_eval_twin_is_no_fault() -> None:
    """A MetaGraph that applies the layer in both modes serves whichever is fetched."""
    layer = served(batch_norm("bn"), Mode.TRAIN, outputs=())
    both = replace(layer, sites=(*layer.sites, site("eval/bn", Mode.EVAL)))
    assert only(SERVED, with_graph(layer)).severity is Severity.WARNING
    assert not list(SERVED.check(with_graph(both)))


def test_keras_hard_coded_training_is_a_warning() -> None:
    """`training=True` in a call wins in Keras 2 and not in Keras 3: a warning of medium confidence."""
    baked = replace(served(batch_norm("bn"), Mode.TRAIN, outputs=()), origin=Origin.CONFIG)
    frozen = replace(served(batch_norm("bn"), Mode.EVAL, outputs=()), origin=Origin.CONFIG)
    found = only(SERVED, keras_file(baked))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.MEDIUM)
    assert not list(SERVED.check(keras_file(frozen)))


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
    assert "2 of 2 layers never moved: either it was never fed True" in found.message


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
