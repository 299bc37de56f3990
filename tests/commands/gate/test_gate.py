"""`bncheck gate`: stages, early stop, exit codes, budgets, several models, every format; mostly without TensorFlow."""

from __future__ import annotations

import io
import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import jsonschema
import numpy as np
import pytest
from bundle_writer import write_bundle
from trained_variants import checkpoint

import bncheck
from bncheck.cli import main as cli
from bncheck.commands.gate.stages import fatal
from bncheck.facts.errors import NotFound, ReadError, UsageError
from bncheck.facts.findings import Gate, Report, Stage, StageName, StageState, Verdict
from bncheck.judge.judge import judge
from bncheck.report import FORMATS, reporter
from bncheck.report.wire import json_v1, junit
from bncheck.settings.config import Settings
from bncheck.testing import batch_norm, facts, untouched, unwired, with_graph

ROOT = Path(__file__).parents[3]
TINY = ROOT / "fixtures" / "tiny"


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own working folder, without anybody's configuration."""
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "BNCHECK_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def _bundle(name: str, **values: Any) -> str:
    full = {
        "conv/BatchNorm/gamma": np.full(4, 0.9, np.float32),
        "conv/BatchNorm/beta": np.linspace(0.1, 0.4, 4, dtype=np.float32),
        "conv/BatchNorm/moving_mean": np.linspace(0.2, 0.5, 4, dtype=np.float32),
        "conv/BatchNorm/moving_variance": np.linspace(2, 3, 4, dtype=np.float32),
        "global_step": np.array(300, np.int64),
    }
    write_bundle(Path(name), full | {f"conv/BatchNorm/{key}": value for key, value in values.items()})
    return name


def _unmoved(name: str = "model.ckpt-300") -> str:
    return _bundle(name, moving_mean=np.zeros(4, np.float32), moving_variance=np.ones(4, np.float32))


def _images(name: str = "images.npz") -> str:
    np.savez(name, images=np.zeros((64, 8, 8, 3), np.float32))
    return name


def _states(report: Report) -> dict[str, str]:
    assert report.gate is not None
    return {stage.name: stage.state.value for stage in report.gate.stages}


def _run(*arguments: str) -> int:
    return cli.main(["gate", *arguments])


def test_files_alone() -> None:
    """Without data the files decide; what was not run is said, with what would run it."""
    report = bncheck.gate(checkpoint("wired"))
    assert (report.verdict, report.exit_code) == (Verdict.PASS, 0)
    assert _states(report) == {StageName.STATIC: "done", StageName.MODES: "left out", StageName.QUANTIZED: "left out"}
    (entry,) = [entry for entry in report.not_checked if entry.what == StageName.MODES]
    assert entry.why == "no data was given"
    assert entry.how == f"bncheck gate {checkpoint('wired')} --data images/"


@pytest.mark.parametrize(
    ("name", "cause"), [("forgotten", "BN201"), ("decay_0.99", "BN103"), ("decay_0.9997", "BN103")]
)
def test_files_alone_fail(name: str, cause: str) -> None:
    """The same verdicts as `inspect`."""
    report = bncheck.gate(checkpoint(name))
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    assert cause in {finding.code for finding in report.findings}


FATAL = [
    ("bn105_non_finite", "BN105"),
    ("bn106_negative_variance", "BN106"),
    ("bn108_statistics_missing", "BN108"),
]


@pytest.mark.parametrize(("folder", "code"), FATAL)
def test_early_stop(folder: str, code: str) -> None:
    """Where there is nothing left to run, nothing is run, and the reason stands in the report; exit code 1."""
    report = bncheck.gate(TINY / folder / "broken", data="synthetic")
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    assert _states(report) == {
        StageName.STATIC: "done",
        StageName.MODES: "stopped early",
        StageName.QUANTIZED: "stopped early",
    }
    assert report.gate is not None
    assert code in report.gate.stages[1].why
    assert "--all-stages" in report.gate.stages[1].how


def test_early_stop_where_nothing_was_found() -> None:
    """No batch norm: nothing to run, inconclusive."""
    write_bundle(Path("plain"), {"kernel": np.ones((3, 3), np.float32)})
    report = bncheck.gate("plain", data="synthetic")
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert _states(report)[StageName.MODES] == "stopped early"


def test_what_stops_early_and_what_does_not() -> None:
    """Only what decides and leaves nothing to run: updates never run and an accepted fault do not stop."""
    broken = facts(batch_norm("a", variance=float("nan")))
    assert "BN105" in fatal(judge(broken))
    assert fatal(judge(with_graph(unwired(untouched("a"))))) == ""
    assert fatal(judge(facts(untouched("a"), untouched("b")))) == ""
    assert fatal(judge(facts(batch_norm("a", variance=[-1e-9, 1.0, 1.0, 1.0], epsilon=1e-3)))) == ""
    marks = frozenset(finding.fingerprint for finding in judge(broken).findings)
    assert fatal(judge(broken, settings=Settings(baseline=marks))) == ""
    from bncheck.settings.config import FailOn

    assert fatal(judge(broken, settings=Settings(fail_on=FailOn.NEVER))) == ""


def test_budget_that_is_gone_before_the_model_runs() -> None:
    """Files judged, nothing run: no pass, and no failure; allowed, if that is allowed."""
    report = bncheck.gate(checkpoint("wired"), data="synthetic", max_time=1e-6)
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert _states(report)[StageName.MODES] == "over budget"
    assert report.headline.startswith("train vs eval was not judged: the gate took longer than --max-time")
    allowed = bncheck.gate(checkpoint("wired"), data="synthetic", max_time=1e-6, settings=Settings(allow_empty=True))
    assert (allowed.verdict, allowed.exit_code) == (Verdict.INCONCLUSIVE, 0)


def test_failure_stands_whatever_the_budget() -> None:
    """What the files show does not get lost with the stages that were left out."""
    report = bncheck.gate(checkpoint("forgotten"), data="synthetic", max_time=1e-6)
    assert (report.verdict, report.exit_code) == (Verdict.FAIL, 1)
    assert _states(report)[StageName.MODES] == "over budget"


@pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed")
def test_without_tensorflow() -> None:
    """Data but no TensorFlow: what the files show stands, a pass is none."""
    report = bncheck.gate(checkpoint("wired"), data="synthetic")
    assert (report.verdict, report.exit_code) == (Verdict.INCONCLUSIVE, 3)
    assert _states(report)[StageName.MODES] == "could not run"
    assert "pip install" in report.headline
    assert "tensorflow>=" in report.headline
    assert bncheck.gate(checkpoint("forgotten"), data="synthetic").exit_code == 1


def test_bare_checkpoint_with_data() -> None:
    """A checkpoint without a graph cannot be run: its values pass, the gate does not, and it says what to give."""
    report = bncheck.gate(_bundle("good"), data=_images())
    assert report.exit_code == 3
    assert _states(report)[StageName.MODES] == "could not run"
    if find_spec("tensorflow"):
        assert "--model or --builder" in report.headline


def test_tflite_has_no_train_mode() -> None:
    """A TFLite file is judged as it is; that it has no modes is no lack."""
    report = bncheck.gate(TINY / "bn405_bias_saturated" / "clean" / "model.tflite", data="synthetic")
    assert _states(report)[StageName.MODES] == "left out"
    assert report.exit_code == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"data": "none.npz"}, NotFound),
        ({"against": "none.json"}, ReadError),
        ({"max_time": 0}, UsageError),
        ({"max_memory": float("nan")}, UsageError),
        ({"decay": 2.0}, UsageError),
        ({"against": ""}, UsageError),
    ],
)
def test_usage(options: dict[str, Any], error: type[Exception]) -> None:
    """What cannot be is refused at once, also where a fault would end the gate before it is looked at."""
    with pytest.raises(error):
        bncheck.gate(TINY / "bn105_non_finite" / "broken", **options)


def _report_of(target: str, name: str = "old.json") -> str:
    _run(target, "-q", "--output", f"json={name}")
    return name


EXIT_CODES: list[tuple[str, Any, int]] = [
    ("healthy", lambda: [_bundle("good")], 0),
    ("findings", lambda: [_unmoved()], 1),
    ("findings, never", lambda: [_unmoved(), "--fail-on", "never"], 0),
    ("findings, not selected", lambda: [_unmoved(), "--select", "BN2", "--allow-empty"], 0),
    ("no such file", lambda: ["none"], 2),
    ("no such data", lambda: [_bundle("good"), "--data", "none"], 2),
    ("no such earlier model", lambda: [_bundle("good"), "--against", "none"], 2),
    ("earlier model of several", lambda: [_bundle("good"), _bundle("too"), "--against", _report_of("good")], 2),
    ("no time", lambda: [_bundle("good"), "--max-time", "-1"], 2),
    ("time that is no number", lambda: [_bundle("good"), "--max-time", "soon"], 2),
    ("quantized file of several", lambda: [_bundle("good"), _bundle("too"), "--quantized", "x.tflite"], 2),
    ("no such quantized file", lambda: [_bundle("good"), "--quantized", "x.tflite"], 2),
    ("quantized file that is none", lambda: [_bundle("good"), "--quantized", "good"], 2),
    ("quantized and not", lambda: [_bundle("good"), "--scheme", "int8", "--no-quantize"], 2),
    ("no such scheme", lambda: [_bundle("good"), "--scheme", "int4"], 2),
    ("no path", list, 2),
    ("no batch norm", lambda: [str(TINY / "none")], 2),
    ("empty folder", lambda: [_empty()], 3),
    ("empty folder, allowed", lambda: [_empty(), "--allow-empty"], 0),
    ("over budget", lambda: [_bundle("good"), "--data", "synthetic", "--max-time", "0.000001"], 3),
    (
        "over budget, allowed",
        lambda: [_bundle("good"), "--data", "synthetic", "--max-time", "1e-6", "--allow-empty"],
        0,
    ),
    ("over budget, failed", lambda: [_unmoved(), "--data", "synthetic", "--max-time", "0.000001"], 1),
    ("against itself", lambda: [_unmoved(), "--against", "model.ckpt-300"], 0),
    ("against its report", lambda: [_unmoved(), "--against", _report_of("model.ckpt-300")], 0),
    ("against a better one", lambda: [_unmoved(), "--against", _bundle("good")], 1),
    ("against a worse one", lambda: [_bundle("good"), "--against", _unmoved()], 0),
    ("baseline", lambda: [_unmoved(), "--baseline", _report_of("model.ckpt-300")], 0),
    ("several, all good", lambda: [_bundle("one"), _bundle("two")], 0),
    ("several, one broken", lambda: [_bundle("one"), _unmoved(), _bundle("two")], 1),
    ("several, one unreadable", lambda: [_bundle("one"), "none"], 2),
    ("several, broken and unreadable", lambda: ["none", _unmoved()], 1),
    ("several, one empty", lambda: [_bundle("one"), _empty()], 3),
]


def _empty() -> str:
    Path("empty").mkdir()
    return "empty"


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in EXIT_CODES], ids=[row[0] for row in EXIT_CODES])
def test_exit_codes(make: Any, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of exit codes, row by row; what is not a report is one short message on standard error."""
    arguments = make()
    capsys.readouterr()
    assert _run(*arguments) == code
    shown = capsys.readouterr()
    assert "internal error" not in shown.err
    assert "Traceback" not in shown.err
    if shown.err.startswith("bncheck: "):
        assert len(shown.err.splitlines()) == 1


def test_what_got_better_is_told() -> None:
    """A fault of the earlier model that is gone is a note, so that the accepted report can be renewed."""
    report = bncheck.gate(_bundle("good"), against=_unmoved())
    assert "better than model.ckpt-300: without BN101" in report.target.notes
    write_bundle(Path("none"), {"weights": np.ones(4, np.float32)})
    for path, against in ((_unmoved(), "model.ckpt-300"), ("good", "none")):
        assert not any("better" in note for note in bncheck.gate(path, against=against).target.notes)


def test_several_models_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Each by its name, also one that cannot be read."""
    _run(_bundle("one"), _unmoved(), "none")
    shown = capsys.readouterr().out
    assert re.findall(r"(?m)^(?:PASS|FAIL|INCONCLUSIVE)\b.*?  (\S+) ·", shown) == ["one", "model.ckpt-300", "none"]
    assert shown.count("exit ") == 3


def _of_every_state() -> Report:
    """A gate with a stage in each state."""
    states = [
        Stage(name=StageName.STATIC, state=StageState.DONE, seconds=0.25),
        Stage(name=StageName.MODES, state=StageState.OVER_BUDGET, why="it took long ✓ <b>|", how="raise it"),
        Stage(name=StageName.AGAINST, state=StageState.IMPOSSIBLE, why="\x1b[31mno"),
    ]
    report = bncheck.gate(_unmoved())
    from dataclasses import replace

    return replace(report, gate=Gate(stages=tuple(states), against="old", max_time=5.0, max_memory=100.0, seconds=5.1))


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each format tells the gate's verdict with the same exit code, on standard output only."""
    if format_ == "html":
        pytest.importorskip("altair", reason="the extra [html] is not installed")
    assert _run(_unmoved(), "--format", format_) == 1
    assert _run(_bundle("good"), "--format", format_) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out


@pytest.mark.parametrize("format_", ["text", "markdown"])
def test_stages_are_told(format_: str) -> None:
    """What was done, with its time; what was not, and why; names that attack are spelled out."""
    stream = io.StringIO()
    reporter(format_).write(_of_every_state(), stream)
    text = " ".join(stream.getvalue().split())
    assert "static ✓ 0.2 s" in text
    assert "train vs eval ✗ over budget: it took long" in text
    assert "could not run" in text
    assert "\x1b" not in text
    assert format_ == "text" or "<b>" not in text


def test_json() -> None:
    """The document is its schema's, and holds the stages and the budgets as numbers."""
    document = json.loads(_of_every_state().to_json())
    jsonschema.Draft202012Validator(json_v1.schema()).validate(document)
    assert [stage["state"] for stage in document["gate"]["stages"]] == ["done", "over budget", "could not run"]
    assert (document["gate"]["max_time"], document["gate"]["against"]) == (5.0, "old")
    assert json.loads(bncheck.inspect_checkpoint(_bundle("good")).to_json())["gate"] is None


def test_sarif_and_junit_hold_the_stages() -> None:
    """SARIF as a property of the run, JUnit as cases with their times, or skipped."""
    stream = io.StringIO()
    reporter("sarif").write(_of_every_state(), stream)
    (run,) = json.loads(stream.getvalue())["runs"]
    assert run["properties"]["stages"][StageName.MODES] == "over budget"
    stream = io.StringIO()
    junit.write(_of_every_state(), stream)
    suite = fromstring(stream.getvalue()).find("testsuite")  # noqa: S314 - our own output
    assert suite is not None
    cases = {case.get("name"): case for case in suite}
    assert cases["stage: static"].get("time") == "0.250"
    assert cases[f"not checked: {StageName.MODES}"].find("skipped") is not None


def test_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """`[tool.bncheck.gate]` is obeyed, relative to its own file, and the command line has the last word."""
    Path("pyproject.toml").write_text(
        '[tool.bncheck]\nformat = "json"\n[tool.bncheck.gate]\ndata = "synthetic"\nmax-time = 1e-6\nagainst = "old"\n'
    )
    _unmoved("old")
    new = str(Path(_unmoved()).absolute())
    Path("below").mkdir()
    os.chdir("below")
    assert _run(new) == 3
    document = json.loads(capsys.readouterr().out)
    assert document["gate"]["against"].endswith("old")
    assert document["gate"]["max_time"] == 1e-6
    assert _run(new, "--against", str(Path(_bundle("good")).absolute())) == 1
    assert json.loads(capsys.readouterr().out)["gate"]["against"].endswith("good")


def test_wrong_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """A key that is not known is an error that names the nearest."""
    Path("bncheck.toml").write_text("[gate]\nmaxtime = 5\n")
    assert _run(_bundle("good")) == 2
    assert "did you mean 'max-time'?" in capsys.readouterr().err


def test_nothing_is_written_half(tmp_path: Path) -> None:
    """An error leaves no report behind."""
    assert _run(_bundle("good"), "--data", "none.npz", "--output", "json=r.json") == 2
    assert not (tmp_path / "r.json").exists()
