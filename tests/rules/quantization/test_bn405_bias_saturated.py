"""BN405: thresholds and what the numbers say, beyond the rule's own examples."""

from __future__ import annotations

import pytest

from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts
from bncheck.rules.quantization.bn405_bias_saturated import broken, check, clean
from bncheck.testing import folded, lite


def run(model: Facts) -> list[Evidence]:
    """What the rule yields."""
    return list(check.check(model))


def test_examples() -> None:
    """The rule is silent on its clean examples and speaks once on each broken one."""
    assert [run(model) for model in clean()] == [[]] * len(clean())
    assert [len(run(model)) for model in broken()] == [1] * len(broken())


@pytest.mark.parametrize(
    ("bias", "speaks"),
    [
        (2**31 - 1, True),
        (2**31 - 2, True),
        (2**31 - 3, False),
        (-(2**31), True),
        (-(2**31) + 1, True),
        (-(2**31) + 2, False),
        (2**30 + 128, False),
    ],
)
def test_limits_of_int32(bias: int, speaks: bool) -> None:  # noqa: FBT001 - the table's second column
    """Only the last two numbers on either side count as saturated."""
    assert bool(run(lite(folded(weight_scales=0.1, bias=[bias, 0, 0, 0], bias_scales=[1e-9])))) is speaks


def test_one_finding_lists_all_operators() -> None:
    """Two saturated operators are one finding with both, and tell the real value that is stored."""
    low, high = -(2**31) + 1, 2**31 - 1
    first = folded("a", weight_scales=0.1, bias=[low, 0, 0, high], bias_scales=[1e-9, 1, 1, 1e-10])
    second = folded("b", weight_scales=0.1, bias=[0, 0, 0, high])
    (found,) = run(lite(first, folded("healthy"), second))
    assert found.layers == ("a", "b")
    assert found.severity is None
    assert "3 channels of 2 operators" in found.message
    numbers = {measured.name: measured.value for measured in found.measurements}
    assert numbers["saturated biases of a"] == 2
    assert numbers["largest bias of a as stored"] == pytest.approx(2.147483647)
    assert numbers["saturated biases of b"] == 1
    assert "largest bias of b as stored" not in numbers


def test_zero_scale_is_a_warning_of_its_own() -> None:
    """A channel without range loses its bias: lower severity, not confused with saturation."""
    found = run(lite(folded(weight_scales=[0.0, 0.1, 0.1, 0.1], bias=[2**31 - 1, 0, 0, 0], bias_scales=[1e-9])))
    assert [one.severity for one in found] == [None, Severity.WARNING]


def test_nothing_but_lite() -> None:
    """A target that is no TFLite file is none of its business."""
    assert run(Facts(path="model.ckpt", format=Format(FileKind.TF1_CHECKPOINT))) == []
