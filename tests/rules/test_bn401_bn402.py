"""BN401 and BN402: where junk begins, what an operator's loss is called, and what the fix names."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Confidence, Evidence, Severity, Verdict
from bncheck.facts.layers import Facts, Linear
from bncheck.facts.measurements import OperatorLoss
from bncheck.judge.judge import judge
from bncheck.rules.quantization.bn401_quantized_output_junk import check as junk
from bncheck.rules.quantization.bn402_layer_loses_precision import check as loses
from bncheck.rules.shared.quantized import cause, losing
from bncheck.testing import batch_norm, compared, difference
from bncheck.testing.quantized import attributed, operator_loss, quantized, quantized_classes, quantized_features


def run_junk(model: Facts) -> list[Evidence]:
    """What BN401 yields."""
    return list(junk.check(model))


def run_loses(model: Facts) -> list[Evidence]:
    """What BN402 yields."""
    return list(loses.check(model))


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
    assert "top class" in found.message
    assert found.confidence is Confidence.MEDIUM


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


@pytest.mark.parametrize(
    ("local", "rmse", "speaks"),
    [
        (0.02, 0.7, False),
        (0.02, 0.71, True),
        (0.01, 5.0, False),
        (0.1, 0.3, False),
        (0.11, 0.3, True),
        (0.09, None, False),
    ],
)
def test_precision_limits(local: float, rmse: float | None, speaks: bool) -> None:  # noqa: FBT001 - the table's column
    """Far from rounding and a hundredth of the signal, or a tenth of it whatever the scale."""
    measured = quantized(operator_loss(local=local, rmse=rmse)).quantized
    assert measured is not None
    assert bool(losing(measured)) is speaks


@pytest.mark.parametrize(
    ("local", "output", "severity"),
    [
        (0.05, quantized_classes(), Severity.INFO),
        (0.2, quantized_classes(), Severity.WARNING),
        (0.05, quantized_classes(0.2), Severity.ERROR),
        (0.05, quantized_features(0.25), Severity.WARNING),
    ],
)
def test_severity_follows_the_output(local: float, output: Any, severity: Severity) -> None:
    """What the rest of the model makes good is told, and fails nothing."""
    (found,) = run_loses(quantized(operator_loss(local=local, rmse=3.0), output=output))
    assert (found.severity or loses.severity) is severity


@pytest.mark.parametrize(
    ("clipping", "bias", "kind"), [(0.6, 0.1, "clipping"), (0.1, 0.6, "bias"), (0.2, 0.2, "rounding")]
)
def test_causes(clipping: float, bias: float, kind: str) -> None:
    """Half of the loss or more gives it its name; rounding is the rest."""
    operator = operator_loss(local=0.2, rmse=3.0, clipping=clipping, bias=bias)
    assert cause(operator) == kind
    (found,) = run_loses(quantized(operator))
    assert {"clipping": "clipping", "bias": "shift of whole channels", "rounding": "rounding"}[kind] in found.message
    assert ("calibrate" in found.fix) is (kind == "clipping")


def test_the_worst_comes_first_and_is_kept_in_float() -> None:
    """Layers in execution order, the message by loss; the fix names the tensors to keep in float."""
    operators = [
        operator_loss("a", local=0.2, rmse=1.0),
        operator_loss("b"),
        operator_loss(
            "c",
            local=0.5,
            rmse=2.0,
            weight_per_channel=False,
            weight_nmse=0.4,
            channel_nmse=np.array([0.01, 0.9, 0.01, 0.01]),
            worst_channels=(1,),
        ),
    ]
    (found,) = run_loses(quantized(*operators))
    assert found.layers == ("a", "c")
    assert found.message.startswith("c (CONV_2D) loses most by itself, of 2 operators")
    assert "its kernel, with one scale, is off by 40.0 %" in found.message
    assert "Most in channel 1." in found.message
    assert "parts = ('c/Relu', 'a/Relu',)" in found.fix
    assert "denylisted_nodes=kept" in found.fix
    assert "one scale a channel" in found.fix


def test_a_channel_that_rules_the_range_is_named_before_the_layer_behind() -> None:
    """Its layer loses little of all its energy, and nearly all of its other channels; the one behind bears it."""
    first = operator_loss("first", local=1e-3, channel_nmse=np.array([0.0, 0.7, 2e-5, 0.9, 0.8]))
    found = run_loses(quantized(first, operator_loss("behind", local=0.034, rmse=9.9), output=quantized_classes(0.2)))
    assert found[0].layers == ("first", "behind")
    assert found[0].message.startswith(
        "first (CONV_2D) loses most by itself, of 2 operators that do: channel 2 rules the range of its output, and of "
        "the median channel 75.0 % is lost to rounding. The layers that read it can do no better. In order: behind "
    )
    assert "multiply\nthe weights behind it by as much" in found[0].fix
    assert found[0].measurements[0].name == "NMSE of the median channel, first"


def test_a_kernel_of_other_weights_is_told_as_that() -> None:
    """Rounding is not to blame for weights that it cannot have moved so far."""
    (found,) = run_loses(quantized(operator_loss(local=0.9, rmse=40.0, weight_nmse=1.4, weights_beyond=0.97)))
    assert "Its kernel is no rounding of the model's: 97.0 % of the weights" in found.message
    assert "is rounding" not in found.message


def test_names_to_keep_in_float() -> None:
    """As they are in a given file; else what every conversion calls them: the linear op, without its last digit."""
    fused = "net/Relu6;net/BatchNorm/add_1;net/conv/Conv2D1"
    sick = operator_loss("bn", local=0.2, rmse=3.0, tensor=fused)
    (own,) = run_loses(quantized(sick))
    (given,) = run_loses(quantized(sick, scheme="given"))
    assert "parts = ('net/conv/Conv2D',)" in own.fix
    assert f"parts = ({fused!r},)" in given.fix


def test_an_operator_without_a_layer_is_named_too() -> None:
    """An addition has no batch norm; its own name stands in the finding."""
    (found,) = run_loses(quantized(operator_loss("add_3", layer=None, kind="ADD", local=0.3, rmse=2.0)))
    assert found.layers == ("add_3",)


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


def test_doubtful_data_are_no_verdict() -> None:
    """Where only data unlike the training's may be to blame, BN408 doubts with BN304."""
    layers = [difference("first", local=0.4), difference("second")]
    model = quantized(operator_loss("first"), operator_loss("second"), train=(0.9, 0.5))
    first = compared(*layers, output=model.comparison.outputs[0]).comparison if model.comparison else None
    report = judge(replace(model, comparison=first))
    (found,) = [finding for finding in report.findings if finding.code == "BN408"]
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.LOW)
    assert found.message.startswith("On these data")
    assert report.verdict is Verdict.INCONCLUSIVE
