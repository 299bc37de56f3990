"""BN202 some-updates-not-wired."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.rules.wiring import bn202_some_updates_not_wired
from bncheck.testing import (
    batch_norm,
    untouched,
    unwired,
    update,
    wired,
    with_graph,
)

SOME = bn202_some_updates_not_wired.check


def test_read_too_early_names_the_depth() -> None:
    """9 of 17 layers wired and none after them: the message says from which layer on."""
    layers = [wired(batch_norm(f"conv{n}")) for n in range(9)]
    layers += [unwired(untouched(f"conv{n}")) for n in range(9, 17)]
    found = only(SOME, with_graph(*layers))
    assert "The first 9 of 17 are wired, and none from `conv9` on" in found.message
    assert found.layers == tuple(f"conv{n}" for n in range(9, 17))
    assert found.severity is Severity.ERROR


def test_a_list_replaced_names_the_other_end() -> None:
    """Only the last layers wired reads differently from only the first ones."""
    found = only(SOME, with_graph(unwired(untouched("a")), wired(batch_norm("b"))))
    assert "Only those from `b` on are wired" in found.message


def test_holes_are_named() -> None:
    """Layers in the middle follow no pattern and are named."""
    found = only(SOME, with_graph(wired(batch_norm("a")), unwired(untouched("b")), wired(batch_norm("c"))))
    assert "Not wired: `b`." in found.message


def test_one_network_of_a_gan() -> None:
    """All layers of one train op unwired: the message names that op, the fix is per network."""
    found = only(SOME, with_graph(wired(batch_norm("d"), "d_adam"), unwired(untouched("g"), "g_adam")))
    assert "layers that `g_adam` trains" in found.message
    assert 'scope="g/"' in found.fix
    assert 'var_list=tf.trainable_variables("g/")' in found.fix


@pytest.mark.parametrize(("variance", "severity"), [(1.0, Severity.ERROR), (0.3, Severity.WARNING)])
def test_half_a_pair_is_weighed_by_the_half_that_is_lacking(variance: float, severity: Severity) -> None:
    """The mean moved because it is wired; what counts is whether the variance did."""
    layer = unwired(batch_norm("bn", variance=variance))
    layer = replace(layer, updates=(update("bn", train_ops=("Adam",)), layer.updates[1]))
    found = only(SOME, with_graph(layer))
    assert found.severity is severity
    assert "the op that writes the moving variance" in found.message


def test_a_second_trainer_without_updates_is_a_warning_or_a_note() -> None:
    """A warm-up train op that runs no updates: a warning unless the statistics moved."""
    layer = replace(wired(untouched("bn")), trained_by=("Adam", "warmup"))
    assert only(SOME, with_graph(layer)).severity is Severity.WARNING
    layer = replace(wired(batch_norm("bn")), trained_by=("Adam", "warmup"))
    assert only(SOME, with_graph(layer)).severity is Severity.INFO


def test_the_steps_of_a_gan_are_told_by_what_they_train() -> None:
    """Where no other step trains a variable of theirs, that is said, and the fix trains the whole network."""
    model = with_graph(wired(batch_norm("d/bn"), "d_adam"), unwired(untouched("g/bn"), "g_adam"))
    assert model.graph is not None
    variables = {"d_adam": ("d/bn/gamma", "d/w"), "g_adam": ("g/bn/gamma", "g/w")}
    ops = tuple(replace(op, variables=variables[op.name]) for op in model.graph.train_ops)
    found = only(SOME, replace(model, graph=replace(model.graph, train_ops=ops)))
    assert "as in a GAN" in found.message
    assert 'var_list=tf.trainable_variables("g/")' in found.fix
