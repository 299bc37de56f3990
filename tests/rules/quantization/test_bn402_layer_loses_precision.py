"""BN402 layer-loses-precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import GIVEN
from bncheck.rules.quantization.bn402_layer_loses_precision import check as loses
from bncheck.rules.shared.quantized import cause
from bncheck.testing.quantized import operator_loss, quantized, quantized_classes, quantized_features


def run_loses(model: Facts) -> list[Evidence]:
    """What BN402 yields."""
    return list(loses.check(model))


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
    assert found.message.startswith("c (CONV_2D) ")
    assert "of 2 operators" in found.message
    assert "with one scale, is off by 40.0 %" in found.message
    assert "Most in channel 1." in found.message
    assert "parts = ('c/Relu', 'a/Relu',)" in found.fix
    assert "denylisted_nodes=kept" in found.fix
    assert "one scale per channel" in found.fix


def test_a_channel_that_rules_the_range_is_named_before_the_layer_behind() -> None:
    """Its layer loses little of all its energy, and nearly all of its other channels; the one behind bears it."""
    first = operator_loss("first", local=1e-3, channel_nmse=np.array([0.0, 0.7, 2e-5, 0.9, 0.8]))
    found = run_loses(quantized(first, operator_loss("behind", local=0.034, rmse=9.9), output=quantized_classes(0.2)))
    assert found[0].layers == ("first", "behind")
    assert found[0].message.startswith("first (CONV_2D) ")
    assert "channel 2 dominates the range of its output, so the median channel is off by 75.0 %" in found[0].message
    assert "Then: behind " in found[0].message
    assert found[0].fix.startswith("A channel dominates the range:")
    assert found[0].measurements[0].name == "NMSE of the median channel, first"


def test_a_kernel_of_other_weights_is_told_as_that() -> None:
    """Rounding is not to blame for weights that it cannot have moved so far."""
    (found,) = run_loses(quantized(operator_loss(local=0.9, rmse=40.0, weight_nmse=1.4, weights_beyond=0.97)))
    assert "97.0 % of the weights are off" in found.message
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


def test_a_file_of_other_weights() -> None:
    """Kernels that no rounding gives: it is said, and nothing of scales, clipping or layers to keep in float."""
    operators = [
        operator_loss(name, local=0.2, rmse=19.0, weights_beyond=0.97, weight_per_channel=False) for name in "ab"
    ]
    (found,) = run_loses(quantized(*operators, operator_loss("c", weights_beyond=0.0), scheme=GIVEN))
    assert found.message.startswith("The kernels of 2 of 3 operators")
    said = f"{found.message} {found.fix}"
    assert "scale" not in said
    assert "keep" not in said
    (own,) = run_loses(quantized(*operators))
    assert "of 2 operators" in own.message
