"""BN101 never-moved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity
from bncheck.facts.layers import Origin, Presence, Role, RunFacts
from bncheck.rules.statistics import bn101_never_moved, bn102_some_layers_never_moved
from bncheck.testing import batch_norm, facts, keras_file, untouched, unwired, vector, with_graph

NEVER = bn101_never_moved.check
SOME = bn102_some_layers_never_moved.check


def run(step: int | None = None, updates: int | None = None, slots: tuple[int, int] | None = None) -> RunFacts:
    """What a run tells."""
    return RunFacts(values=True, global_step=step, updates=updates, optimizer_slots=slots)


def test_the_story() -> None:
    """52 layers untouched after 300 steps while all betas moved: an error that says just that, with both remedies."""
    layers = [untouched(f"conv{n}/bn", gamma=None) for n in range(52)]
    found = only(NEVER, facts(*layers, run=run(300, 300)))
    assert all(part in found.message for part in ("300 steps", "52 of 52 layers", "52 of 52 betas"))
    assert (found.severity, found.confidence) == (Severity.ERROR, Confidence.HIGH)
    assert len(found.layers) == 52
    assert "tf.GraphKeys.UPDATE_OPS" in found.fix
    assert "bncheck repair model.ckpt -o" in found.fix


@pytest.mark.parametrize(
    ("gamma", "beta", "facts_of_run", "severity", "confidence"),
    [
        (1.0, 0.3, run(0), Severity.ERROR, Confidence.MEDIUM),
        (1.0, 0.3, run(0, slots=(4, 4)), Severity.ERROR, Confidence.HIGH),
        (1.0, 0.3, run(), Severity.ERROR, Confidence.MEDIUM),
        (1.2, None, run(300, 300), Severity.ERROR, Confidence.HIGH),
        (None, None, run(300, 300), Severity.ERROR, Confidence.MEDIUM),
        (None, None, run(300), Severity.WARNING, Confidence.MEDIUM),
        (None, None, run(0, slots=(3, 4)), Severity.ERROR, Confidence.MEDIUM),
        (None, None, run(), Severity.INFO, Confidence.LOW),
        (1.0, 0.0, run(300, 300), Severity.WARNING, Confidence.LOW),
        (1.0, 0.0, run(0, slots=(2, 4)), Severity.WARNING, Confidence.LOW),
        (1.0, 0.0, run(0, slots=(0, 4)), Severity.INFO, Confidence.HIGH),
        (1.0, 0.0, run(), Severity.INFO, Confidence.HIGH),
    ],
)
def test_what_shows_that_training_took_place(
    gamma: float | None, beta: float | None, facts_of_run: RunFacts, severity: Severity, confidence: Confidence
) -> None:
    """Betas and gammas decide, then slots and counters; a model in which nothing moved is just not trained yet."""
    found = only(NEVER, facts(untouched("bn", gamma=gamma, beta=beta), run=facts_of_run))
    assert (found.severity, found.confidence) == (severity, confidence)


def test_random_gammas_before_the_first_step() -> None:
    """Gammas that start at random numbers (DCGAN) do not pass for training at step 0."""
    fresh = untouched("bn", gamma=[1.01, 0.98, 1.03, 0.99], beta=0.0)
    assert only(NEVER, facts(fresh, run=run(0))).severity is Severity.INFO


def test_graph_with_updates_makes_it_certain() -> None:
    """At step 0 (a fine-tune that reset its counter) update ops in the graph show that the statistics were to move."""
    model = replace(with_graph(unwired(untouched("bn"))), run=run(0))
    assert only(NEVER, model).confidence is Confidence.HIGH


def test_frozen_layers_are_not_accused() -> None:
    """Layers whose gamma and beta stayed initial while others' moved are counted and not accused."""
    found = only(NEVER, facts(untouched("a"), untouched("frozen", gamma=1.0, beta=0.0), untouched("b")))
    assert found.layers == ("a", "b")
    assert "in 3 of 3 layers" in found.message
    assert "frozen" in found.message


def test_by_checksum_only() -> None:
    """An index without data decides as well: constants are known although no value is."""
    layer = untouched("bn")
    unread = {
        role: replace(getattr(layer, role), presence=Presence.UNREAD, values=None)
        for role in ("mean", "variance", "beta")
    }
    assert only(NEVER, facts(replace(layer, **unread), run=run(0))).severity is Severity.ERROR


def test_initial_values_from_the_graph() -> None:
    """Averages that start at 0 (hand-written) and are still there never moved; ones that left it did."""
    still = replace(untouched("bn"), variance=vector(Role.VARIANCE, 0.0, initial=0.0))
    assert "exactly its initial value" in only(NEVER, facts(still)).message
    moved = replace(untouched("bn"), variance=vector(Role.VARIANCE, 1.0, initial=0.0))
    assert list(NEVER.check(facts(moved))) == []


def test_keras_gets_its_own_remedy() -> None:
    """A Keras file is told about `training=True`, not about UPDATE_OPS."""
    fix = only(NEVER, keras_file(untouched("bn", origin=Origin.CONFIG))).fix
    assert "training=True" in fix
    assert "UPDATE_OPS" not in fix


def test_one_moved_layer_makes_it_another_finding() -> None:
    """BN101 is silent as soon as one layer moved, and BN102 speaks; and the other way round."""
    mixed = facts(untouched("a"), batch_norm("b"))
    assert list(NEVER.check(mixed)) == []
    assert only(SOME, mixed).layers == ("a",)
    assert list(SOME.check(facts(untouched("a"), untouched("b")))) == []


def test_weights_loaded_without_batch_norm() -> None:
    """Biases moved and nothing of batch norm did: automatic names tell of `by_name`; loading is to be mended."""
    loaded = RunFacts(values=True, biases_moved=True)
    layers = [untouched(f"batch_normalization_{n}", gamma=1.0, beta=0.0) for n in (2, 3)]
    found = only(NEVER, facts(*layers, run=loaded))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.MEDIUM)
    assert "`load_weights(by_name=True)` does not find it" in found.message
    assert "load" in found.fix
    assert "bncheck repair" not in found.fix
    named = only(NEVER, facts(untouched("stem/bn", gamma=1.0, beta=0.0), run=loaded))
    assert "by_name" not in named.message
    fresh = only(NEVER, facts(*layers, run=RunFacts(values=True, biases_moved=False)))
    assert fresh.severity is Severity.INFO


def test_a_keras_file_rules_fit_out() -> None:
    """What `fit` trains it updates: a loop of one's own, or a clone with the trainable weights alone, is left."""
    found = only(NEVER, keras_file(untouched("bn")))
    assert "`fit` updates them in every layer it trains" in found.message
    assert "a clone" in found.message
