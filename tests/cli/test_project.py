"""`bncheck init`: the configuration that it writes is one, and the CI snippets are right for what lies there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bncheck.cli.main import main
from bncheck.settings.config_file import load_config

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a model."""
    (tmp_path / "models").mkdir()
    for file in (ROOT / "bncheck" / "sample").iterdir():
        shutil.copy(file, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bncheck.toml, which is valid and changes nothing; a second call writes nothing."""
    assert main(["init"]) == 0
    text = (folder / "bncheck.toml").read_text()
    assert load_config(folder / "bncheck.toml").options == {}
    assert main(["init"]) == 2
    assert (folder / "bncheck.toml").read_text() == text
    assert "already configures bncheck" in capsys.readouterr().err


def test_into_a_project(folder: Path) -> None:
    """What stood in pyproject.toml stays; the table comes behind it."""
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert main(["init"]) == 0
    text = (folder / "pyproject.toml").read_text()
    assert text.startswith('[project]\nname = "x"\n\n[tool.bncheck]\n')
    assert "\n[tool.bncheck.gate]\n" in text
    assert not (folder / "bncheck.toml").exists()
    load_config(folder / "pyproject.toml")
    assert main(["init"]) == 2


def _snippets(text: str) -> list[object]:
    return [yaml.safe_load(part) for part in re.split(r"(?m)^# (?:GitHub|GitLab|pre-commit), for .*$", text)[1:]]


def test_snippets_are_for_what_lies_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """GitHub's without any CI, else one for each, with the models of the folder and inputs that the action has."""
    assert main(["init"]) == 0
    (github,) = _snippets(capsys.readouterr().out)
    assert isinstance(github, dict)
    step = github["jobs"]["batch-norm"]["steps"][-1]
    assert step["with"] == {"path": "models/model.ckpt-100\n"}
    assert set(step["with"]) <= set(yaml.safe_load((ROOT / "action.yml").read_text())["inputs"])
    (folder / "bncheck.toml").unlink()
    (folder / ".gitlab-ci.yml").touch()
    (folder / ".pre-commit-config.yaml").touch()
    assert main(["init"]) == 0
    gitlab, hook = _snippets(capsys.readouterr().out)
    assert isinstance(gitlab, dict)
    assert isinstance(hook, dict)
    hooks = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert [h["id"] for h in hook["repos"][0]["hooks"]] == [h["id"] for h in hooks]
    (line,) = [line for line in gitlab["batch-norm"]["script"] if line.startswith("bncheck ")]
    assert main(shlex.split(line)[1:]) == 1
    assert json.loads((folder / "bncheck.json").read_text())["exit_code"] == 1
    assert (folder / "bncheck.xml").is_file()


def test_schema(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    """`--schema` prints the file of the package, and writes nothing."""
    assert main(["init", "--schema"]) == 0
    shipped = ROOT / "bncheck" / "settings" / "config.schema.json"
    assert capsys.readouterr().out == shipped.read_text(encoding="utf-8")
    assert not (folder / "bncheck.toml").exists()
