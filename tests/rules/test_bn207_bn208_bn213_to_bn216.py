"""When, how often and from which data updates run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Mode, Role
from bncheck.rules.wiring import (
    bn207_update_outside_its_branch,
    bn208_too_many_updates_per_step,
    bn213_update_fed_by_other_input,
    bn214_update_reachable_from_output,
    bn215_update_in_dead_branch_or_loop,
    bn216_other_tower_not_wired,
)
from bncheck.rules.wiring.bn208_too_many_updates_per_step import applied
from bncheck.rules.wiring.bn213_update_fed_by_other_input import two_towers
from bncheck.rules.wiring.bn216_other_tower_not_wired import towered
from bncheck.testing import (
    batch_norm,
    served,
    serving,
    site,
    switch,
    unread,
    untouched,
    unwired,
    update,
    updates,
    wired,
    with_graph,
)

OUTSIDE = bn207_update_outside_its_branch.check
MANY = bn208_too_many_updates_per_step.check
OTHER_INPUT = bn213_update_fed_by_other_input.check
OUTPUT = bn214_update_reachable_from_output.check
DEAD = bn215_update_in_dead_branch_or_loop.check
TOWERS = bn216_other_tower_not_wired.check


@pytest.mark.parametrize(
    ("runs_with_site", "in_collection", "severity"),
    [
        (True, True, Severity.WARNING),
        (True, False, Severity.WARNING),
        (None, False, Severity.INFO),
        (None, True, None),
        (False, False, None),
    ],
)
def test_an_unconditional_update_counts_where_evaluation_runs_it(
    *, runs_with_site: bool | None, in_collection: bool, severity: Severity | None
) -> None:
    """Sure where the site waits for it; a note where that is unknown; nothing where only the train op runs it."""
    layer = wired(
        batch_norm("bn"),
        mode=Mode.SWITCHED,
        decay_when_off=0.99,
        runs_with_site=runs_with_site,
        in_collection=in_collection,
    )
    assert [e.severity for e in OUTSIDE.check(with_graph(layer))] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("times", "decay", "resource", "severity"),
    [
        (20, 0.9, True, Severity.ERROR),
        (19, 0.9, True, Severity.WARNING),
        (10, 0.9, True, Severity.WARNING),
        (9, 0.9, True, None),
        (250, 0.99, True, Severity.ERROR),
        (30, 0.9, False, Severity.WARNING),
        (2, 0.999, True, None),
        (10, None, True, Severity.WARNING),
        (9, None, True, None),
    ],
)
def test_n_times_one_minus_decay(times: int, decay: float | None, *, resource: bool, severity: Severity | None) -> None:
    """From 1 on a warning, from 2 on an error on resource variables (P8); reference variables race."""
    found = list(MANY.check(with_graph(applied(times, decay=decay, resource=resource))))
    assert [e.severity for e in found] == ([severity] if severity else [])


def test_the_load_is_a_number() -> None:
    """30 updates at 0.9: N (1 - decay) is 3, the limit 2."""
    found = only(MANY, with_graph(applied(30, decay=0.9)))
    load = found.measurements[1]
    assert load.value == pytest.approx(3.0)
    assert load.limit == 2.0


def test_two_train_ops_are_two_steps() -> None:
    """Updates that different train ops run do not add up."""
    layer = replace(
        wired(batch_norm("bn")),
        updates=tuple(
            update("bn", name=f"u{n}", decay=0.5, train_ops=(op,)) for n, op in enumerate(("g_adam", "d_adam"))
        ),
    )
    assert not list(MANY.check(with_graph(layer)))


def test_a_validation_tower_by_its_gradients() -> None:
    """No gradient flows from it and its data are others: a warning, sure of itself, that names the input."""
    found = only(OTHER_INPUT, with_graph(two_towers("images", "other_images", name="bn_1", learns=False)))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.HIGH)
    assert "fed by `other_images`, not by the data it trains on" in found.message


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


@pytest.mark.parametrize(
    ("facts_of_updates", "severity"),
    [
        ({}, Severity.ERROR),
        ({"branch": switch()}, Severity.WARNING),
        ({"decay_when_off": 1.0}, Severity.WARNING),
        ({"decay_when_off": 0.9}, Severity.ERROR),
    ],
)
def test_serving_that_writes_is_weighed_by_its_guard(facts_of_updates: dict[str, object], severity: Severity) -> None:
    """Unguarded updates change the model at each request; guarded ones only stop converters."""
    layer = served(batch_norm("bn"), Mode.SWITCHED)
    layer = replace(layer, updates=updates("bn", outputs=("serving_default/logits",), **facts_of_updates))
    assert only(OUTPUT, serving(layer)).severity is severity


def test_training_signatures_write_on_purpose() -> None:
    """On-device training exports a signature `train`; only other outputs count, and only they are named."""
    layer = replace(served(batch_norm("bn")), updates=updates("bn", outputs=("train/loss", "infer/logits")))
    found = only(OUTPUT, serving(layer))
    assert "`infer/logits`" in found.message
    assert "train/loss" not in found.message


@pytest.mark.parametrize(
    ("in_loop", "layer", "severity"),
    [
        (False, untouched("bn"), Severity.ERROR),
        (False, unread(batch_norm("bn")), Severity.WARNING),
        (False, batch_norm("bn"), Severity.INFO),
        (True, unread(batch_norm("bn")), Severity.ERROR),
        (True, batch_norm("bn"), Severity.WARNING),
    ],
)
def test_collected_inside_is_weighed_with_the_values(*, in_loop: bool, layer: object, severity: Severity) -> None:
    """A branch that is taken in training moves the statistics; a loop cannot be waited for at all."""
    inside = unwired(layer, in_loop=in_loop, collected_in_branch=True)
    assert only(DEAD, with_graph(inside)).severity is severity


def test_the_condition_is_named() -> None:
    """The predicate under which the update lives is what a reader looks for."""
    layer = wired(untouched("bn"), collected_in_branch=True, branch=switch("use_aux"))
    assert "The condition is `use_aux`." in only(DEAD, with_graph(layer)).message


@pytest.mark.parametrize(
    ("wiring", "severity", "said"),
    [
        ("+-", Severity.INFO, "only the first has its updates wired: common practice if meant so."),
        ("---+", Severity.INFO, "only the last has its updates wired: common practice if meant so, or a list"),
        ("-+-", Severity.INFO, "only one in the middle"),
        ("++-", Severity.WARNING, "2 have their updates wired and 1 have not"),
    ],
)
def test_which_towers_are_wired(wiring: str, severity: Severity, said: str) -> None:
    """One tower may be on purpose, and its place tells; some but not all is meant by nobody."""
    found = only(TOWERS, with_graph(towered(wiring)))
    assert found.severity is severity
    assert said in found.message


def test_an_unwired_validation_tower_is_no_tower() -> None:
    """A second site on which no train op depends is left out, as the usual remedy for BN213 makes it."""
    layer = wired(batch_norm("bn"))
    aside = site("val/bn", train_ops=())
    own = tuple(update("bn", role, name=f"val/{role.value}", site=aside.name) for role in (Role.MEAN, Role.VARIANCE))
    layer = replace(layer, sites=(*layer.sites, aside), updates=layer.updates + own)
    assert not list(TOWERS.check(with_graph(layer)))
