"""The README: short, with the commands that CI runs; `test_docs.py` holds what all pages have in common."""

from __future__ import annotations

import re
import shlex

import pytest

from bncheck.cli import main as cli
from bncheck.facts.findings import ExitCode
from tests import renew_readme

ROOT = renew_readme.ROOT
TEXT = renew_readme.README.read_text(encoding="utf-8")
CODES = re.findall(r"(?m)^\| (\d+) \| .+? \| (?:`bncheck (.+?)`)? *\|$", TEXT)
GATE = ROOT / ".ci" / "run"


def fenced(language: str) -> list[str]:
    """The bodies of all blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", TEXT)


def test_it_is_short_and_renders_anywhere() -> None:
    """At most 12 kB; no picture or markup that a package index leaves out."""
    assert len(TEXT.encode()) <= 12_000
    assert "![" not in TEXT
    assert "<details" not in TEXT


@pytest.mark.parametrize(("code", "command"), [row for row in CODES if row[1]])
def test_exit_codes(code: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in each row of the exit-code table ends in that code."""
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(command)) == int(code)


def test_exit_codes_are_all_there() -> None:
    """The table has a row for each code that the command line can end in, and no other."""
    assert {int(code) for code, _ in CODES} == set(ExitCode)


def test_contributing_names_what_there_is() -> None:
    """The parts that it lists are those of the package, and each command's file or module exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"`bncheck/([a-z_]+(?:\.py|/))`", text):
        assert (ROOT / "bncheck" / name).exists(), name
    for module in re.findall(r"python -m ((?:fixtures|tests)[a-z0-9_.]+)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or path.is_dir() or module.endswith("."), module


def test_gate_installs_and_tests_as_the_readme_says() -> None:
    """`.ci/run` types the README's own commands, in environments of its own."""
    use, develop, *_ = fenced("sh")
    gate = GATE.read_text(encoding="utf-8")
    install, test = (command.partition("/bin/")[2] for command in develop.strip().split(" && ")[1:])
    assert install == "pip install -e '.[dev]'"
    assert f"/bin/{install}" in gate.replace('"', "").replace(" -qq", "")
    assert test in gate.splitlines()
    assert use.strip().split(" && ")[2].partition("/bin/bncheck ")[2] in " ".join(c for _, c in CODES)


def test_gate_can_be_run() -> None:
    """The gate is executable, and stops at the first command that fails."""
    assert GATE.stat().st_mode & 0o111
    assert "set -euo pipefail" in GATE.read_text(encoding="utf-8")
