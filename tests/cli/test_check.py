"""`bncheck check PATH...` and `bncheck PATH...`: one exit code, the report of the precise form, helpful refusals."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from bncheck.cli.main import main

ROOT = Path(__file__).parents[2]
STORY = ROOT / "fixtures" / "mobilenet_v2"
FORGOTTEN, WIRED = STORY / "forgotten" / "model.ckpt-300", STORY / "wired" / "model.ckpt-300"


@pytest.mark.parametrize("words", [["check"], []], ids=["check", "bare"])
@pytest.mark.parametrize(("model", "code"), [(FORGOTTEN, 1), (WIRED, 0)], ids=["forgotten", "wired"])
def test_one_path_is_the_precise_form(
    words: list[str], model: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same text and exit code as `inspect checkpoint`, options before the path or behind it."""
    assert main(["inspect", "checkpoint", str(model)]) == code
    precise = capsys.readouterr().out
    assert main([*words, str(model)]) == code
    assert capsys.readouterr().out == precise
    assert main([*words, "--format", "json", str(model)]) == code
    assert json.loads(capsys.readouterr().out)["exit_code"] == code


def test_several_share_the_worst_exit_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Findings come before files that cannot be read, these before nothing to judge."""
    broken = tmp_path / "broken.keras"
    broken.write_bytes(b"PK\x03\x04 cut short")
    assert main([str(WIRED), str(broken), "-q"]) == 2
    assert main([str(WIRED), str(FORGOTTEN), str(broken), "-q"]) == 1
    assert main([str(WIRED), str(WIRED) + ".index", "-q"]) == 0
    capsys.readouterr()
    assert main([str(STORY), "--format", "json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["reports"]) == 5


def test_a_run_is_told_as_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Checkpoints of one folder are a run, as for `inspect run`."""
    for step in (100, 200):
        for file in (ROOT / "bncheck" / "sample").iterdir():
            shutil.copy(file, tmp_path / file.name.replace("-100", f"-{step}", 1))
    assert main(["inspect", "run", str(tmp_path)]) == 1
    precise = capsys.readouterr().out
    assert main(["check", str(tmp_path)]) == 1
    assert capsys.readouterr().out == precise


def test_a_list_on_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One path a line, blank lines left out; parts of one checkpoint are one model; an empty list is refused."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{FORGOTTEN}.index\n\n{FORGOTTEN}.meta\n{WIRED}\n"))
    assert main(["check", "-", "--format", "json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["reports"]) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO("\n"))
    assert main(["-"]) == 2
    assert "lists no path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("inspect model.ckpt-300", "bncheck check model.ckpt-300"),
        ("inspect chekpoint model.ckpt-300", "bncheck inspect checkpoint model.ckpt-300"),
        ("inspekt checkpoint model.ckpt-300", "bncheck inspect checkpoint model.ckpt-300"),
        ("cheque model.ckpt-300", "bncheck check model.ckpt-300"),
        ("frobnicate 'a b.keras'", "bncheck check 'a b.keras'"),
        ("compare model.keras --data x.npz", "bncheck check model.keras x.npz"),
        ("gaet model.keras", "bncheck gate model.keras"),
    ],
)
def test_a_mistyped_command_suggests_the_right_one(line: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and a command that can be copied."""
    import shlex

    assert main(shlex.split(line)) == 2
    assert f"did you mean `{meant}`?" in capsys.readouterr().err


def test_a_word_that_means_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The commands are listed; a path that is not there is told as such."""
    assert main(["xyz"]) == 2
    assert "there are check, gate" in capsys.readouterr().err
    assert main(["models/none.keras"]) == 2
    assert "no such file" in capsys.readouterr().err


def test_nothing_to_judge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An empty folder is exit code 3, and 0 on demand."""
    assert main(["check", str(tmp_path)]) == 3
    assert main(["check", str(tmp_path), "--allow-empty"]) == 0
    assert "holds no model" in capsys.readouterr().err


def test_a_projects_reference_is_not_taken_for_tflite_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `inspect model` does it: what checkpoints are compared with is not what a TFLite file was converted from."""
    lite = next((ROOT / "fixtures" / "tiny").rglob("*.tflite"))
    (tmp_path / "bncheck.toml").write_text('reference = "pretrained.ckpt"\n')
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(lite), "-q"]) == main(["inspect", "model", str(lite), "-q"])
