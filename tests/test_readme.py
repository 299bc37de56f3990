"""The README: what it shows is what the tool does now, and what it tells people to type works."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import click
import pytest

from bncheck.cli import main as cli
from bncheck.facts.findings import ExitCode
from bncheck.report import FORMATS
from bncheck.settings.config_file import Config, known_keys, load_config
from bncheck.settings.options import ConfigTable, Options
from tests import renew_readme

ROOT = renew_readme.ROOT
TEXT = renew_readme.README.read_text(encoding="utf-8")
PARTS = list(renew_readme.PART.finditer(TEXT))
CODES = re.findall(r"(?m)^\| (\d+) \| .+? \| (?:`bncheck (.+?)`)? *\|$", TEXT)
GATE = ROOT / ".ci" / "run"


def fenced(language: str) -> list[str]:
    """The bodies of all blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", TEXT)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{part['kind']} {part['arguments'] or ''}".strip())
def test_generated_parts_are_current(part: re.Match[str]) -> None:
    """Outputs, tables and accuracies are those of this version: `python tests/renew_readme.py` renews them."""
    now = renew_readme.render(part["kind"], part["arguments"] or "").strip()
    assert part["body"].strip() == now, "renew it: python tests/renew_readme.py"


def test_every_kind_of_part_is_there() -> None:
    """The story's five checkpoints, the rules and the failure modes are generated, none of it written by hand."""
    kinds = [part["kind"] for part in PARTS]
    assert {"accuracies", "rules", "failure-modes"} <= set(kinds)
    assert kinds.count("run") >= 5
    assert TEXT.count("<!-- bncheck:") == TEXT.count("<!-- /bncheck -->") == len(PARTS)


@pytest.mark.parametrize(("code", "command"), [row for row in CODES if row[1]])
def test_exit_codes(code: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example in each row of the exit-code table ends in that code."""
    monkeypatch.chdir(ROOT)
    assert cli.main(shlex.split(command)) == int(code)


def test_exit_codes_are_all_there() -> None:
    """The table has a row for each code that the command line can end in, and no other."""
    assert {int(code) for code, _ in CODES} == set(ExitCode)


def test_python_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python example gives what it says."""
    monkeypatch.chdir(ROOT)
    *_, example = fenced("python")
    test = doctest.DocTestParser().get_doctest(example, {}, "README", "README.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_configuration_example(tmp_path: Path) -> None:
    """The configuration is valid, and shows every key that there is."""
    (example,) = fenced("toml")
    path = tmp_path / "pyproject.toml"
    path.write_text(example, encoding="utf-8")
    config = load_config(path)
    assert config.ignores[0].layer == "head/*"
    shown = {line.split(" = ")[0].strip() for line in example.splitlines() if " = " in line}
    assert {*known_keys(Config, ConfigTable.TOP), *known_keys(Options, ConfigTable.TOP)} <= shown
    assert set(known_keys(Options, ConfigTable.GATE)) <= shown
    assert all(name in example for name in FORMATS)


def commands() -> list[str]:
    """Every `bncheck …` that the README tells people to type, in blocks or in running text."""
    blocks = "\n".join(body for language in ("sh", "yaml") for body in fenced(language))
    typed = re.findall(r"(?:^|[ /])bncheck ((?:inspect|gate|explain|rules|doctor)\b[^\n|;&`]*)", blocks)
    return [
        *typed,
        *(command for _, command in CODES if command),
        *re.findall(r"`bncheck ((?:explain|rules)[^`]*)`", TEXT),
    ]


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    """Commands and options exist as they are written."""
    words = shlex.split(command)
    group: click.Command = cli.cli
    while isinstance(group, click.Group):
        found = group.get_command(click.Context(group), words.pop(0))
        assert found is not None
        group = found
    group.make_context("bncheck", words)


def test_every_option_is_there() -> None:
    """Each option of each command stands somewhere in the README."""

    def options(command: click.Command) -> set[str]:
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        own = {name for p in command.params if isinstance(p, click.Option) and not p.hidden for name in p.opts}
        return own.union(*map(options, inner))

    assert {name for name in options(cli.cli) if name.startswith("--") and name not in TEXT} <= {"--version"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(name: str) -> None:
    """Every relative link names a file of this project, or a heading of the page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    headings = {
        "#" + re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"(?m)^##+ (.+)$", text)
    }
    assert links
    assert [link for link in links if link not in headings and not (ROOT / link).exists()] == []


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
