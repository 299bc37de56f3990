"""`--against`: what an earlier model had is accepted layer by layer, what became worse is not, noise is no loss."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from bncheck.commands.gate.earlier_model import Earlier, is_report, of_report, read_report
from bncheck.facts.errors import ConfigError, NotFound
from bncheck.facts.findings import Report, Verdict
from bncheck.facts.layers import Facts
from bncheck.judge.judge import judge
from bncheck.report.wire import json_v1
from bncheck.settings.config import Known, Settings
from bncheck.testing import (
    batch_norm,
    classes_compared,
    compared,
    difference,
    facts,
    features_compared,
    untouched,
    unwired,
    with_graph,
)


def _against(new: Facts, old: Facts) -> Report:
    earlier = of_report(judge(old), "old")
    return judge(replace(new, before=earlier.before), settings=Settings(known=earlier.known))


def _codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def _moved(*names: str) -> Facts:
    """Layers whose statistics moved, but for those that are named."""
    layers = [untouched(name) if name in names else batch_norm(name) for name in "abcd"]
    return facts(*layers)


def test_the_same_is_accepted() -> None:
    """What the earlier model had does not fail, and stays in the report as such."""
    report = _against(_moved("a", "b"), _moved("a", "b"))
    assert (report.verdict, _codes(report)) == (Verdict.PASS, [])
    assert [(s.finding.code, s.finding.layers, s.by) for s in report.suppressed] == [
        ("BN102", ("a", "b"), "the earlier model has it too")
    ]


def test_better_is_accepted() -> None:
    """Fewer layers of the same fault, or none."""
    assert _against(_moved("a"), _moved("a", "b")).verdict is Verdict.PASS
    assert _against(_moved(), _moved("a", "b")).verdict is Verdict.PASS


def test_more_layers_fail() -> None:
    """Only the layers that are new are the finding's; the rest was there before."""
    report = _against(_moved("a", "b", "c"), _moved("a", "b"))
    assert report.verdict is Verdict.FAIL
    (finding,) = report.findings
    assert (finding.code, finding.layers) == ("BN102", ("c",))
    assert "2 of these 3 layers had it in the earlier model" in finding.message
    assert [s.finding.layers for s in report.suppressed] == [("a", "b")]


def test_other_faults_fail() -> None:
    """A fault of the earlier model excuses no other one."""
    report = _against(facts(unwired(batch_norm("a", variance=float("nan"))), batch_norm("b")), _moved("a"))
    assert report.verdict is Verdict.FAIL
    assert "BN105" in _codes(report)


def test_half_repaired_is_no_new_fault() -> None:
    """Some layers never moved where none ever did before, some not wired where none was: better, not new."""
    none_moved = with_graph(*(unwired(untouched(name)) for name in "abc"))
    some_moved = with_graph(unwired(untouched("a")), *(unwired(batch_norm(name)) for name in "bc"))
    old = judge(none_moved)
    assert {"BN101", "BN201"} <= set(_codes(old))
    assert "BN102" in _codes(judge(some_moved))
    assert "BN102" not in _codes(_against(some_moved, none_moved))
    assert "BN102" in {s.finding.code for s in _against(some_moved, none_moved).suppressed}


def test_worse_severity_fails() -> None:
    """An error where the earlier model had a warning is worse; a warning where it had an error is not."""
    error = judge(_moved("a")).findings[0]
    assert error.severity.value == "error"
    known = {"code": error.code, "layers": frozenset(error.layers), "location": error.location}
    mild = Settings(known=(Known(severity="warning", **known),))
    bad = Settings(known=(Known(severity="error", **known),))
    assert judge(_moved("a"), settings=mild).verdict is Verdict.FAIL
    assert judge(_moved("a"), settings=bad).verdict is Verdict.PASS


def test_faults_of_the_whole_model() -> None:
    """Accepted where the earlier model had the same at the same place, and nowhere else."""
    junk = compared(difference("bn", local=0.5), output=classes_compared(0.1), accuracy=(0.91, 0.10))
    assert _against(junk, junk).verdict is Verdict.PASS
    other = replace(junk.comparison, outputs=(replace(classes_compared(0.1), name="other"),))
    assert "BN301" in _codes(_against(replace(junk, comparison=other), junk))


@pytest.mark.parametrize(
    ("new", "old", "lost"),
    [
        (0.94, 0.94, False),
        (0.96, 0.94, False),
        (0.92, 0.94, False),
        (0.88, 0.94, True),
        (0.10, 0.94, True),
    ],
)
def test_accuracy(new: float, old: float, lost: bool) -> None:  # noqa: FBT001 - a table
    """Of 352 samples two standard errors are about 3.5 points: less is noise, more is a loss."""
    layer = difference()
    report = _against(compared(layer, accuracy=(new, new)), compared(layer, accuracy=(old, old)))
    assert ("BN501" in _codes(report)) is lost
    assert report.verdict is (Verdict.FAIL if lost else Verdict.PASS)


def test_accuracy_of_many_samples() -> None:
    """Two points are noise for a few hundred samples and a loss for ten thousand; a third of a point never is."""
    layer = difference()

    def of(accuracy: float) -> Facts:
        return compared(layer, accuracy=(accuracy, accuracy), samples=10_000)

    assert "BN501" in _codes(_against(of(0.92), of(0.94)))
    assert "BN501" not in _codes(_against(of(0.937), of(0.94)))


def test_accepted_faults_that_get_worse() -> None:
    """BN301 is accepted, the points it costs more than before are not."""
    layer = difference("bn", local=0.5)
    old = compared(layer, output=classes_compared(0.8), accuracy=(0.9, 0.8))
    new = compared(layer, output=classes_compared(0.1), accuracy=(0.9, 0.1))
    report = _against(new, old)
    assert _codes(report) == ["BN501"]
    assert "BN301" in {s.finding.code for s in report.suppressed}
    assert "10.0 %, before 80.0 %" in report.findings[0].message


def test_features() -> None:
    """An output that is no classes: twice the error and well above the floor is worse."""
    layer = difference()
    at = {error: compared(layer, output=features_compared(error)) for error in (0.02, 0.05, 0.29)}
    assert "BN501" in _codes(_against(at[0.29], at[0.02]))
    assert "BN501" not in _codes(_against(at[0.05], at[0.02]))
    assert "BN501" not in _codes(_against(at[0.02], at[0.29]))


@pytest.mark.parametrize("kind", ["other data", "synthetic", "not measured"])
def test_what_cannot_be_compared_is_not(kind: str) -> None:
    """Other data, noise, or no measurement at all say nothing about getting worse."""
    layer = difference()
    old = {
        "other data": compared(layer, accuracy=(0.99, 0.99), samples=64),
        "synthetic": compared(layer, accuracy=(0.99, 0.99), synthetic=True),
        "not measured": facts(batch_norm("bn")),
    }[kind]
    assert "BN501" not in _codes(_against(compared(layer, accuracy=(0.8, 0.8)), old))


def _written(path: Path, *reports: Report) -> Path:
    stream = io.StringIO()
    if len(reports) == 1:
        json_v1.write(reports[0], stream)
    else:
        json_v1.write_run(reports, stream)
    path.write_text(stream.getvalue())
    return path


@pytest.mark.parametrize(
    "model",
    [
        _moved("a", "b"),
        compared(difference("bn", local=0.5), output=classes_compared(0.1), accuracy=(0.91, 0.10)),
        compared(difference(), output=features_compared(float("nan"))),
        compared(difference(), synthetic=True),
    ],
    ids=["files", "classes", "features", "synthetic"],
)
def test_report_and_model_say_the_same(model: Facts, tmp_path: Path) -> None:
    """The JSON report of a model is as good as the model."""
    path = _written(tmp_path / "old.json", judge(model))
    read, made = read_report(path), of_report(judge(model), str(path))
    assert is_report(path)
    assert _comparable(read) == _comparable(made)


def _comparable(earlier: Earlier) -> str:
    return repr(replace(earlier, known=tuple(sorted(earlier.known, key=repr))))


def test_suppressed_findings_are_known() -> None:
    """What the earlier gate accepted itself was there too: a chain of reports keeps accepting it."""
    first = of_report(judge(_moved("a")), "old")
    second = of_report(judge(_moved("a"), settings=Settings(known=first.known)), "old")
    assert second.known == first.known


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("{}", "not a bncheck report"),
        ('{"schema": 2}', "not a bncheck report"),
        ('{"schema": 1}', "cannot be read"),
        ('{"schema": 1, "findings": 5, "suppressed": [], "comparisons": [], "checked": []}', "cannot be read"),
        ('{"schema": 1, "reports": []}', "of one model"),
        ("{" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_report(text: str, says: str, tmp_path: Path) -> None:
    """A sentence that names the file; never another exception."""
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        read_report(path)
    assert "old.json" in str(error.value)


def test_report_of_several_models(tmp_path: Path) -> None:
    """One model is held against one."""
    path = _written(tmp_path / "run.json", judge(_moved()), judge(_moved("a")))
    with pytest.raises(ConfigError, match="several or none"):
        read_report(path)


def test_absent_report(tmp_path: Path) -> None:
    """No such file, a model's file: neither is a report."""
    with pytest.raises(NotFound):
        read_report(tmp_path / "none.json")
    assert not is_report(tmp_path / "none.json")
    (tmp_path / "model.pb").write_bytes(b"\x0a\x10{")
    assert not is_report(tmp_path / "model.pb")


def test_damaged_reports_are_config_errors(tmp_path: Path) -> None:
    """A report with any one value replaced by another kind is read, or refused in one sentence."""
    model = compared(difference("bn", local=0.5), output=classes_compared(0.1), accuracy=(0.91, 0.10))
    document = json.loads(judge(model).to_json())
    path = tmp_path / "old.json"
    for part in ("findings", "suppressed", "comparisons", "checked"):
        for wrong in (None, 5, "text", [5], [None], [{}], {"a": 1}):
            path.write_text(json.dumps({**document, part: wrong}))
            with suppress(ConfigError):
                read_report(path)
