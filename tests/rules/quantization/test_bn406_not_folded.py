"""BN406: how sure it is of what, beyond the rule's own examples."""

from __future__ import annotations

from typing import Any

import pytest

from bncheck.facts.findings import Confidence, Evidence, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts
from bncheck.rules.quantization.bn406_not_folded import broken, check, clean
from bncheck.testing import folded, leftover, lite

NAMED = "model/batch_normalization_3/FusedBatchNormV3"


def run(*leftovers: Any) -> list[Evidence]:
    """What the rule yields on a file with these leftovers."""
    return list(check.check(lite(folded(), leftovers=leftovers)))


def test_examples() -> None:
    """The rule is silent on its clean examples and speaks once on each broken one."""
    assert [list(check.check(model)) for model in clean()] == [[]] * len(clean())
    assert [len(list(check.check(model))) for model in broken()] == [1] * len(broken())


@pytest.mark.parametrize(
    ("name", "place", "severity", "confidence"),
    [
        (NAMED, {}, None, Confidence.HIGH),
        ("functional_1/bn/batchnorm/add_1", {}, None, Confidence.HIGH),
        ("add_7", {}, None, Confidence.MEDIUM),
        ("add_7", {"after": ""}, Severity.INFO, Confidence.LOW),
        ("add_7", {"feeds": ""}, Severity.INFO, Confidence.LOW),
        ("add_7", {"multiplier": [2.5], "addend": [-0.9]}, Severity.INFO, Confidence.LOW),
        (NAMED, {"after": ""}, None, Confidence.HIGH),
        (NAMED, {"multiplier": [2.5], "addend": [-0.9]}, None, Confidence.HIGH),
    ],
)
def test_how_sure(name: str, place: dict[str, Any], severity: Severity | None, confidence: Confidence) -> None:
    """Names settle it; without them the input, the output and single channels are a note only."""
    (found,) = run(leftover(name, **place))
    assert (found.severity, found.confidence) == (severity, confidence)


@pytest.mark.parametrize(
    ("name", "factors", "place", "speaks"),
    [
        ("mul", [0.9995003747] * 4, {}, True),
        ("mul", [1.0] * 4, {}, True),
        ("mul", [0.98] * 4, {}, False),
        ("mul", [0.9995, 0.9995, 0.9995, 1.0], {}, False),
        ("mul", [0.9995003747] * 4, {"after": ""}, False),
        ("mul", [0.9995003747], {}, False),
        (NAMED, [0.5, 2.0, 1.5, 0.25], {}, True),
        (NAMED, [0.5, 2.0, 1.5, 0.25], {"feeds": "FULLY_CONNECTED"}, False),
    ],
)
def test_never_updated(name: str, factors: list[float], place: dict[str, Any], speaks: bool) -> None:  # noqa: FBT001
    """A lone MUL counts by its name, or by factors that are all 1/sqrt(1 + epsilon)."""
    found = run(leftover(name, multiplier=factors, addend=None, **place))
    assert bool(found) is speaks
    assert all("never updated" in one.message for one in found)


def test_moments_of_the_batch() -> None:
    """Batch norm in training mode is told apart from one that was merely not folded."""
    (found,) = run(leftover("moments/Rsqrt", multiplier=None, addend=None, operators=("SQUARE", "MEAN", "RSQRT")))
    assert "depends on the others in its batch" in found.message


def test_one_finding_for_one_cause() -> None:
    """Leftovers of one cause are one finding, with every place counted."""
    (found,) = run(leftover("a/batch_norm/add"), leftover("b/batch_norm/add"), leftover("c/add", after="CONCATENATION"))
    assert found.layers == ("a/batch_norm/add", "b/batch_norm/add", "c/add")
    assert found.confidence is Confidence.MEDIUM
    assert "after CONV_2D + RELU (2), after CONCATENATION" in found.message
    assert found.measurements[0].value == 6


def test_nothing_but_lite() -> None:
    """A target that is no TFLite file is none of its business."""
    assert list(check.check(Facts(path="model.ckpt", format=Format(FileKind.TF1_CHECKPOINT)))) == []
