"""`inspect model X.tflite --reference SOURCE`: from the command line to the exit code."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fold_models import checkpoint, conv, lite, operator

from bncheck.cli.main import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source, a faithful conversion, one from initial statistics, and one of another model; the current folder."""
    layers = [conv("a", seed=1), conv("b", seed=2, inputs=8, size=1)]
    fresh = [replace(one, mean=one.mean * 0, variance=one.variance * 0 + 1) for one in layers]
    other = [conv("x", outputs=5), conv("y", inputs=5, outputs=6, size=1)]
    source = checkpoint(*layers)
    np.savez(tmp_path / "source.npz", **{name: source.tensors[name].read() for name in source.tensors})
    for name, made in (("good", layers), ("initial", fresh), ("other", other)):
        lite(tmp_path, *map(operator, made)).path.rename(tmp_path / f"{name}.tflite")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("file", "exit_code"), [("good", 0), ("initial", 1), ("other", 3)])
def test_exit_codes(folder: Path, capsys: pytest.CaptureFixture[str], file: str, exit_code: int) -> None:
    """0 where every layer is confirmed, 1 where another thing was folded, 3 where nothing was found."""
    assert (folder / "good.tflite").exists()
    assert main(["inspect", "model", f"{file}.tflite", "--reference", "source.npz", "--format", "json"]) == exit_code
    found = json.loads(capsys.readouterr().out)
    assert found["fold"]["source"] == "source.npz"
    assert [layer["name"] for layer in found["fold"]["layers"]] == ["a/BatchNorm", "b/BatchNorm"]
    assert [finding["code"] for finding in found["findings"]] == ([] if exit_code == 0 else ["BN407"])


@pytest.mark.parametrize(("reference", "says"), [("nowhere", "no such file"), ("good.tflite", "is a TFLite file")])
def test_a_source_that_is_none(folder: Path, capsys: pytest.CaptureFixture[str], reference: str, says: str) -> None:
    """One sentence and exit code 2."""
    assert (folder / "good.tflite").exists()
    assert main(["inspect", "model", "good.tflite", "--reference", reference]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert says in printed.err


def test_the_projects_reference_is_for_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `bncheck.toml` names is what statistics must not be equal to, not what a TFLite file was converted from."""
    (folder / "bncheck.toml").write_text('reference = "source.npz"\n', encoding="utf-8")
    assert main(["inspect", "model", "initial.tflite", "--format", "json"]) == 3
    assert json.loads(capsys.readouterr().out)["fold"] is None
