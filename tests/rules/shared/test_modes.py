"""What the rules on a comparison share: when layers can be judged, and the output can not."""

from __future__ import annotations

import math

import pytest

from bncheck.facts.findings import Severity, Verdict
from bncheck.facts.measurements import Accuracy, OutputDifference
from bncheck.facts.ratios import informed_accuracy
from bncheck.judge.judge import judge
from bncheck.numerics.divergence import diverging, layer_limit
from bncheck.rules.modes import bn302_layer_diverges
from bncheck.rules.shared.modes import (
    beyond_chance,
    eval_is_better,
    judged_output,
    labels_strange,
    labels_tell,
    too_few,
    too_small,
)
from bncheck.testing import classes_compared, compared, difference, untouched


def test_layers_are_judged_where_the_output_is_too_noisy() -> None:
    """Train mode that does not agree with itself is no reference at the output; moments over many values still are."""
    noisy = classes_compared(0.3, agreement_floor=0.4)
    model = compared(difference("a"), difference("b", local=0.25), output=noisy)
    assert model.comparison is not None
    assert too_small(model.comparison).startswith("Train mode, the reference, is too noisy")
    assert not too_few(model.comparison)
    assert judged_output(model.comparison) is None
    (found,) = bn302_layer_diverges.check.check(model)
    assert found.layers == ("b",)
    assert found.severity is not None
    assert found.severity.value == "warning"


@pytest.mark.parametrize(("floor", "limit"), [(7e-4, 0.01), (0.11, 0.03), (math.inf, 0.01)])
def test_what_batches_differ_by_is_no_divergence(floor: float, limit: float) -> None:
    """Three times the chance of eleven batches together is the limit, where that is more."""
    layer = difference("a", local=0.02, local_floor=floor)
    comparison = compared(layer).comparison
    assert comparison is not None
    assert layer_limit(comparison, layer) == pytest.approx(limit, rel=1e-3)
    assert diverging(comparison) == ([] if limit > 0.02 else [layer])


@pytest.mark.parametrize(("nmse", "junk"), [(0.8, True), (0.06, False)])
@pytest.mark.parametrize("accuracy", [(0.985, 0.96), (0.96, 0.96), None])
def test_one_class_of_nearly_all_hides_no_fault(
    accuracy: tuple[float, float] | None, nmse: float, *, junk: bool
) -> None:
    """With 96 % of one class, naming it always loses 2.5 points: the error of the probabilities tells."""
    told = Accuracy() if accuracy is None else Accuracy(train=accuracy[0], eval=accuracy[1], commonest=0.96)
    output = classes_compared(0.975, nmse=nmse, commonest=0.96, classes=2)
    comparison = compared(difference("a"), output=output, accuracy=told).comparison
    assert comparison is not None
    found = judged_output(comparison)
    assert found is not None
    assert found.junk is junk
    assert labels_tell(comparison) is (accuracy == (0.985, 0.96))
    assert not labels_strange(comparison)


def test_what_guessing_meets() -> None:
    """Twice chance, or 15 points more; of lopsided labels three tenths of what is missing."""
    assert [round(informed_accuracy(classes), 3) for classes in (2, 3, 10, 1000)] == [0.65, 0.483, 0.2, 0.002]
    assert informed_accuracy(2, 0.96) == pytest.approx(0.972)
    assert informed_accuracy(10, 0.12) == pytest.approx(0.24)


@pytest.mark.parametrize(("samples", "limit"), [(100, 0.04), (10_000, 0.035)])
def test_few_samples_excuse_more(samples: int, limit: float) -> None:
    """Two standard errors of a share where 4 % of the answers differ: 2 sqrt(0.04 / 100) = 0.04; else the gap."""
    assert beyond_chance(0.035, 0.04, samples) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("accuracy", "output", "better"),
    [
        (Accuracy(train=0.569, eval=0.935, commonest=0.12), classes_compared(0.3), True),
        (Accuracy(train=0.112, eval=0.25, commonest=0.14), classes_compared(0.15, commonest=0.9), True),
        (Accuracy(train=0.91, eval=0.93, commonest=0.12), classes_compared(0.9), False),
        (Accuracy(train=0.7, eval=0.8, commonest=0.8), classes_compared(0.6, classes=2), False),
        (Accuracy(train=0.909, eval=0.103), classes_compared(0.1), False),
        (Accuracy(), classes_compared(0.1), False),
    ],
)
def test_where_labels_say_that_eval_mode_is_better(
    accuracy: Accuracy, output: OutputDifference, *, better: bool
) -> None:
    """Beyond chance, and beyond naming the commonest label always; no output is junk then, and nothing is repaired."""
    model = compared(difference("a", local=0.5), output=output, accuracy=accuracy)
    assert eval_is_better(model.comparison) is better
    if better:
        report = judge(model)
        assert {finding.code for finding in report.findings} == {"BN302"}
        assert report.verdict is Verdict.PASS
        assert "bncheck repair" not in "".join(finding.fix for finding in report.findings)


def test_trained_in_eval_mode_is_no_junk() -> None:
    """Statistics of 0 and 1 to which the weights belong: no error, no word of junk, nothing to repair."""
    model = compared(
        difference("a", local=0.5),
        output=classes_compared(0.5),
        accuracy=(0.569, 0.935),
        layers=[untouched("a")],
    )
    report = judge(model)
    (never,) = [finding for finding in report.findings if finding.code == "BN101"]
    assert never.severity is Severity.WARNING
    said = " ".join(f"{finding.message} {finding.why} {finding.fix}" for finding in report.findings)
    assert "junk" not in said
    assert "bncheck repair" not in said
    assert "Keep its statistics" in never.fix


@pytest.mark.parametrize(("in_eval", "severity"), [(0.995, Severity.INFO), (0.97, Severity.WARNING)])
def test_layers_that_differ_where_labels_are_met(in_eval: float, severity: Severity) -> None:
    """As many labels in both modes: a note without alarm; a loss of 2.7 points is a warning as before."""
    layers = [difference("a"), *(difference(name, local=0.4) for name in "bcd")]
    (found,) = judge(compared(*layers, accuracy=(0.997, in_eval))).findings
    assert (found.code, found.severity) == ("BN302", severity)
    alarming = "wrong" in f"{found.message} {found.why}" or "repair" in found.fix
    assert alarming is (severity is Severity.WARNING)
