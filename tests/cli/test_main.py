"""The command line: the table of exit codes row by row, options and configuration, errors in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from bundle_writer import write_bundle

import bncheck
from bncheck.cli import main as cli
from bncheck.commands import inspect as check
from bncheck.rules import RULES

CHANNELS = 4


@pytest.fixture(autouse=True)
def _clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An own working folder, and an environment that no CI or terminal colours."""
    monkeypatch.chdir(tmp_path)
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "BNCHECK_DEBUG", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def _bundle(name: str, *, moved: bool = True, gamma: float = 0.9) -> str:
    full = {
        "conv/BatchNorm/gamma": np.full(CHANNELS, gamma, np.float32),
        "conv/BatchNorm/beta": np.linspace(0.1, 0.4, CHANNELS, dtype=np.float32),
        "conv/BatchNorm/moving_mean": np.linspace(0.2, 0.5, CHANNELS, dtype=np.float32) * moved,
        "conv/BatchNorm/moving_variance": np.linspace(2, 3, CHANNELS, dtype=np.float32)
        if moved
        else np.ones(CHANNELS, np.float32),
        "global_step": np.array(300, np.int64),
    }
    write_bundle(Path(name), full)
    return name


def _unmoved(name: str = "model.ckpt-300") -> str:
    return _bundle(name, moved=False)


def _run(*arguments: str) -> int:
    return cli.main(list(arguments))


def _json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def _healthy() -> list[str]:
    return ["checkpoint", _bundle("good")]


def _faulty() -> list[str]:
    return ["checkpoint", _unmoved()]


def _no_batch_norm() -> list[str]:
    write_bundle(Path("plain"), {"kernel": np.ones((3, 3), np.float32)})
    return ["checkpoint", "plain"]


def _empty_folder() -> list[str]:
    Path("empty").mkdir()
    return ["checkpoint", "empty"]


def _text_called_meta() -> list[str]:
    Path("model.meta").write_text("this is no graph\n")
    return ["graph", "model.meta"]


def _v1() -> list[str]:
    Path("old.ckpt").write_bytes(b"\0" * 200 + bytes.fromhex("57fb808b247547db"))
    return ["checkpoint", "old.ckpt"]


def _truncated() -> list[str]:
    index = Path(_bundle("cut") + ".index")
    index.write_bytes(index.read_bytes()[:-7])
    return ["checkpoint", "cut"]


def _unreadable() -> list[str]:
    _bundle("secret")
    Path("secret.index").chmod(0)
    return ["checkpoint", "secret"]


EXIT_CODES = [
    ("healthy", _healthy, [], 0),
    ("findings", _faulty, [], 1),
    ("findings, never", _faulty, ["--fail-on", "never"], 0),
    ("findings ignored", _faulty, ["--ignore", "BN1"], 0),
    ("no such file", lambda: ["checkpoint", "none"], [], 2),
    ("no such file, allowed empty", lambda: ["checkpoint", "none"], ["--allow-empty"], 2),
    ("a text file called .meta", _text_called_meta, [], 2),
    ("a damaged V1 checkpoint", _v1, [], 2),
    ("truncated", _truncated, [], 2),
    ("graph command on a checkpoint", lambda: ["graph", _bundle("good")], [], 2),
    ("unknown option", _healthy, ["--colour"], 2),
    ("unknown format", _healthy, ["--format", "htm"], 2),
    ("unknown code", _healthy, ["--select", "BN9"], 2),
    ("decay out of range", _healthy, ["--decay", "1.5"], 2),
    ("decay not a number", _healthy, ["--decay", "nan"], 2),
    ("steps negative", _healthy, ["--steps", "-1"], 2),
    ("graph and no graph", _healthy, ["--graph", "x.meta", "--no-graph"], 2),
    ("quiet and verbose", _healthy, ["-q", "-v"], 2),
    ("no such configuration", _healthy, ["--config", "none.toml"], 2),
    ("no such baseline", _healthy, ["--baseline", "none.json"], 2),
    ("output into nowhere", _healthy, ["--output", "no/such/folder/r.txt"], 2),
    ("no path", lambda: ["checkpoint"], [], 2),
    ("no such command", lambda: ["nothing"], [], 2),
    ("no batch norm", _no_batch_norm, [], 3),
    ("no batch norm, allowed", _no_batch_norm, ["--allow-empty"], 0),
    ("empty folder", _empty_folder, [], 3),
    ("empty folder, allowed", _empty_folder, ["--allow-empty"], 0),
    ("run without checkpoints", lambda: ["run", _empty_folder()[1]], [], 3),
]


@pytest.mark.parametrize(
    ("make", "options", "code"), [row[1:] for row in EXIT_CODES], ids=[row[0] for row in EXIT_CODES]
)
def test_exit_codes(make: Any, options: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The table of exit codes, row by row; what is not a report is one short message on standard error."""
    assert _run("inspect", *make(), *options) == code
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    assert "internal error" not in shown.err
    if code == 2 or not shown.out:
        assert shown.out == ""
        assert shown.err.strip()
    if shown.err.startswith("bncheck: "):
        assert len(shown.err.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(capsys: pytest.CaptureFixture[str]) -> None:
    """A file without permission is a sentence and exit code 2."""
    assert _run("inspect", *_unreadable()) == 2
    assert "secret.index" in capsys.readouterr().err


@pytest.mark.parametrize("format_", ["text", "json", "sarif", "junit", "github", "markdown"])
def test_format_changes_neither_verdict_nor_code(format_: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every format of a fault ends in 1, of health in 0, and writes something to standard output only."""
    assert _run("inspect", *_faulty(), "--format", format_) == 1
    assert _run("inspect", *_healthy(), "--format", format_) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out


def test_several_outputs_in_one_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Text to standard output, and each file in its own format."""
    outputs = ("json=r.json", "sarif=r.sarif", "junit=r.xml", "github=r.github", "markdown=r.md")
    assert _run("inspect", *_faulty(), *(f"--output={o}" for o in outputs)) == 1
    assert capsys.readouterr().out.startswith("FAIL")
    assert json.loads(Path("r.json").read_text())["exit_code"] == 1
    assert json.loads(Path("r.sarif").read_text())["version"] == "2.1.0"
    assert fromstring(Path("r.xml").read_text()).tag == "testsuites"  # noqa: S314 - our own output
    assert Path("r.github").read_text().startswith("::error ")
    assert Path("r.md").read_text().startswith("## ")


def test_output_without_format_replaces_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """`--format json --output r.json` writes there and nowhere else."""
    assert _run("inspect", *_healthy(), "--format", "json", "--output", "r.json") == 0
    assert capsys.readouterr().out == ""
    assert json.loads(Path("r.json").read_text())["verdict"] == "pass"


def test_report_is_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    """What an earlier JSON report found no longer fails; a chain of baselines keeps it so."""
    target = _unmoved()
    assert _run("inspect", "checkpoint", target, "--output", "json=1.json") == 1
    assert _run("inspect", "checkpoint", target, "--baseline", "1.json", "--output", "json=2.json") == 0
    assert _run("inspect", "checkpoint", target, "--baseline", "2.json") == 0
    assert "1 suppressed" in capsys.readouterr().out


def test_configuration_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    """pyproject.toml above the working folder is obeyed, and the command line has the last word."""
    Path("pyproject.toml").write_text('[tool.bncheck]\nfail-on = "never"\nformat = "json"\noutput = "json=x/r.json"\n')
    Path("x").mkdir()
    target = str(Path(_unmoved()).absolute())
    os.chdir("x")
    assert _run("inspect", "checkpoint", target) == 0
    assert _json(capsys)["verdict"] == "pass"
    assert json.loads(Path("r.json").read_text())["verdict"] == "pass"
    assert _run("inspect", "checkpoint", target, "--fail-on", "error", "--format", "text") == 1
    assert capsys.readouterr().out.startswith("FAIL")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("formt = 'json'", "did you mean 'format'"),
        ("format = 'jsn'", "did you mean json?"),
        ("select = 'BN9'", "no rule's code starts with 'BN9'"),
    ],
)
def test_mistakes_in_the_configuration(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong key or value ends in exit code 2 and a sentence, before anything is judged."""
    Path("bncheck.toml").write_text(text)
    assert _run("inspect", *_faulty()) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""


def test_ignores_of_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    """An ignore takes the finding out, and the summary counts it; one that matches nothing is named."""
    Path("bncheck.toml").write_text(
        "[[ignores]]\nlayer = 'conv/*'\ncodes = ['BN101']\nreason = 'frozen'\n"
        "[[ignores]]\nlayer = 'head/*'\ncodes = ['BN1']\nreason = 'gone'\n"
    )
    assert _run("inspect", *_faulty()) == 0
    shown = capsys.readouterr().out
    assert "1 suppressed" in shown
    assert "ignore of BN1 on 'head/*' matched nothing" in " ".join(shown.split())


def test_quiet_and_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """--quiet is shorter, --verbose longer, and names every layer."""
    lengths = []
    for options in (["-q"], [], ["-v"]):
        _run("inspect", *_faulty(), *options)
        lengths.append(len(capsys.readouterr().out.splitlines()))
    assert lengths == sorted(set(lengths))


def test_hints(capsys: pytest.CaptureFixture[str]) -> None:
    """--decay and --steps reach the report: 0.99 ** 10 of the initial value is left."""
    _run("inspect", *_healthy(), "--decay", "0.99", "--steps", "10", "--format", "json")
    document = _json(capsys)
    assert document["target"]["updates"] == 10
    assert document["layers"][0]["init_share"] == pytest.approx(0.99**10)


def test_run_shows_since_when(capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of checkpoints: a line each; the exit code is that of a failing one."""
    Path("runs").mkdir()
    _bundle("runs/model.ckpt-100")
    _unmoved("runs/model.ckpt-200")
    assert _run("inspect", "run", "runs") == 1
    shown = capsys.readouterr().out
    assert re.search(r"model\.ckpt-100 +300 +pass", shown)
    assert re.search(r"model\.ckpt-200 +300 +fail", shown)
    assert _run("inspect", "run", "runs", "--format", "json") == 1
    assert [r["verdict"] for r in _json(capsys)["reports"]] == ["pass", "fail"]


def test_run_with_a_broken_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint that cannot be read ends in 2 where the others pass."""
    Path("runs").mkdir()
    _bundle("runs/model.ckpt-100")
    Path(_bundle("runs/model.ckpt-200") + ".index").write_bytes(b"no table")
    assert _run("inspect", "run", "runs") == 2
    assert "model.ckpt-200" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["BN101", "bn101", "never-moved"])
def test_explain(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The page of a rule, by code in any case or by name."""
    assert _run("explain", name) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("BN101 never-moved\n")
    for heading in ("What it detects", "Why it matters", "How it decides", "Not detected", "Fix", "References"):
        assert f"\n{heading}\n" in shown


def test_explain_fits_the_width(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prose is wrapped, code is not, and no word is lost."""
    pages = []
    for width in ("60", "110"):
        monkeypatch.setenv("COLUMNS", width)
        assert _run("explain", "BN201") == 0
        pages.append(capsys.readouterr().out)
    assert max(len(line) for line in pages[0].splitlines() if not line.startswith("   ")) <= 60
    assert pages[0].split() == pages[1].split()
    assert "\n      with tf.control_dependencies(update_ops):\n          train_op = " in pages[0]


@pytest.mark.parametrize(("name", "near"), [("BN1001", "BN101"), ("nevermoved", "never-moved"), ("BN4", "BN403")])
def test_explain_unknown(name: str, near: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No such rule: exit code 2 and the nearest ones."""
    assert _run("explain", name) == 2
    assert near in capsys.readouterr().err


def test_explain_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """The page as markdown has headings, and code that stays code."""
    assert _run("explain", "BN101", "--format", "markdown") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# BN101 never-moved\n")
    assert "\n## Fix\n" in shown


def test_rules_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    """Each rule has a line in text and markdown, and an entry in JSON."""
    for format_ in ("text", "markdown"):
        assert _run("rules", "--format", format_) == 0
        shown = capsys.readouterr().out
        assert all(len(re.findall(rf"(?m)^(?:\| )?{rule.code}\b", shown)) == 1 for rule in RULES)
    assert _run("rules", "--format", "json") == 0
    assert [entry["code"] for entry in json.loads(capsys.readouterr().out)] == [rule.code for rule in RULES]


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_rules_on_a_terminal(columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There a title that does not fit goes on in the next line; every code still begins one."""
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert _run("rules") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines if not line.startswith(" ")] == [rule.code for rule in RULES]
    assert max(len(line) for line in lines if line.startswith(" ")) <= int(columns)


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    """What inspect needs is there, with versions, and TensorFlow's state is told."""
    assert _run("doctor") == 0
    shown = capsys.readouterr().out
    assert re.search(r"h5py +\d+\.\d+", shown)
    assert re.search(r"tensorflow +(\d|not installed)", shown)
    assert "inspect, explain, rules: ready" in shown
    assert "PyTorch, safetensors, ONNX and Flax files: inspected" in shown


def test_doctor_without_h5py(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A core package that is lacking is named with the command that installs it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    monkeypatch.setattr("bncheck.doctor.find_spec", lambda name: None if name == "h5py" else object())
    assert _run("doctor") == 2
    assert "pip install h5py" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the version."""
    assert _run("--version") == 0
    assert capsys.readouterr().out == f"bncheck {bncheck.__version__}\n"


def test_bug_is_said_to_be_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception ends in 2 and asks for a report; BNCHECK_DEBUG shows where."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom\x1b[31m")

    monkeypatch.setattr(check, "inspect_checkpoint", fail)
    monkeypatch.setattr(bncheck, "inspect_checkpoint", fail)
    assert _run("inspect", "checkpoint", "x") == 2
    shown = capsys.readouterr().err
    assert "internal error, a bug in bncheck: RuntimeError: boom\\x1b[31m" in shown
    assert "report" in shown
    monkeypatch.setenv("BNCHECK_DEBUG", "1")
    with pytest.raises(RuntimeError):
        _run("inspect", "checkpoint", "x")


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends in 130 without a traceback."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bncheck, "inspect_checkpoint", interrupt)
    assert _run("inspect", "checkpoint", "x") == 130
    assert "interrupted" in capsys.readouterr().err


def _process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "bncheck", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, env=os.environ | environment)


@pytest.mark.parametrize(("make", "code"), [(_healthy, 0), (_faulty, 1), (_truncated, 2), (_no_batch_norm, 3)])
def test_exit_codes_of_a_process(make: Any, code: int) -> None:
    """The codes reach the shell."""
    done = _process("inspect", *make())
    assert done.returncode == code
    assert b"Traceback" not in done.stderr


def test_ascii_terminal() -> None:
    """Under an ASCII locale the report is ASCII and complete."""
    done = _process("inspect", *_faulty(), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 1
    assert done.stdout.isascii()
    assert b"BN101 never-moved - error" in done.stdout


def test_broken_pipe_is_quiet() -> None:
    """A reader that goes away early changes neither the exit code nor standard error."""
    command = [sys.executable, "-m", "bncheck", "inspect", *_faulty(), "--verbose"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
        assert (process.wait(timeout=60), errors) == (1, b"")
