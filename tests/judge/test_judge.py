"""From facts to a verdict: which rules run, what explains what, what is suppressed, when there is nothing to judge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from report_example import NAMES, RULES, example_facts

from bncheck.facts.errors import ConfigError
from bncheck.facts.findings import Evidence, Meaning, Report, Severity, Verdict
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, Given, Mode, Origin, Purpose, RunFacts
from bncheck.facts.lite import LiteFacts
from bncheck.facts.measurements import GIVEN, Rounded
from bncheck.judge.judge import judge, wiring_faults
from bncheck.report.views.quantized import facts_told
from bncheck.report.views.story import counts, stories
from bncheck.rules.registry import Registry
from bncheck.rules.rule import Needs, Rule, rule
from bncheck.settings.config import FailOn, Ignore, Settings
from bncheck.testing import batch_norm, facts, folded, lite, site, unread, untouched, unwired, with_graph
from bncheck.testing.quantized import operator_loss, quantized

TODAY = date(2026, 6, 1)


def _judge(model: Facts, rules: tuple[Rule, ...] = RULES, **settings: Any) -> Report:
    return judge(model, settings=Settings(today=TODAY, **settings), rules=Registry(rules))


def _rule(code: str, *layers: str, severity: Severity = Severity.ERROR, **declared: Any) -> Rule:
    @rule(code, "made-up", severity=severity, needs=Needs.NOTHING, **declared)
    def check(model: Facts) -> Iterator[Evidence]:
        """Made up."""
        yield Evidence(layers=layers, message=f"{code} in {len(model.layers)} layers")

    return check


def _ignore(**changes: Any) -> Ignore:
    known: dict[str, Any] = {"layer": NAMES[1], "codes": ("BN107",), "reason": "known"}
    return Ignore(**(known | changes))


def test_finding_takes_name_and_texts_from_its_rule() -> None:
    """Code, slug, severity, the first paragraph of why, and the fix come from the rule; evidence adds the rest."""
    finding = next(f for f in _judge(example_facts()).findings if f.code == "BN107")
    assert (finding.slug, finding.severity, finding.why) == ("dead-channels", Severity.WARNING, "Harmless in float.")
    assert (finding.fix, finding.layer, finding.location) == ("Prune them.", NAMES[1], f"{NAMES[1]}/moving_variance")


def test_worst_comes_first() -> None:
    """Errors, then warnings, then notes; in code order within each."""
    assert [f.code for f in _judge(example_facts()).findings] == ["BN101", "BN201", "BN107", "BN107", "BN218"]


def test_rules_that_ran_are_listed_whether_they_found_something_or_not() -> None:
    """A report can say what was judged; a rule whose evidence is lacking did not run."""
    assert [info.code for info in _judge(example_facts()).rules] == ["BN101", "BN107", "BN201", "BN218"]


def test_fingerprint_is_the_same_on_other_machines_and_steps() -> None:
    """Folder and step do not matter; model name, code, layers and location do."""
    here = {f.fingerprint for f in _judge(example_facts()).findings}
    there = {f.fingerprint for f in _judge(replace(example_facts(), path="/x/y/model.ckpt-99999")).findings}
    other = {f.fingerprint for f in _judge(replace(example_facts(), path="runs/teacher.ckpt-300")).findings}
    assert here == there
    assert len(here) == 5
    assert here.isdisjoint(other)


def test_fingerprint_ignores_the_step_before_a_suffix() -> None:
    """`model.ckpt-300.meta` and `model.ckpt-400.meta` are the same target."""
    marks = [
        {f.fingerprint for f in _judge(replace(example_facts(), path=p)).findings}
        for p in ("model.ckpt-300.meta", "model.ckpt-400.meta")
    ]
    assert marks[0] == marks[1]


def test_cause_explains_what_shares_its_layers() -> None:
    """BN101 is explained by BN201 where they hold for the same layers."""
    report = _judge(example_facts())
    assert {f.code: f.caused_by for f in report.findings} == {
        "BN101": "BN201",
        "BN201": None,
        "BN107": None,
        "BN218": None,
    }
    assert [(s.cause.code, [e.code for e in s.explained]) for s in stories(report)] == [
        ("BN201", ["BN101"]),
        ("BN107", []),
        ("BN107", []),
        ("BN218", []),
    ]


@pytest.mark.parametrize(
    ("cause", "effect", "explained"),
    [(("a",), ("b",), False), (("a", "b"), ("b",), True), ((), ("b",), True), (("a",), (), True)],
)
def test_cause_needs_common_layers(cause: tuple[str, ...], effect: tuple[str, ...], *, explained: bool) -> None:
    """No common layer, no explanation; a finding about the whole model has all of them."""
    report = _judge(facts(), (_rule("BN501", *cause), _rule("BN502", *effect, explained_by=("BN501",))))
    assert (report.findings[1].caused_by == "BN501") is explained


def test_findings_never_explain_each_other_in_a_circle() -> None:
    """Two rules that name each other: one is the cause, and each finding is told exactly once."""
    rules = (_rule("BN501", explained_by=("BN502",)), _rule("BN502", explained_by=("BN501",)))
    report = _judge(facts(), rules)
    assert sorted(str(f.caused_by) for f in report.findings) == ["BN502", "None"]
    told = [f.code for story in stories(report) for f in (story.cause, *story.explained)]
    assert sorted(told) == ["BN501", "BN502"]


def test_suppressed_cause_explains_nothing() -> None:
    """What an ignored finding would explain stands on its own: nothing hides behind an ignore."""
    report = _judge(example_facts(), ignores=(_ignore(layer="*", codes=("BN201",)),))
    assert next(f for f in report.findings if f.code == "BN101").caused_by is None


def test_story_is_as_bad_as_its_worst_finding() -> None:
    """A warning that explains an error counts as an error."""
    rules = (_rule("BN501", severity=Severity.WARNING), _rule("BN502", explained_by=("BN501",)))
    report = _judge(facts(batch_norm()), rules)
    assert (report.verdict, counts(report)["error"], counts(report)["warning"]) == (Verdict.FAIL, 1, 0)


@pytest.mark.parametrize(
    ("fail_on", "worst", "verdict"),
    [
        (FailOn.ERROR, Severity.ERROR, Verdict.FAIL),
        (FailOn.ERROR, Severity.WARNING, Verdict.PASS),
        (FailOn.WARNING, Severity.WARNING, Verdict.FAIL),
        (FailOn.WARNING, Severity.INFO, Verdict.PASS),
        (FailOn.NEVER, Severity.ERROR, Verdict.PASS),
    ],
)
def test_fail_on(fail_on: FailOn, worst: Severity, verdict: Verdict) -> None:
    """The verdict fails from the given severity on."""
    assert _judge(facts(batch_norm()), (_rule("BN501", severity=worst),), fail_on=fail_on).verdict is verdict


def _graph_without_train_op(**changes: object) -> Facts:
    layer = unread(batch_norm("bn", sites=(site(),)))
    return with_graph(layer, purpose=Purpose.TRAINING, train_ops=(), **changes)


def _unjudged() -> Facts:
    return facts(unread(batch_norm("bn")), run=RunFacts(values=False, keys=frozenset({"bn/gamma"})))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (facts(), "no batch norm was found"),
        (facts(lite=LiteFacts(folded=(), leftovers=(), integer=False, operators=3)), "no batch norm was found"),
        (_unjudged(), "no statistic, mode or update of its batch norm could be judged"),
        (
            facts(unread(batch_norm(sites=(site(mode=Mode.UNKNOWN),))), run=RunFacts()),
            "no statistic, mode or update of its batch norm could be judged",
        ),
    ],
    ids=["no layers", "empty TFLite", "nothing read", "mode unknown"],
)
def test_nothing_to_judge_is_inconclusive(model: Facts, reason: str) -> None:
    """Exit code 3 with the reason; 0 where that is allowed; never a pass."""
    note = (_rule("BN501", severity=Severity.INFO),)
    report = _judge(model, note)
    assert (report.verdict, report.exit_code, report.headline) == (Verdict.INCONCLUSIVE, 3, reason)
    assert _judge(model, note, allow_empty=True).exit_code == 0


def test_no_batch_norm_is_no_failure() -> None:
    """That none was found makes the verdict inconclusive, whatever its severity."""
    report = _judge(facts(), (_rule("BN501", meaning=Meaning.NO_BATCH_NORM),))
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)


@pytest.mark.parametrize(
    ("cause", "effect"),
    [
        ({}, {"explained_by": ("BN501",)}),
        ({"explains": ("BN502",)}, {}),
        ({"meaning": Meaning.WIRING_FAULT}, {"explained_by": (Meaning.WIRING_FAULT,)}),
    ],
)
def test_either_rule_may_declare_the_cause(cause: dict[str, Any], effect: dict[str, Any]) -> None:
    """The effect names its causes, or what they mean; or a cause, which may be a later rule, names its effects."""
    report = _judge(facts(), (_rule("BN501", **cause), _rule("BN502", **effect)))
    assert [finding.caused_by for finding in report.findings] == [None, "BN501"]


def test_the_first_cause_that_is_declared_tells_the_story() -> None:
    """In the order of the declaration, not of the codes."""
    causes = (_rule("BN501", meaning=Meaning.VALUES_FAULT), _rule("BN502", meaning=Meaning.WIRING_FAULT))
    effect = _rule("BN503", explained_by=(Meaning.WIRING_FAULT, Meaning.VALUES_FAULT))
    assert _judge(facts(), (*causes, effect)).findings[2].caused_by == "BN502"


def test_wiring_faults_ask_the_rules_that_say_so() -> None:
    """Updates that no train op runs are one; dead channels of the same model are none, nor are warnings."""
    names = ("a/bn", "b/bn")
    model = with_graph(*(unwired(untouched(name)) for name in names))
    assert [finding.code for finding in wiring_faults(model)] == ["BN201"]
    assert wiring_faults(facts(batch_norm("bn", variance=[0.0, 1.0]))) == ()


def test_fault_without_judged_statistics_fails() -> None:
    """An error outweighs the lack of evidence for the rest."""
    assert _judge(_unjudged(), (_rule("BN501"),)).exit_code == 1


def test_training_graph_without_train_op_and_values_is_inconclusive() -> None:
    """Neither wiring nor values could be judged: that is no pass."""
    model = _graph_without_train_op()
    model = replace(model, run=RunFacts())
    assert _judge(model, (_rule("BN501", severity=Severity.INFO),)).verdict is Verdict.INCONCLUSIVE


def test_folded_operators_can_be_judged() -> None:
    """A TFLite file has no layers, but what it folded is judged."""
    report = _judge(lite(folded("conv")), (_rule("BN501", severity=Severity.INFO),))
    assert (report.verdict, report.folded) == (Verdict.PASS, 1)


def test_selection_that_cannot_run_is_inconclusive() -> None:
    """Selecting only rules for which the evidence is lacking judges nothing."""
    report = _judge(facts(batch_norm()), select=("BN201",))
    assert report.verdict is Verdict.INCONCLUSIVE
    assert "selected" in report.headline


@pytest.mark.parametrize(
    ("select", "ignore", "codes"),
    [
        ((), (), {"BN101", "BN107", "BN201", "BN218"}),
        (("BN1",), (), {"BN101", "BN107"}),
        (("BN201", "BN107"), (), {"BN107", "BN201"}),
        ((), ("BN2",), {"BN101", "BN107"}),
        (("BN",), ("BN10",), {"BN201", "BN218"}),
        (("BN1",), ("BN107",), {"BN101"}),
    ],
)
def test_select_and_ignore_by_prefix(select: tuple[str, ...], ignore: tuple[str, ...], codes: set[str]) -> None:
    """`select` lets in by prefix, `ignore` then leaves out; what was left out is said."""
    report = _judge(example_facts(), select=select, ignore=ignore)
    assert {f.code for f in report.findings} == codes
    left_out = [n for n in report.not_checked if "--select" in n.why]
    assert bool(left_out) == bool(select or ignore)


@pytest.mark.parametrize(
    "settings", [{"select": ("BN9",)}, {"ignore": ("BN20X",)}, {"ignores": (_ignore(codes=("X",)),)}]
)
def test_unknown_code_is_an_error(settings: dict[str, object]) -> None:
    """A typo in a code would leave a fault unreported, so it is refused."""
    with pytest.raises(ConfigError, match="no rule's code starts with"):
        _judge(example_facts(), **settings)


def test_ignore_takes_a_finding_out_of_the_verdict_and_into_the_report() -> None:
    """The finding is not counted, but stands in the report with the reason."""
    report = _judge(example_facts(), ignores=(_ignore(layer="net/*", codes=("BN",)),))
    assert (report.findings, report.verdict) == ((), Verdict.PASS)
    assert [(s.finding.code, s.by) for s in report.suppressed] == [
        (code, "known") for code in ("BN101", "BN201", "BN107", "BN107", "BN218")
    ]


def test_ignore_of_some_layers_leaves_the_others() -> None:
    """One layer of three ignored: the finding goes on for the other two and says so."""
    report = _judge(example_facts(), ignores=(_ignore(codes=("BN201",)),))
    kept = next(f for f in report.findings if f.code == "BN201")
    assert kept.layers == (NAMES[0], NAMES[2])
    assert "1 of these 3 layers ignored" in kept.message
    assert [s.finding.layers for s in report.suppressed] == [(NAMES[1],)]
    assert kept.fingerprint != report.suppressed[0].finding.fingerprint


def test_expired_ignore_suppresses_no_more_and_is_reported() -> None:
    """The day after its last day an ignore is dead, and the report says so."""
    last = _judge(example_facts(), ignores=(_ignore(expires=TODAY),))
    over = _judge(example_facts(), ignores=(_ignore(expires=date(2026, 5, 31)),))
    assert (len(last.suppressed), len(over.suppressed)) == (1, 0)
    assert last.target.notes == ()
    assert over.target.notes == (
        "ignore of BN107 on 'net/conv2/BatchNorm' expired on 2026-05-31: it no longer applies",
    )


def test_unused_ignore_is_reported() -> None:
    """An ignore that matched nothing is said, unless its rule did not run."""
    unused = _judge(example_facts(), ignores=(_ignore(layer="other/*"),))
    not_run = _judge(example_facts(), ignores=(_ignore(codes=("BN405",)),))
    assert unused.target.notes == ("ignore of BN107 on 'other/*' matched nothing: remove it",)
    assert not_run.target.notes == ()


def test_baseline_takes_out_what_was_there_before() -> None:
    """Findings of the baseline are suppressed, new ones count, and gone ones are said."""
    before = _judge(example_facts())
    marks = frozenset(f.fingerprint for f in before.findings if f.code != "BN201") | {"0" * 64}
    report = _judge(example_facts(), baseline=marks)
    assert [f.code for f in report.findings] == ["BN201"]
    assert {s.by for s in report.suppressed} == {"baseline"}
    assert report.target.notes == ("1 of 5 findings of the baseline no longer occur: write it again",)


def test_baseline_of_a_partly_ignored_finding() -> None:
    """The rest of a finding is recognised in a baseline that was written with the same ignore."""
    ignores = (_ignore(codes=("BN201",)),)
    first = _judge(example_facts(), ignores=ignores)
    marks = frozenset(f.fingerprint for f in (*first.findings, *(s.finding for s in first.suppressed)))
    assert _judge(example_facts(), ignores=ignores, baseline=marks).findings == ()


def _lacking(report: Report) -> dict[str, str]:
    return {n.what: n.why for n in report.not_checked}


def test_not_checked_of_a_bare_checkpoint() -> None:
    """Graph rules did not run, and how to have them run is said; TFLite rules are not mentioned."""
    report = _judge(facts(batch_norm(origin=Origin.NAME)))
    assert _lacking(report) == {
        "wiring and modes": "only a checkpoint was given",
        "init share": "no file tells the decay",
        "train vs eval": "needs data",
    }
    assert report.not_checked[0].how == "--graph META"
    assert report.not_checked[0].codes == ("BN201", "BN218")
    assert report.checked == ("values",)


def test_not_checked_with_no_graph() -> None:
    """Who leaves the graph out is told so."""
    report = _judge(replace(facts(batch_norm(origin=Origin.NAME)), given=Given(use_graph=False)))
    assert _lacking(report)["wiring and modes"] == "--no-graph was given"


@pytest.mark.parametrize(
    ("format_", "why"),
    [
        (Format(FileKind.KERAS, "Keras 3 archive"), "a Keras file holds no training graph"),
        (Format(FileKind.TF2_CHECKPOINT), "a TF2 checkpoint comes without a graph"),
        (Format(FileKind.ARRAYS), "a NumPy archive holds no graph"),
    ],
)
def test_not_checked_by_format(format_: Format, why: str) -> None:
    """The reason fits the file that was given."""
    assert _lacking(_judge(facts(batch_norm(), format=format_)))["wiring and modes"] == why


def test_not_checked_of_a_graph() -> None:
    """Without a checkpoint the statistics were not judged."""
    model = replace(with_graph(unread(batch_norm("bn", sites=(site(),)))), run=RunFacts(), path="m.meta")
    report = _judge(model, (*RULES[:2], _rule("BN501", severity=Severity.INFO)))
    assert _lacking(report)["statistics"] == "no checkpoint was given"
    assert report.checked == ("graph",)


def test_not_checked_of_an_index() -> None:
    """With only the index, what checksums cannot tell is said to be unread."""
    layer = batch_norm("bn")
    bare = replace(layer, mean=replace(layer.mean, values=None), variance=replace(layer.variance, values=None))
    report = _judge(facts(bare, run=RunFacts(values=True, index_only=True, keys=frozenset({"bn"}))))
    assert _lacking(report)["sizes of the statistics"].startswith("only the index was given")
    assert report.checked == ("checksums of the values",)


def test_not_checked_of_a_tflite_file() -> None:
    """A converted file holds neither statistics nor wiring: the model it came from does."""
    assert _lacking(_judge(lite(folded("conv")))) == {
        "statistics and wiring": "a TFLite file no longer holds them",
        "quantized vs float": "needs data",
    }


def test_graph_beside_the_checkpoint_is_named() -> None:
    """The target names both files and both formats, once each."""
    target = _judge(example_facts()).target
    assert target.format == "TF1 checkpoint + MetaGraph"
    assert target.graph_path is not None
    same = with_graph(batch_norm(), format=Format(FileKind.SAVED_MODEL), path="m/saved_model.pb")
    assert _judge(replace(same, format=Format(FileKind.SAVED_MODEL), path="m")).target.format == "SavedModel"


def test_no_output_in_common_is_no_pass() -> None:
    """A quantized file that lacks the model's head was not judged by what it answers."""
    model = quantized(operator_loss())
    assert model.quantized is not None
    assert judge(model).verdict is Verdict.PASS
    bare = judge(replace(model, quantized=replace(model.quantized, outputs=(), scheme="given", quantized="q.tflite")))
    assert (bare.verdict, bare.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert bare.headline == "q.tflite has none of the model's outputs, so what it answers was not judged"
    assert bare.quantized is not None
    other = judge(replace(model, quantized=replace(bare.quantized, apart=(10, 7))))
    assert other.headline == f"{bare.headline}: it tells 7 classes, the model 10"


def test_what_a_finding_tells_in_full_is_not_told_twice() -> None:
    """Trained in eval mode: that the statistics are initial is part of it, and no fault of its own."""
    layer = replace(unwired(untouched("bn"), mode=Mode.EVAL), updates=())
    assert [f.code for f in judge(with_graph(layer)).findings] == ["BN204"]


def test_what_a_finding_tells_of_other_layers_stays() -> None:
    """A layer that no finding on the mode names keeps its own."""
    layer = replace(unwired(untouched("bn"), mode=Mode.EVAL), updates=())
    assert {f.code for f in judge(with_graph(layer, untouched("apart"))).findings} == {"BN101", "BN204"}


@pytest.mark.parametrize("scheme", ["float16", GIVEN])
def test_a_scheme_that_quantizes_nothing_judges_nothing(scheme: str) -> None:
    """Float against float agrees, whatever quantizing costs; a file that was given may be float on purpose."""
    model = quantized(operator_loss(), accuracy=(0.95, 0.95), train=(0.95, 1.0), scheme=scheme)
    assert model.quantized is not None
    left = Rounded(kernels=0, of_kernels=1, operators=0, of_operators=3)
    report = judge(replace(model, quantized=replace(model.quantized, rounded=left)))
    assert report.verdict is (Verdict.PASS if scheme == GIVEN else Verdict.INCONCLUSIVE)
    if scheme != GIVEN:
        assert report.headline.startswith("float16 quantizes nothing of this model: 1 kernel is left in float32")
    told = dict(facts_told(report.quantized)) if report.quantized is not None else {}
    assert told["Rounded"] == "0 of 1 kernel stored in fewer bits, 0 of 3 operators in integers"
