"""BN201 update-not-wired."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Facts, Layer, Mode, RunFacts
from bncheck.rules.rule import Rule
from bncheck.rules.wiring import bn201_update_not_wired, bn202_some_updates_not_wired
from bncheck.testing import (
    batch_norm,
    facts,
    graph_facts,
    saver,
    site,
    unread,
    untouched,
    unwired,
    wired,
    with_graph,
)

NONE = bn201_update_not_wired.check
SOME = bn202_some_updates_not_wired.check


def silent(*rules: Rule, model: Facts) -> bool:
    """Whether none of the rules says anything."""
    return not any(list(rule.check(model)) for rule in rules)


def test_the_story() -> None:
    """52 layers, 104 updates, none wired, none moved: one error over all layers, with both remedies as code."""
    model = with_graph(*(unwired(untouched(f"conv{n}/bn")) for n in range(52)))
    found = only(NONE, replace(model, path="run/model.ckpt-300"))
    assert found.message.startswith("The train op `Adam` runs none of the 104 update ops.")
    assert len(found.layers) == 52
    assert (found.severity, found.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert found.location == "Adam"
    assert "    with tf.control_dependencies(update_ops):\n" in found.fix
    assert found.fix.endswith("    bncheck repair run/model.ckpt-300 -o fixed.ckpt --data images/")
    assert {m.name: m.value for m in found.measurements} == {
        "update ops run by a train op": 0,
        "update ops": 104,
        "update ops in UPDATE_OPS": 104,
        "layers whose statistics never moved": 52,
    }


@pytest.mark.parametrize(
    ("layers", "severity"),
    [
        ([unwired(untouched("a")), unwired(untouched("b"))], Severity.ERROR),
        ([unread(unwired(batch_norm("a")))], Severity.ERROR),
        ([unwired(untouched("new_head")), unwired(batch_norm("pretrained"))], Severity.ERROR),
        ([unwired(batch_norm("a")), unwired(batch_norm("b"))], Severity.WARNING),
    ],
)
def test_severity_is_weighed_with_the_values(layers: list[Layer], severity: Severity) -> None:
    """Only statistics that all moved turn the error into a warning: then someone runs the updates by hand."""
    found = only(NONE, with_graph(*layers))
    assert found.severity is severity
    assert ("by hand" in found.message) == (severity is Severity.WARNING)


@pytest.mark.parametrize(
    ("facts_of_updates", "said", "remedy"),
    [
        ({}, "UPDATE_OPS holds 2 of them", "tf.GraphKeys.UPDATE_OPS"),
        ({"in_collection": False}, "UPDATE_OPS is empty", "model.get_updates_for(images)"),
        ({"waited_for_by": ("loss_with_updates",)}, "`loss_with_updates` waits for them instead", "UPDATE_OPS"),
    ],
)
def test_the_cause_is_told_apart(facts_of_updates: dict[str, object], said: str, remedy: str) -> None:
    """Forgotten, Keras in a TF1 graph, and hung on the loss read differently and are mended differently."""
    found = only(NONE, with_graph(unwired(untouched("bn"), **facts_of_updates)))
    assert said in found.message
    assert remedy in found.fix


def test_what_waits_for_one_of_several_layers_is_its_own() -> None:
    """An op behind the updates of a single layer runs none of the others'."""
    layers = [unwired(untouched(name), waited_for_by=(f"{name}_done",)) for name in ("a", "b")]
    assert "instead" not in only(NONE, with_graph(*layers)).message
    shared = [unwired(untouched(name), waited_for_by=(f"{name}_done", "update_all")) for name in ("a", "b")]
    assert "`update_all` waits for them instead" in only(NONE, with_graph(*shared)).message


@pytest.mark.parametrize(("variance", "severity"), [(0.5, Severity.WARNING), (0.04, Severity.INFO)])
def test_a_group_is_known_to_run_where_little_initial_value_is_left(variance: float, severity: Severity) -> None:
    """One op runs all updates: a variance of 0.04 in one layer leaves at most 4 % of initial value in all."""
    layers = (batch_norm("a", variance=variance), batch_norm("b"))
    found = only(NONE, with_graph(*(unwired(layer, waited_for_by=("update_all",)) for layer in layers)))
    assert found.severity is severity


def test_a_group_that_may_be_run_by_hand_lowers_confidence() -> None:
    """Without values nobody knows whether the group that waits for the updates is run beside the train op."""
    layer = unread(unwired(batch_norm("bn"), waited_for_by=("update_all",)))
    found = only(NONE, facts(layer, graph=graph_facts(layer), run=RunFacts()))
    assert (found.severity, found.confidence) == (Severity.ERROR, Confidence.MEDIUM)
    assert "bncheck repair CHECKPOINT -o OUT" in found.fix


def test_frozen_and_uncalled_layers_are_not_accused() -> None:
    """Neither a layer whose gamma and beta are not optimised nor one fine-tuned in eval mode needs its updates."""
    frozen = replace(unwired(untouched("frozen")), trained_by=())
    evaluated = unwired(batch_norm("backbone"), mode=Mode.EVAL)
    assert silent(NONE, SOME, model=with_graph(wired(batch_norm("head")), frozen, evaluated))
    assert silent(NONE, SOME, model=with_graph(frozen))


def test_a_layer_without_gamma_and_beta_counts_by_its_site() -> None:
    """With scale=False and center=False no optimizer writes the layer, but the train op depends on its site."""
    layer = replace(unwired(batch_norm("bn", mean=0.0, variance=1.0, gamma=None, beta=None)), trained_by=())
    assert only(NONE, with_graph(layer)).layers == ("bn",)


def test_a_validation_tower_does_not_hide_the_training_tower() -> None:
    """An eval site beside the train site, on which no train op depends, changes nothing."""
    layer = unwired(untouched("bn"))
    layer = replace(layer, sites=(*layer.sites, site("val/bn", Mode.EVAL)))
    assert only(NONE, with_graph(layer)).severity is Severity.ERROR


def test_updates_collected_in_a_loop_are_left_to_their_own_rule() -> None:
    """No train op can wait for an op in a loop (BN215): that it does not is not the fault."""
    layer = unwired(untouched("bn"), in_loop=True, collected_in_branch=True)
    assert silent(NONE, SOME, model=with_graph(layer))


def test_updates_run_by_the_other_train_op_are_run() -> None:
    """One shared UPDATE_OPS under the discriminator's step also moves the generator's statistics."""
    g = wired(batch_norm("g"), "g_adam", train_ops=("d_adam",))
    assert silent(NONE, SOME, model=with_graph(wired(batch_norm("d"), "d_adam"), g))


def test_one_wired_tower_is_enough() -> None:
    """Two towers update one variable and one of them is wired: BN216's business."""
    layer = wired(batch_norm("bn"))
    other = tuple(replace(u, name=f"tower_1/{u.name}", train_ops=()) for u in layer.updates)
    assert silent(NONE, SOME, model=with_graph(replace(layer, updates=layer.updates + other)))


def test_a_group_that_is_run_in_a_call_of_its_own() -> None:
    """All moved, one op waits for all updates and nothing else restores them: someone runs that op; a note where
    the values leave no doubt.
    """
    layer = unwired(batch_norm("bn", variance=0.04), waited_for_by=("update_averages",))
    evidence = only(NONE, with_graph(layer))
    assert evidence.severity is Severity.INFO
    assert "`update_averages` waits for them" in evidence.message
    assert evidence.fix.startswith("None needed if that call")


def test_a_group_beside_a_warm_start() -> None:
    """The statistics may come from elsewhere where a second restore reads them: a warning."""
    layer = unwired(batch_norm("bn", variance=0.04), waited_for_by=("update_averages",))
    restores = (saver(layer, name="save/RestoreV2"), saver(layer, name="warm/RestoreV2"))
    assert only(NONE, with_graph(layer, restores=restores)).severity is Severity.WARNING
