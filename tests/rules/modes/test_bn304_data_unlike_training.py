"""BN304: a model that learned nothing is no fault of its batch norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Severity, Verdict
from bncheck.facts.layers import Facts, Given, RunFacts
from bncheck.facts.measurements import Accuracy, LayerDifference
from bncheck.judge.judge import judge
from bncheck.rules.modes import bn304_data_unlike_training
from bncheck.testing import batch_norm, classes_compared, compared, difference, features_compared, untouched


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
    assert "no better than chance among 10 classes" in report.headline


@pytest.mark.parametrize(
    ("lower", "higher", "told", "fix"),
    [
        (0.96, 0.01, "one lower, train mode would meet 96.0 %", "Subtract 1"),
        (0.01, 0.96, "one higher, train mode would meet 96.0 %", "Add 1"),
        (0.11, 0.09, "numbered differently", "Number the labels as in the training"),
    ],
)
def test_labels_that_start_one_too_high_or_low(lower: float, higher: float, told: str, fix: str) -> None:
    """As with a class for the background, which TF-slim's ImageNet models have and other labels have not."""
    met = Accuracy(train=0.01, eval=0.01, one_lower=lower, one_higher=higher)
    (found,) = bn304_data_unlike_training.check.check(compared(difference("a"), accuracy=met))
    assert told in found.message
    assert found.fix.startswith(fix)


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


def _in_range(factor: float, *behind: LayerDifference, given: str | None = None, **own: Any) -> Facts:
    first = difference(
        "a",
        local=0.7,
        channels=16,
        **(
            {
                "log_variance_ratio": 2 * np.log(factor) + np.linspace(-0.05, 0.05, 16),
                "mean_shift": np.linspace(-3, 2, 16),
            }
            | own
        ),
    )
    layers = [batch_norm("a", channels=16, epsilon=1e-9, variance=np.geomspace(0.02, 3, 16))]
    layers += [batch_norm(one.layer) for one in behind]
    model = compared(first, *behind, output=classes_compared(0.1), accuracy=(0.95, 0.1), layers=layers)
    return replace(model, given=Given(data="photos", running=() if given is None else ("--preprocess", given)))


@pytest.mark.parametrize(
    ("factor", "given", "fits"),
    [
        (127.5, "0..255", "-1..1"),
        (255.0, "0..255", "0..1"),
        (0.5, "0..1", "-1..1"),
        (1 / 255, "0..1", "0..255"),
        (0.224, "0..1", "imagenet-standard"),
        (7.0, "-1..1", ""),
        (7.0, None, ""),
    ],
)
def test_another_range_is_named(factor: float, given: str | None, fits: str) -> None:
    """By its factor and the --preprocess that fits; nothing is accused, however many layers are off behind."""
    behind = [difference(name, local=0.1, log_variance_ratio=np.array([0.3, -0.2, 0.1, -0.4])) for name in "bcdef"]
    report = judge(_in_range(factor, *behind, given=given))
    (found,) = report.findings
    assert (found.code, report.verdict) == ("BN304", Verdict.INCONCLUSIVE)
    assert f"{factor:.3g} times as large" in found.message
    assert "bncheck repair" not in found.fix
    if fits:
        assert f"It was given in {given}; {fits}" in found.message
        assert f"--preprocess {fits}" in found.fix
    else:
        assert "divided by 7" in found.fix


def test_nobody_repairs_from_other_data() -> None:
    """What the files show beside another range (BN106 by rounding) is no reason to take statistics of these data."""
    model = _in_range(7.0, difference("b"))
    first, second = model.layers[:2]
    below = replace(second, variance=batch_norm("b", variance=[1.0, 2.0, -1e-9, 1.0]).variance)
    for data, advised in ((model, False), (replace(model, comparison=None), True)):
        report = judge(replace(data, layers=(first, below)))
        (found,) = [finding for finding in report.findings if finding.code == "BN106"]
        assert ("bncheck repair" in found.fix) is advised
        assert ("like the training data" in found.fix) is not advised


def test_a_factor_of_the_models_own() -> None:
    """Means that fit while variances are off, or the same factor in most layers: the model is at fault as before."""
    alone = judge(_in_range(2.0, difference("b"), mean_shift=np.zeros(16)))
    everywhere = [difference(name, local=0.7, log_variance_ratio=np.full(4, np.log(4))) for name in "bcd"]
    for report in (alone, judge(_in_range(2.0, *everywhere))):
        assert report.verdict is Verdict.FAIL
        assert {"BN301", "BN302"} <= {finding.code for finding in report.findings}


def test_a_model_whose_train_mode_meets_the_labels_is_trained() -> None:
    """Weights that were weights were loaded without those of batch norm: an error, with what to do about it."""
    fresh = untouched("a", gamma=1.0, beta=0.0)
    model = compared(difference("a", local=0.7), output=classes_compared(0.1), accuracy=(0.958, 0.1), layers=[fresh])
    report = judge(replace(model, run=RunFacts(values=True, global_step=0)))
    assert report.verdict is Verdict.FAIL
    codes = {finding.code: finding for finding in report.findings}
    assert "BN304" not in codes
    assert codes["BN101"].severity is Severity.ERROR
    assert "weights were loaded without those of batch norm" in codes["BN101"].message
