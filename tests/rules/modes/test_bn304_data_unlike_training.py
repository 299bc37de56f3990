"""BN304: a model that learned nothing is no fault of its batch norm."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncheck.facts.findings import Severity, Verdict
from bncheck.facts.layers import Given, RunFacts
from bncheck.judge.judge import judge
from bncheck.rules.modes import bn304_data_unlike_training
from bncheck.testing import classes_compared, compared, difference, features_compared, untouched


def test_a_model_that_is_not_trained_yet() -> None:
    """Its modes differ, as those of any fresh model do: no verdict, with the reason first, and nothing fails."""
    fresh = untouched("a", gamma=1.0, beta=0.0)
    run = RunFacts(values=True, global_step=0)
    model = compared(difference("a", local=0.7), output=classes_compared(0.2), layers=[fresh])
    report = judge(replace(model, run=run))
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert report.headline.startswith("The model is not trained yet")
    assert not [finding for finding in report.findings if finding.severity is Severity.ERROR]


def test_a_trained_model_that_never_moved_still_fails() -> None:
    """Betas moved, so updates were forgotten."""
    run = RunFacts(values=True, global_step=300, updates=300)
    model = compared(difference("a", local=0.7), output=classes_compared(0.2), layers=[untouched("a")])
    assert judge(replace(model, run=run)).verdict is Verdict.FAIL


def test_labels_that_neither_mode_meets() -> None:
    """That the model has learned nothing is said first."""
    report = judge(compared(difference("a"), accuracy=(0.06, 0.05)))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "the model has not learned them, which is not batch norm's doing" in report.headline


def test_an_output_of_numbers_without_noise() -> None:
    """6 dB are no rounding where batch noise makes 27; below 10 dB, or in noise, they are not accused."""
    for nmse, floor, junk in ((0.24, 0.0018, True), (0.09, 0.0018, False), (0.24, 0.02, False)):
        model = compared(difference("b"), difference("a", local=0.3), output=features_compared(nmse, floor=floor))
        assert ("BN301" in [finding.code for finding in judge(model).findings]) is junk


@pytest.mark.parametrize(
    ("data", "more"),
    [
        ("digits.npz", "--labels labels.npy"),
        ("photos", "--size 64x64 --channel-order bgr --labels folders"),
    ],
)
def test_the_remedy_is_the_users_own_command(data: str, more: str) -> None:
    """With the path, the data and the options that were given, and what may be missing of the others."""
    running = ("--preprocess", "-1..1", *(("--size", "64x64") if data == "photos" else ()))
    model = compared(difference("a", local=0.3), difference("b", local=0.3), output=classes_compared(0.3))
    model = replace(model, path="run 1/model.keras", given=Given(data=data, running=running))
    (found,) = bn304_data_unlike_training.check.check(model)
    command = f"bncheck compare train-vs-eval 'run 1/model.keras' --data {data} --preprocess -1..1 {more}"
    assert found.fix.splitlines()[-1].strip() == command


def test_labels_in_vain_where_numbers_are_none() -> None:
    """A model of NaN has not `learned` anything, but that is not why."""
    model = compared(difference("a", local=float("nan"), non_finite=4), accuracy=(0.1, 0.1))
    assert not list(bn304_data_unlike_training.check.check(model))


def test_neither_mode_meets_the_labels_and_they_differ() -> None:
    """Labels that are numbered otherwise, or other data, would look the same: nothing is accused, nothing passes."""
    report = judge(compared(difference("a", local=0.3), accuracy=(0.08, 0.1), output=classes_compared(0.3)))
    assert report.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("samples", [96, 352])
@pytest.mark.parametrize(
    ("first", "chance", "verdict"),
    [
        (0.03, 7e-4, Verdict.INCONCLUSIVE),
        (0.003, 7e-4, Verdict.FAIL),
        (0.03, 0.2, Verdict.FAIL),
    ],
)
def test_few_images_do_not_vouch_for_themselves(samples: int, first: float, chance: float, verdict: Verdict) -> None:
    """A first layer that chance does not put off tells of other data, however few they are; another is judged."""
    model = compared(
        difference("a", local=first, local_floor=chance),
        *(difference(name, local=0.3) for name in "bc"),
        *(difference(f"d{n}") for n in range(9)),
        output=classes_compared(0.3),
        samples=samples,
    )
    assert judge(model).verdict is verdict
