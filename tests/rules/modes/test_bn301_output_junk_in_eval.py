"""BN301 output-junk-in-eval."""

from __future__ import annotations

import pytest
from one_evidence import only

from bncheck.facts.findings import Confidence, Severity, Verdict
from bncheck.judge.judge import judge
from bncheck.rules.modes.bn301_output_junk_in_eval import check
from bncheck.testing import classes_compared, compared, difference


def test_labels_make_it_certain() -> None:
    """With labels the accuracies are told; without them the classes that both modes agree on, less surely."""
    layers = difference("a"), difference("b", local=0.5)
    told = only(check, compared(*layers, output=classes_compared(0.1), accuracy=(0.909, 0.103)))
    assert told.message == "The output is junk in eval mode: accuracy is 10.3 % in eval mode and 90.9 % in train mode."
    assert told.confidence is Confidence.HIGH
    guessed = only(check, compared(*layers, output=classes_compared(0.1)))
    assert "agrees with train mode on 10.0 % of the samples" in guessed.message
    assert guessed.confidence is Confidence.MEDIUM


def test_data_that_may_be_at_fault_make_it_a_warning() -> None:
    """The first layer, which sees the data as they are, is the one that is off, and no labels tell."""
    found = only(check, compared(difference("a", local=0.4), difference("b"), output=classes_compared(0.1)))
    assert (found.severity, found.confidence) == (Severity.WARNING, Confidence.LOW)


@pytest.mark.parametrize(("agreement", "local", "error"), [(0.63, 5e-3, False), (0.63, 0.3, True), (0.4, 5e-3, True)])
def test_a_network_that_learned_little_changes_its_mind(agreement: float, local: float, *, error: bool) -> None:
    """Without labels and without a layer that is off, a gap near its limit is a warning."""
    output = classes_compared(agreement, agreement_floor=0.797)
    report = judge(compared(difference("a"), difference("b", local=local), output=output))
    assert (report.verdict is Verdict.FAIL) is error
    (junk,) = [finding for finding in report.findings if finding.code == "BN301"]
    assert ("only labels would show" in junk.message) is not error
