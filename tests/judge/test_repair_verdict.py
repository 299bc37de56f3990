"""The verdict on a repair: which evidence earns a pass, which leaves a doubt, and which refuses it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.inputs import InputSummary
from bncheck.facts.repairs import RepairVerdict, Trial
from bncheck.judge.repair_verdict import judge_repair, with_averages
from bncheck.testing import batch_norm, facts, untouched, wired, with_graph

INPUT = InputSummary(samples=640, distinct=640, low=-1.0, high=1.0, mean=-0.4, deviation=0.7, neighbours=0.95)
LABELLED = Trial(
    samples=640,
    input=INPUT,
    labelled=640,
    classes=10,
    labels_seen=10,
    answers=10,
    commonest=0.12,
    accuracy_train=0.98,
    accuracy_before=0.1,
    accuracy_after=0.98,
    agreement_before=0.1,
    agreement_after=0.99,
    error_after=0.01,
    halves_agreement=0.99,
    halves_loss=0.005,
    halves_loss_error=0.002,
    splits=1,
    halves_error=0.01,
    entropy=0.05,
    scrambled_entropy=0.5,
)
PLAIN = replace(LABELLED, labelled=0, labels_seen=0, accuracy_train=None, accuracy_before=None, accuracy_after=None)
NEVER = with_graph(wired(untouched("bn")))


def _verdict(trial: Trial) -> RepairVerdict:
    return judge_repair(trial, NEVER).verdict


@pytest.mark.parametrize("trial", [LABELLED, PLAIN], ids=["labels", "none"])
def test_settled_and_recognised_is_a_pass(trial: Trial) -> None:
    """The halves agree, and labels, or what the model recognises in the data, vouch for them."""
    judgement = judge_repair(trial, NEVER)
    assert judgement.verdict is RepairVerdict.PASS
    assert judgement.reasons == ()
    assert any("-1 and 1" in told for told in judgement.told)


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy_before": 0.93, "accuracy_after": 0.60},
        {"input": replace(INPUT, deviation=0.0, low=0.5, high=0.5)},
        {"input": replace(INPUT, neighbours=0.001)},
        {"range_factor": 2.0},
        {"range_factor": 0.5},
    ],
    ids=["worse", "constant", "noise", "larger", "smaller"],
)
def test_what_speaks_against_it_refuses(changes: dict[str, object]) -> None:
    """A repair that makes eval mode worse, and data that are none, or in another range."""
    assert _verdict(replace(LABELLED, **changes)) is RepairVerdict.REFUSED  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trial", "changes"),
    [
        (LABELLED, {"halves_agreement": 0.7, "halves_loss": 0.15}),
        (
            LABELLED,
            {"halves_agreement": 1.0, "halves_loss": 0.0, "samples": 4, "input": replace(INPUT, samples=4, distinct=4)},
        ),
        (LABELLED, {"halves_agreement": None, "halves_error": None}),
        (LABELLED, {"accuracy_after": 0.85}),
        (LABELLED, {"accuracy_train": 0.12, "accuracy_after": 0.12}),
        (LABELLED, {"labels_seen": 1}),
        (LABELLED, {"labels_seen": 3}),
        (LABELLED, {"input": replace(INPUT, low=0.0, mean=0.3, deviation=0.35)}),
        (PLAIN, {"entropy": 0.45}),
        (PLAIN, {"answers": 2}),
        (PLAIN, {"classes": None, "entropy": None, "scrambled_entropy": None}),
        (PLAIN, {"classes": None, "entropy": None, "scrambled_entropy": None, "halves_error": 0.5}),
    ],
)
def test_what_nothing_confirms_is_unverified(trial: Trial, changes: dict[str, object]) -> None:
    """Too few, too unlike, too one-sided, or in a range that nobody vouches for."""
    judgement = judge_repair(replace(trial, **changes), NEVER)  # type: ignore[arg-type]
    assert judgement.verdict is RepairVerdict.UNVERIFIED
    assert judgement.reasons


def test_toss_ups_are_no_doubt() -> None:
    """Halves that disagree on classes which were equally likely cost no accuracy."""
    assert _verdict(replace(LABELLED, halves_agreement=0.85, halves_loss=0.01)) is RepairVerdict.PASS


def test_a_declared_range_vouches() -> None:
    """Who says --preprocess knows what the model was trained on, if the data are what is said; centred or not."""
    positive = replace(INPUT, low=0.0, mean=0.3, deviation=0.35)
    for said, of, verdict in (
        (True, positive, RepairVerdict.PASS),
        (None, positive, RepairVerdict.UNVERIFIED),
        (False, positive, RepairVerdict.UNVERIFIED),
        (False, INPUT, RepairVerdict.UNVERIFIED),
    ):
        assert _verdict(replace(LABELLED, input=replace(of, declared=said))) is verdict


def test_statistics_that_moved_vouch_for_the_range() -> None:
    """The first layer still knows what it saw; that they moved alone, a hair's breadth perhaps, tells nothing."""
    positive = replace(INPUT, low=0.0, mean=0.3, deviation=0.35)
    moved = facts(batch_norm("bn", variance=np.full(4, 0.3)))
    for factor, verdict in ((1.05, RepairVerdict.PASS), (None, RepairVerdict.UNVERIFIED)):
        trial = replace(LABELLED, input=positive, range_factor=factor)
        assert judge_repair(trial, moved).verdict is verdict


def test_without_labels_and_graph_the_training_mode_is_unknown() -> None:
    """Stored 0 and 1 may be what the weights were trained with."""
    judgement = judge_repair(PLAIN, facts(untouched("bn")))
    assert judgement.verdict is RepairVerdict.UNVERIFIED


def test_both_copies_of_the_weights_have_to_pass() -> None:
    """The worse one decides, and says whose doubt it is."""
    good, bad = judge_repair(LABELLED, NEVER), judge_repair(replace(LABELLED, labels_seen=1), NEVER)
    both = with_averages(good, bad)
    assert both.verdict is RepairVerdict.UNVERIFIED
    assert all(reason.startswith("Averaged weights: ") for reason in both.reasons)


def test_an_earlier_doubt_stays() -> None:
    """What made the data doubtful before the repair makes them so after it."""
    assert judge_repair(LABELLED, NEVER, doubted=("too few",)).verdict is RepairVerdict.UNVERIFIED
