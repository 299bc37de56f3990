"""BN409 tensors-unmatched."""

from __future__ import annotations

import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.measurements import Precision, Unmatched
from bncheck.rules.quantization.bn409_tensors_unmatched import check
from bncheck.testing.quantized import operator_loss, quantized, unmatched

TWENTY = [operator_loss(f"conv_{n}") for n in range(20)]


@pytest.mark.parametrize(
    ("left", "severity"),
    [
        ((unmatched("reshape"),), Severity.INFO),
        ((unmatched("b/Relu6", layer="b"),), Severity.WARNING),
        (tuple(unmatched(f"x{n}") for n in range(20)), Severity.WARNING),
    ],
)
def test_a_layer_or_many_are_a_warning(left: tuple[Unmatched, ...], severity: Severity) -> None:
    """One tensor among twenty is told and no more, unless it is a batch norm's."""
    assert only(check, quantized(*TWENTY, unmatched=left)).severity is severity


def test_both_files_are_named() -> None:
    """How many of which file are left, and why."""
    left = (unmatched("a"), unmatched("b", side=Precision.QUANTIZED, why="no such shape"))
    message = only(check, quantized(*TWENTY, unmatched=left)).message
    assert message.startswith("2 tensors could not be compared (1 of the float file, ")
    assert "1 of the quantized file" in message
    assert "no such shape" in message


def test_a_layer_that_the_converter_took_in_needs_nothing() -> None:
    """All operators were compared: a note."""
    taken = unmatched("b", layer="b", why="the converter took it in")
    found = only(check, quantized(operator_loss("dense"), unmatched=(taken,)))
    assert (found.severity, found.layers) == (Severity.INFO, ("b",))
    assert found.fix.startswith("None needed")
