"""BN401 quantized-output-junk."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from bncheck.facts.findings import Confidence, Evidence, Severity, Verdict
from bncheck.facts.layers import Facts, Linear
from bncheck.facts.measurements import OperatorLoss
from bncheck.judge.judge import judge
from bncheck.rules.quantization.bn401_quantized_output_junk import check as junk
from bncheck.testing import batch_norm
from bncheck.testing.quantized import operator_loss, quantized, quantized_classes, quantized_features


def run_junk(model: Facts) -> list[Evidence]:
    """What BN401 yields."""
    return list(junk.check(model))


@pytest.mark.parametrize(("low", "speaks"), [(0.92, False), (0.90, True)])
def test_accuracy_limit(low: float, speaks: bool) -> None:  # noqa: FBT001 - the table's second column
    """3.5 points are borne, five are not."""
    model = quantized(operator_loss(), output=quantized_classes(0.97), accuracy=(0.95, low), train=(0.94, 0.95))
    assert bool(run_junk(model)) is speaks


def test_accuracy_needs_samples() -> None:
    """Of 40 samples with a tenth of the classes changed, four points are chance."""
    few = quantized(operator_loss(), output=quantized_classes(0.9), accuracy=(0.95, 0.9), samples=40)
    assert run_junk(few) == []


@pytest.mark.parametrize(
    ("agreement", "nmse", "speaks"), [(0.86, 0.5, False), (0.8, 0.5, True), (0.8, 0.04, False), (0.8, math.nan, True)]
)
def test_agreement_limit(agreement: float, nmse: float, speaks: bool) -> None:  # noqa: FBT001 - the table's column
    """15 % of other classes, and an error that is more than a toss-up of near ones."""
    assert bool(run_junk(quantized(operator_loss(), output=quantized_classes(agreement, nmse)))) is speaks


@pytest.mark.parametrize(
    ("nmse", "severity"), [(0.1, None), (0.11, Severity.WARNING), (0.3, Severity.WARNING), (0.31, Severity.ERROR)]
)
def test_features_limits(nmse: float, severity: Severity | None) -> None:
    """10 dB are a warning, 5 dB an error."""
    found = run_junk(quantized(operator_loss(), output=quantized_features(nmse)))
    assert [evidence.severity or junk.severity for evidence in found] == ([] if severity is None else [severity])


def test_labels_that_float_does_not_meet_tell_nothing() -> None:
    """A float model at chance leaves agreement as the measure."""
    model = quantized(operator_loss(), output=quantized_classes(0.3), accuracy=(0.1, 0.1))
    (found,) = run_junk(model)
    assert "agrees with the float model on 30.0 %" in found.message
    assert found.confidence is Confidence.MEDIUM


def test_collapse_reads_as_one_story() -> None:
    """Range collapse, forecast from the weights, is the cause of the layer's loss, and that of the output's."""
    kernel = Linear(name="c", op="Conv2D", kernel="c/w", channel_max=np.array([0.01, 0.01, 0.01, 1.0]))
    sick: OperatorLoss = operator_loss("bn", local=0.6, rmse=4.0, weight_per_channel=False, weight_nmse=0.3)
    model = quantized(sick, output=quantized_classes(0.12), accuracy=(0.966, 0.1), train=(0.949, 0.95))
    model = replace(model, layers=(batch_norm("bn", linear=kernel),))
    report = judge(model)
    causes = {finding.code: finding.caused_by for finding in report.findings}
    assert causes == {"BN401": "BN402", "BN402": "BN403", "BN403": None}
    assert report.verdict is Verdict.FAIL
