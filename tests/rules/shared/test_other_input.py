"""A repaired copy holds for the input that its statistics are of, and is not judged on any other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bncheck.facts.findings import Severity, Verdict
from bncheck.facts.inputs import InputSummary
from bncheck.facts.layers import Facts, Provenance
from bncheck.judge.judge import judge
from bncheck.testing import classes_compared, compared, difference

MADE = InputSummary(samples=640, distinct=640, low=-1.0, high=1.0, mean=-0.4, deviation=0.7)
HALF = replace(MADE, low=0.0, mean=0.3, deviation=0.35)


def _copy(seen: InputSummary | None, *, agreement: float = 0.3, confirmed: bool = True) -> Facts:
    repaired = Provenance(file="fixed.bncheck.json", confirmed=confirmed, method="data", samples=640, input=MADE)
    places = [difference(name, local=0.3) for name in "abc"]
    return replace(compared(*places, output=classes_compared(agreement), seen=seen), repaired=repaired)


@pytest.mark.parametrize(
    "seen",
    [HALF, replace(MADE, mean=127.5, deviation=89.0, low=0.0, high=255.0), replace(MADE, mean=0.4)],
    ids=["0..1", "0..255", "negatives"],
)
def test_other_input_decides_nothing(seen: InputSummary) -> None:
    """What the copy makes of it is junk, and no fault: the verdict stays open, and says for what it holds."""
    report = judge(_copy(seen))
    (found,) = [finding for finding in report.findings if finding.code == "BN304"]
    assert report.verdict is Verdict.INCONCLUSIVE
    assert (
        "fixed.bncheck.json, this copy was repaired with input between -1 and 1 (mean -0.4, deviation 0.7)"
        in found.message
    )
    assert "BN301" not in [finding.code for finding in report.findings]


def test_other_input_that_is_served_well_is_a_note() -> None:
    """Eval mode answers as train mode does: the verdict is a pass, and the note says for what the copy was made."""
    report = judge(_copy(HALF, agreement=0.999))
    noted = [finding for finding in report.findings if finding.code == "BN304"]
    assert [finding.severity for finding in noted] == [Severity.INFO]
    assert "fixed.bncheck.json" in noted[0].message
    assert report.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("seen", "confirmed"),
    [(MADE, True), (replace(MADE, mean=-0.2, deviation=0.6), True), (None, True), (HALF, False)],
    ids=["same", "much the same", "not measured", "not confirmed"],
)
def test_the_same_input_and_a_file_that_is_not_believed_say_nothing(
    seen: InputSummary | None, *, confirmed: bool
) -> None:
    """The copy is judged as any model is."""
    messages = [finding.message for finding in judge(_copy(seen, confirmed=confirmed)).findings]
    assert not any("fixed.bncheck.json" in message for message in messages)


def test_few_samples_are_no_range() -> None:
    """Four dark images are images too."""
    report = judge(_copy(replace(HALF, samples=4, distinct=4)))
    assert not any("fixed.bncheck.json" in finding.message for finding in report.findings)
