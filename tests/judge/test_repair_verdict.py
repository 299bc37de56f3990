"""The verdict on a repair: which evidence earns a pass, which leaves a doubt, and which refuses it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncheck.facts.inputs import InputSummary
from bncheck.facts.layers import Facts
from bncheck.facts.repairs import RepairJudgement, RepairReport, RepairVerdict, Trial
from bncheck.judge.judge import judge
from bncheck.judge.repair_verdict import JUDGED_BY_NOTHING, judge_repair, refused_by_files, with_averages
from bncheck.report.text.repair import headline
from bncheck.rules import RULES
from bncheck.testing import batch_norm, facts, untouched, wired, with_graph

INPUT = InputSummary(samples=640, distinct=640, low=-1.0, high=1.0, mean=-0.4, deviation=0.7, neighbours=0.95)
LABELLED = Trial(
    samples=640,
    input=INPUT,
    labelled=640,
    classes=10,
    labels_seen=10,
    answers=10,
    commonest=0.12,
    accuracy_train=0.98,
    accuracy_before=0.1,
    accuracy_after=0.98,
    agreement_before=0.1,
    agreement_after=0.99,
    error_after=0.01,
    halves_agreement=0.99,
    halves_loss=0.005,
    halves_loss_error=0.002,
    splits=1,
    halves_error=0.01,
    entropy=0.05,
    scrambled_entropy=0.5,
)
PLAIN = replace(LABELLED, labelled=0, labels_seen=0, accuracy_train=None, accuracy_before=None, accuracy_after=None)
NEVER = with_graph(wired(untouched("bn")))


def _verdict(trial: Trial) -> RepairVerdict:
    return judge_repair(trial, NEVER).verdict


@pytest.mark.parametrize("trial", [LABELLED, PLAIN], ids=["labels", "none"])
def test_settled_and_recognised_is_a_pass(trial: Trial) -> None:
    """The halves agree, and labels, or what the model recognises in the data, vouch for them."""
    judgement = judge_repair(trial, NEVER)
    assert judgement.verdict is RepairVerdict.PASS
    assert judgement.reasons == ()
    assert any("-1 and 1" in told for told in judgement.told)


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy_before": 0.93, "accuracy_after": 0.60},
        {"input": replace(INPUT, deviation=0.0, low=0.5, high=0.5)},
        {"input": replace(INPUT, neighbours=0.001)},
        {"range_factor": 2.0},
        {"range_factor": 0.5},
    ],
    ids=["worse", "constant", "noise", "larger", "smaller"],
)
def test_what_speaks_against_it_refuses(changes: dict[str, object]) -> None:
    """A repair that makes eval mode worse, and data that are none, or in another range."""
    assert _verdict(replace(LABELLED, **changes)) is RepairVerdict.REFUSED  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trial", "changes"),
    [
        (LABELLED, {"halves_agreement": 0.7, "halves_loss": 0.15}),
        (
            LABELLED,
            {"halves_agreement": 1.0, "halves_loss": 0.0, "samples": 4, "input": replace(INPUT, samples=4, distinct=4)},
        ),
        (LABELLED, {"halves_agreement": None, "halves_error": None}),
        (LABELLED, {"accuracy_after": 0.85}),
        (LABELLED, {"accuracy_train": 0.12, "accuracy_after": 0.12}),
        (LABELLED, {"labels_seen": 1}),
        (LABELLED, {"labels_seen": 3}),
        (LABELLED, {"input": replace(INPUT, low=0.0, mean=0.3, deviation=0.35)}),
        (PLAIN, {"entropy": 0.45}),
        (PLAIN, {"answers": 2}),
        (PLAIN, {"classes": None, "entropy": None, "scrambled_entropy": None}),
        (PLAIN, {"classes": None, "entropy": None, "scrambled_entropy": None, "halves_error": 0.5}),
    ],
)
def test_what_nothing_confirms_is_unverified(trial: Trial, changes: dict[str, object]) -> None:
    """Too few, too unlike, too one-sided, or in a range that nobody vouches for."""
    judgement = judge_repair(replace(trial, **changes), NEVER)  # type: ignore[arg-type]
    assert judgement.verdict is RepairVerdict.UNVERIFIED
    assert judgement.reasons


def test_toss_ups_are_no_doubt() -> None:
    """Halves that disagree on classes which were equally likely cost no accuracy."""
    assert _verdict(replace(LABELLED, halves_agreement=0.85, halves_loss=0.01)) is RepairVerdict.PASS


def test_a_declared_range_vouches() -> None:
    """Who says --preprocess knows what the model was trained on, if the data are what is said; centred or not."""
    positive = replace(INPUT, low=0.0, mean=0.3, deviation=0.35)
    for said, of, verdict in (
        (True, positive, RepairVerdict.PASS),
        (None, positive, RepairVerdict.UNVERIFIED),
        (False, positive, RepairVerdict.UNVERIFIED),
        (False, INPUT, RepairVerdict.UNVERIFIED),
    ):
        assert _verdict(replace(LABELLED, input=replace(of, declared=said))) is verdict


def test_statistics_that_moved_vouch_for_the_range() -> None:
    """The first layer still knows what it saw; that they moved alone, a hair's breadth perhaps, tells nothing."""
    positive = replace(INPUT, low=0.0, mean=0.3, deviation=0.35)
    moved = facts(batch_norm("bn", variance=np.full(4, 0.3)))
    for factor, verdict in ((1.05, RepairVerdict.PASS), (None, RepairVerdict.UNVERIFIED)):
        trial = replace(LABELLED, input=positive, range_factor=factor)
        assert judge_repair(trial, moved).verdict is verdict


def test_without_labels_and_graph_the_training_mode_is_unknown() -> None:
    """Stored 0 and 1 may be what the weights were trained with."""
    judgement = judge_repair(PLAIN, facts(untouched("bn")))
    assert judgement.verdict is RepairVerdict.UNVERIFIED


def test_both_copies_of_the_weights_have_to_pass() -> None:
    """The worse one decides, and says whose doubt it is."""
    good, bad = judge_repair(LABELLED, NEVER), judge_repair(replace(LABELLED, labels_seen=1), NEVER)
    both = with_averages(good, bad)
    assert both.verdict is RepairVerdict.UNVERIFIED
    assert all(reason.startswith("Averaged weights: ") for reason in both.reasons)


def test_an_earlier_doubt_stays() -> None:
    """What made the data doubtful before the repair makes them so after it."""
    assert judge_repair(LABELLED, NEVER, doubted=("too few",)).verdict is RepairVerdict.UNVERIFIED


POSITIVE = replace(INPUT, low=0.0, mean=0.3, deviation=0.35)
KNOWN = replace(LABELLED, range_factor=1.02)
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "verdicts.md"
REFUSING = tuple(rule for rule in RULES if rule.refuses_repair)
HALVES = "the halves of the data make models that agree, and by labels eval mode is then as good as train mode"


def _by_files() -> Sequence[RepairJudgement]:
    """Of the example of each rule that refuses a repair."""
    broken = [sys.modules[rule.check.__module__].broken()[0] for rule in REFUSING]
    return [RepairJudgement(verdict=RepairVerdict.REFUSED, reasons=refused_by_files(judge(model))) for model in broken]


def _of(*trials: Trial, model: Facts = NEVER) -> Sequence[RepairJudgement]:
    return [judge_repair(trial, model) for trial in trials]


EXAMPLES: Mapping[str, Sequence[RepairJudgement]] = {
    HALVES: _of(KNOWN),
    "the halves agree, and without labels the model recognises the data": _of(replace(PLAIN, range_factor=1.02)),
    "the halves agree, and the range of the training is known from statistics that moved": _of(
        replace(KNOWN, input=POSITIVE)
    ),
    "the halves agree, and nothing tells the range of the training; the data lie around 0": _of(LABELLED, PLAIN),
    "the halves agree, and nothing tells the range of the training; the data do not lie around 0": _of(
        replace(LABELLED, input=POSITIVE)
    ),
    "the data lie in another range than `--preprocess` names": _of(
        replace(LABELLED, input=replace(INPUT, declared=False))
    ),
    "the halves disagree": _of(replace(KNOWN, halves_agreement=0.7, halves_loss=0.15)),
    "one sample": _of(replace(KNOWN, samples=1, input=replace(INPUT, samples=1, distinct=1))),
    "samples of one class": _of(replace(KNOWN, labels_seen=1), replace(PLAIN, range_factor=1.02, answers=1)),
    "by labels, eval mode still loses against train mode": _of(replace(KNOWN, accuracy_after=0.85)),
    "by labels, train mode does not know the classes": _of(replace(KNOWN, accuracy_train=0.12, accuracy_after=0.12)),
    "without labels, the model recognises little in the data": _of(replace(PLAIN, entropy=0.45)),
    "without labels, nothing tells whether the model was trained with batch statistics": _of(
        PLAIN, model=facts(untouched("bn"))
    ),
    "no data (`--debias`, `--rescue`)": [JUDGED_BY_NOTHING],
    "one of two copies of the weights (raw and averaged) is not confirmed": [
        with_averages(*_of(KNOWN, replace(KNOWN, labels_seen=1))),
        with_averages(*_of(replace(KNOWN, labels_seen=1), KNOWN)),
    ],
    "by labels, eval mode is better as it is stored": _of(replace(KNOWN, accuracy_before=0.93, accuracy_after=0.6)),
    "the data are constant, or noise": _of(
        replace(KNOWN, input=replace(INPUT, deviation=0.0, low=0.5, high=0.5)),
        replace(KNOWN, input=replace(INPUT, neighbours=0.001)),
    ),
    "the data are of another range than the statistics that moved": _of(replace(LABELLED, range_factor=2.0)),
    "statistics are not the fault, by the files (BN109, BN115, BN204)": _by_files(),
    "the copy, inspected and compared, still fails": _of(KNOWN, LABELLED, replace(KNOWN, labels_seen=1)),
}


def _repaired(judgement: RepairJudgement, *, allow_unverified: bool, still_broken: bool) -> RepairReport:
    """The report of a repair that came to this judgement."""
    before = judge(NEVER)
    after = before if still_broken else judge(facts(batch_norm("bn", decay=0.9)))
    return RepairReport(
        source="model.ckpt",
        output="fixed.ckpt",
        format="TF1 checkpoint",
        method="data",
        repaired=(),
        left=(),
        files=() if judgement.verdict is RepairVerdict.REFUSED else ("fixed.ckpt.index",),
        provenance="",
        before=before,
        after=before if judgement.verdict is RepairVerdict.REFUSED else after,
        judgement=judgement,
        allow_unverified=allow_unverified,
    )


def rows() -> list[tuple[str, str, int]]:
    """(what was found, verdict, exit code) of each row of the documentation's table of repairs."""
    table = PAGE.read_text(encoding="utf-8").partition("## Repairs")[2].partition("|---|---|---|\n")[2]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]
    return [(found, verdict, int(code)) for found, verdict, code in cells]


@pytest.mark.parametrize(("found", "verdict", "code"), rows())
def test_each_row(found: str, verdict: str, code: int) -> None:
    """The headline and the exit code are those that the table tells."""
    what, _, option = found.partition(", with ")
    for judgement in EXAMPLES[what]:
        report = _repaired(judgement, allow_unverified=bool(option), still_broken="still fails" in what)
        assert (headline(report), report.exit_code) == (verdict, code)


def test_every_example_stands_in_the_table() -> None:
    """And so do the rules that refuse a repair, each of which says why."""
    told = {found.partition(", with ")[0] for found, _, _ in rows()}
    assert told == set(EXAMPLES)
    (by_files,) = (found for found in told if "by the files" in found)
    assert by_files.endswith(f"({', '.join(rule.code for rule in REFUSING)})")
    assert [judgement.reasons[0][:5] for judgement in EXAMPLES[by_files]] == [rule.code for rule in REFUSING]


def test_what_a_pass_assumes_is_told_where_no_evidence_carries_it() -> None:
    """The range of the training; not where --preprocess or the first layer vouches, nor where there is no pass."""
    assert "-1 and 1" in judge_repair(LABELLED, NEVER).assumes
    vectors = replace(LABELLED, input=replace(INPUT, neighbours=None))
    for trial, says in ((LABELLED, True), (vectors, False)):
        assert ("--preprocess" in judge_repair(trial, NEVER).assumes) is says
    said = replace(LABELLED, input=replace(INPUT, declared=True))
    for trial in (KNOWN, said, replace(LABELLED, labels_seen=1)):
        assert judge_repair(trial, NEVER).assumes == ""
    assert with_averages(*_of(LABELLED, LABELLED)).assumes
    assert not with_averages(*_of(LABELLED, replace(LABELLED, labels_seen=1))).assumes
