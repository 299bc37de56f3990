"""BN408 broken-before-quantization."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Severity, Verdict
from bncheck.facts.layers import Facts, Given
from bncheck.judge.judge import judge
from bncheck.rules.quantization.bn401_quantized_output_junk import check as junk
from bncheck.testing import batch_norm, classes_compared, compared, difference
from bncheck.testing.quantized import attributed, operator_loss, quantized, quantized_classes


def run_junk(model: Facts) -> list[Evidence]:
    """What BN401 yields."""
    return list(junk.check(model))


def test_two_faults_at_once() -> None:
    """Broken before, and by quantization too: seen where re-estimated statistics were quantized."""
    both = quantized(
        operator_loss(local=0.4, rmse=2.0),
        output=quantized_classes(0.5),
        accuracy=(0.103, 0.101),
        train=(0.909, 0.1),
        attribution=attributed(0.806, 0.002, start=0.909, repaired=(0.904, 0.2)),
    )
    report = judge(both)
    codes = {finding.code: finding for finding in report.findings}
    assert {"BN408", "BN401", "BN402"} <= set(codes)
    assert "re-estimated" in codes["BN401"].message
    assert codes["BN402"].severity is Severity.ERROR
    assert codes["BN401"].caused_by == "BN402"
    assert codes["BN408"].caused_by != "BN401"


def test_broken_before_is_not_blamed_on_quantization() -> None:
    """Junk that changes its mind when it is rounded is junk: BN408 alone."""
    before = quantized(
        operator_loss(),
        output=quantized_classes(0.3, 0.4),
        accuracy=(0.103, 0.101),
        train=(0.909, 0.1),
        attribution=attributed(0.806, 0.002, start=0.909, repaired=(0.904, 0.9)),
    )
    assert run_junk(before) == []
    assert "BN408" in {finding.code for finding in judge(before).findings}


def test_doubtful_data_are_no_verdict() -> None:
    """Where only data unlike the training's may be to blame, BN408 doubts with BN304."""
    layers = [difference("first", local=0.4), difference("second")]
    model = quantized(operator_loss("first"), operator_loss("second"), train=(0.9, 0.5))
    first = compared(*layers, output=model.comparison.outputs[0]).comparison if model.comparison else None
    report = judge(replace(model, comparison=first))
    (found,) = [finding for finding in report.findings if finding.code == "BN408"]
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.LOW)
    assert found.message.startswith("If these data")
    assert found.fix.startswith("First check that these are data like the training data (BN304).")
    assert report.verdict is Verdict.INCONCLUSIVE


def test_another_range_is_no_fault_of_the_model() -> None:
    """Input that is 127.5 times as large explains all: BN304 says what to give, and nothing advises a repair."""
    layer = batch_norm("first", channels=16, epsilon=1e-9, variance=np.geomspace(0.02, 3, 16))
    off = difference(
        "first",
        local=0.9,
        channels=16,
        log_variance_ratio=2 * np.log(127.5) + np.linspace(-0.05, 0.05, 16),
        mean_shift=np.linspace(-90, 60, 16),
    )
    labelled = compared(off, output=classes_compared(0.1), accuracy=(0.95, 0.1), layers=[layer])
    model = quantized(operator_loss("first"), output=quantized_classes(0.98), accuracy=(0.1, 0.1), train=(0.95, 0.1))
    found = replace(
        model, comparison=labelled.comparison, layers=labelled.layers, given=Given(running=("--preprocess", "0..255"))
    )
    report = judge(found)
    assert {finding.code for finding in report.findings} == {"BN304"}
    assert report.verdict is Verdict.INCONCLUSIVE
    assert not any("bncheck repair" in finding.fix for finding in report.findings)
