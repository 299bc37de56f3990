"""BN213 update-fed-by-other-input."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.rules.wiring import (
    bn213_update_fed_by_other_input,
)
from bncheck.rules.wiring.bn213_update_fed_by_other_input import two_towers
from bncheck.testing import (
    batch_norm,
    wired,
    with_graph,
)

OTHER_INPUT = bn213_update_fed_by_other_input.check


def test_a_validation_tower_by_its_gradients() -> None:
    """No gradient flows from it and its data are others: a warning, sure of itself, that names the input."""
    found = only(OTHER_INPUT, with_graph(two_towers("images", "other_images", name="bn_1", learns=False)))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.HIGH)
    assert "their input is `other_images`" in found.message


def test_a_head_in_no_loss_is_only_noted() -> None:
    """An auxiliary head, whose updates run on the training data although no gradient flows from it."""
    trained, head = wired(batch_norm("bn")), wired(batch_norm("aux"))
    trained = replace(trained, sites=tuple(replace(s, inputs=("images",), backpropagated=True) for s in trained.sites))
    head = replace(head, sites=tuple(replace(s, backpropagated=False) for s in head.sites), trained_by=())
    for data, severity in (("images", Severity.INFO), ("val_images", Severity.WARNING)):
        fed = replace(head, updates=tuple(replace(u, inputs=(data,)) for u in head.updates))
        assert only(OTHER_INPUT, with_graph(trained, fed)).severity is severity


def test_siamese_towers_are_only_noted() -> None:
    """Anchor and positive both learn: two inputs in one average are a note of low confidence, whatever their names."""
    found = only(OTHER_INPUT, with_graph(two_towers("anchor", "valid_pair", name="b", learns=True)))
    assert (found.severity, found.confidence) == (Severity.INFO, Confidence.LOW)


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("val_images", Severity.WARNING),
        ("input/validation", Severity.WARNING),
        ("x_test", Severity.WARNING),
        ("latest", Severity.INFO),
        ("values", Severity.INFO),
        ("noise", Severity.INFO),
    ],
)
def test_names_decide_only_where_gradients_are_unknown(name: str, severity: Severity) -> None:
    """Val, valid, eval, test and dev as words of a name make it a warning; as parts of other words they do not."""
    assert only(OTHER_INPUT, with_graph(two_towers("images", name, name="bn_1", learns=None))).severity is severity


def test_an_input_that_both_have_does_not_count() -> None:
    """A shared label or mask beside one and the same image is no other input."""
    layer = two_towers("images", "images", name="tower_1", learns=True)
    assert not list(OTHER_INPUT.check(with_graph(layer)))


def test_each_train_op_with_its_own_network_is_healthy_and_a_shared_list_noted() -> None:
    """A GAN whose discriminator step also runs the generator's updates: a note that names both ops."""
    shared = wired(batch_norm("g"), "g_adam", train_ops=("g_adam", "d_adam"))
    found = only(OTHER_INPUT, with_graph(shared, wired(batch_norm("d"), "d_adam")))
    assert found.severity is Severity.INFO
    assert "`d_adam` also runs the updates of 1 layer that `g_adam` trains and updates" in found.message
