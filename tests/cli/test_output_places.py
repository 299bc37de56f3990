"""Which files a report may replace: the attacks of a configuration in the model's folder, and slips of the hand."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from report_example import example

from bncheck.cli.main import main
from bncheck.cli.output_places import is_report
from bncheck.report import FORMATS, lacking, reporter

MODELS = Path(__file__).parents[2] / "fixtures"


def a_checkpoint() -> Path:
    """The prefix of a small one."""
    return min(MODELS.rglob("*.index"), key=lambda p: p.stat().st_size).with_suffix("")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a checkpoint "model.ckpt", in a repository of its own."""
    source = a_checkpoint()
    work = tmp_path / "work"
    (work / ".git").mkdir(parents=True)
    for part in source.parent.glob(f"{source.name}.*"):
        shutil.copy(part, work / part.name.replace(source.name, "model.ckpt", 1))
    monkeypatch.chdir(work)
    return work


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files below."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("name", [f for f in FORMATS if f != "model-explorer"])
@pytest.mark.parametrize("many", [False, True])
def test_every_report_is_known_again(tmp_path: Path, name: str, *, many: bool) -> None:
    """By its first line; so that the next run may replace it."""
    if lacking(name):
        pytest.skip(lacking(name))
    stream = io.StringIO()
    if many:
        reporter(name).write_run([example(), example()], stream)
    else:
        reporter(name).write(example(), stream)
    (tmp_path / "report").write_text(stream.getvalue(), encoding="utf-8")
    assert is_report(tmp_path / "report"), stream.getvalue()[:200]


@pytest.mark.parametrize(
    "text",
    [
        "alias ls='ls -l'\n",
        "[tool.bncheck]\n",
        '{"name": "bncheck"}',
        '{"schema": 1}',
        "# Model card\n\nFAIL  model.ckpt-300 · bncheck says so\n",
        "<?xml version='1.0'?>\n<project name='bncheck'/>",
        "FAILURES\n",
    ],
)
def test_other_files_are_no_reports(tmp_path: Path, text: str) -> None:
    """Nor are those that speak of bncheck."""
    (tmp_path / "file").write_text(text)
    assert not is_report(tmp_path / "file")


@pytest.mark.parametrize(
    "written",
    [
        *("text=../.bashrc", "text=../new.txt", "text={outside}/absolute.txt", "text=link_out/x.txt", "text=link.txt"),
        *("json=model.ckpt.index", "json=notes.txt", "json={file}", "text=.", "text=pipe"),
    ],
)
@pytest.mark.parametrize("file", ["bncheck.toml", "pyproject.toml"])
def test_a_configuration_overwrites_nothing(
    folder: Path, written: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing outside its folder, by whichever way, and inside it nothing that is no report."""
    outside = folder.parent
    (outside / ".bashrc").write_text("alias ls='ls -l'\n")
    (folder / "link_out").symlink_to(outside, target_is_directory=True)
    (folder / "link.txt").symlink_to(outside / ".bashrc")
    (folder / "notes.txt").write_text("mine\n")
    os_pipe(folder / "pipe")
    head = "[tool.bncheck]\n" if file == "pyproject.toml" else ""
    output = written.format(outside=outside, file=file)
    (folder / file).write_text(f'{head}output = ["{output}"]\n')
    before = contents(outside)
    assert main(["inspect", "checkpoint", "model.ckpt"]) == 2
    assert contents(outside) == before
    assert file in capsys.readouterr().err


def os_pipe(path: Path) -> None:
    """A FIFO, where the system has them."""
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
    else:
        path.mkdir()


def test_a_configuration_renews_its_own_reports(folder: Path) -> None:
    """What an earlier run wrote may be replaced, in a subfolder too, and from a folder below."""
    (folder / "out").mkdir()
    (folder / "bncheck.toml").write_text('output = ["json=out/report.json", "text=report.txt", "markdown=r.md"]\n')
    first = main(["inspect", "checkpoint", "model.ckpt"])
    before = contents(folder)
    assert main(["inspect", "checkpoint", "model.ckpt"]) == first
    assert first in (0, 1)
    assert set(contents(folder)) == set(before)


@pytest.mark.parametrize("line", ["trust-model = true", 'builder = "os:system"'])
def test_trust_and_code_come_from_the_command_line_alone(
    folder: Path, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file beside the model cannot give them."""
    (folder / "bncheck.toml").write_text(f"[gate]\n{line}\n")
    assert main(["gate", "model.ckpt"]) == 2
    key = line.partition(" ")[0]
    assert f"{key} in gate is given on the command line alone, as --{key}" in capsys.readouterr().err


def test_the_report_names_its_configuration(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON, and in text with -v: what silences findings is seen."""
    (folder / "bncheck.toml").write_text('ignore = ["BN"]\n')
    main(["inspect", "checkpoint", "model.ckpt", "-v", "--output", "json=report.json", "--output", "text=-"])
    told = str(folder / "bncheck.toml")
    assert told.replace("\\", "\\\\") in (folder / "report.json").read_text()
    assert told in "".join(capsys.readouterr().out.split("\n")).replace("  ", "")


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("model.ckpt.index", ()),
        ("model.ckpt.meta", ()),
        ("MODEL.CKPT.INDEX", ()),
        ("model.ckpt.data-00000-of-00001", ()),
        ("./sub/../model.ckpt.index", ()),
        ("link", ()),
        ("known.json", ("--baseline", "known.json")),
        ("other.meta", ("--graph", "other.meta")),
        ("own.toml", ("--config", "own.toml")),
        ("other.ckpt.index", ("--reference", "other.ckpt")),
    ],
)
def test_what_a_run_reads_is_not_its_output(
    folder: Path, place: str, options: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's own files by any name, and those of the options."""
    (folder / "sub").mkdir()
    (folder / "link").symlink_to("model.ckpt.index")
    (folder / "own.toml").write_text("")
    for part in list(folder.glob("model.ckpt.*")):
        shutil.copy(part, folder / part.name.replace("model", "other"))
    if (folder / "model.ckpt.meta").exists():
        shutil.copy(folder / "model.ckpt.meta", folder / "other.meta")
    else:
        (folder / "other.meta").write_bytes(b"")
    main(["inspect", "checkpoint", "model.ckpt", "--output", "json=known.json"])
    before = contents(folder)
    assert main(["inspect", "checkpoint", "model.ckpt", *options, "--output", f"json={place}"]) == 2
    assert contents(folder) == before
    assert "a report would destroy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "place"),
    [
        (("inspect", "model", "saved"), "saved/saved_model.pb"),
        (("inspect", "model", "saved"), "saved/variables/variables.index"),
        (("inspect", "model", "saved/saved_model.pb"), "saved/variables/variables.index"),
        (("inspect", "model", "model.keras"), "model.keras"),
        (("inspect", "model", "shards.weights.json"), "shards_00000.weights.h5"),
        (("inspect", "run", "."), "model.ckpt.index"),
        (("gate", "model.ckpt", "--data", "data"), "data/a.png"),
        (("gate", "model.ckpt", "--data", "rows-*.tfrecord"), "rows-1.tfrecord"),
        (("gate", "model.ckpt", "--quantized", "int8.tflite"), "int8.tflite"),
        (("gate", "model.ckpt", "--against", "old.keras"), "old.keras"),
        (("gate", "model.ckpt", "--labels", "labels.txt"), "labels.txt"),
        (("gate", "one.keras", "model.keras"), "model.keras"),
    ],
)
def test_no_file_of_any_format_is_destroyed(folder: Path, command: tuple[str, ...], place: str) -> None:
    """Told before anything is read: what the files hold does not matter."""
    for name in (
        *("saved/saved_model.pb", "saved/variables/variables.index", "model.keras", "one.keras", "old.keras"),
        *("shards.weights.json", "shards_00000.weights.h5", "data/a.png", "rows-1.tfrecord", "int8.tflite"),
        "labels.txt",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("a file\n")
    before = contents(folder)
    assert main([*command, "--output", f"json={place}"]) == 2
    assert contents(folder) == before


def test_reports_beside_the_model_are_written_and_renewed(folder: Path) -> None:
    """What no run reads is free, in the model's own folder too."""
    for _ in range(2):
        for command in (("inspect", "checkpoint", "model.ckpt"), ("inspect", "run", ".")):
            assert main([*command, "--output", "json=report.json", "--output", "text=model.ckpt.txt"]) in (0, 1, 3)
    assert is_report(folder / "report.json")
