"""The documentation: what it shows is what the tool does now, what it tells people to type works, and it builds."""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest

from bncheck.cli import main as cli
from bncheck.report import FORMATS
from bncheck.rules import RULES
from bncheck.settings.config_file import load_config
from tests import renew_readme

ROOT = renew_readme.ROOT
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in renew_readme.pages()}
GENERATED = {path.relative_to(ROOT).as_posix(): text for path, text in renew_readme.rule_pages().items()}
PARTS = [(page, part) for page, text in PAGES.items() for part in renew_readme.PART.finditer(text)]
RENEW = "renew it: python tests/renew_readme.py"


def fenced(text: str, language: str) -> list[str]:
    """The bodies of all blocks of a language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def _name(value: object) -> str:
    return value if isinstance(value, str) else f"{value['kind']} {value['arguments'] or ''}".strip()  # type: ignore[index]


@pytest.mark.parametrize(("page", "part"), PARTS, ids=_name)
def test_generated_parts_are_current(page: str, part: re.Match[str]) -> None:
    """Outputs, tables and accuracies are those of this version."""
    now = renew_readme.render(part["kind"], part["arguments"] or "").strip()
    assert part["body"].strip() == now, f"{page}: {RENEW}"


def test_rules_have_their_pages() -> None:
    """One a rule, generated from its docstring; none is left of a rule that is gone."""
    there = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in _bn_pages()}
    assert set(there) == set(GENERATED), RENEW
    assert [name for name, text in GENERATED.items() if there[name] != text] == [], RENEW
    assert len(GENERATED) == len(RULES.codes)


def _bn_pages() -> list[Path]:
    return sorted(renew_readme.RULES.glob("BN*.md"))


def test_every_console_block_is_run() -> None:
    """What looks like a terminal was one: each such block stands in a generated part."""
    shown = sum(len(fenced(text, "console")) for text in PAGES.values())
    assert shown == sum(part["kind"] == "run" for _, part in PARTS)
    assert {part["kind"] for _, part in PARTS} == {"run", "accuracies", "rules", "failure-modes", "configuration"}
    for text in PAGES.values():
        assert text.count("<!-- bncheck:") == text.count("<!-- /bncheck -->")


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if ">>> " in text])
def test_python_examples(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives what it says."""
    monkeypatch.chdir(ROOT)
    for example in fenced(PAGES[page], "python"):
        test = doctest.DocTestParser().get_doctest(example, {}, page, page, 0)
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if fenced(text, "toml")])
def test_configuration_examples(page: str, tmp_path: Path) -> None:
    """Each is valid."""
    for example in fenced(PAGES[page], "toml"):
        path = tmp_path / "pyproject.toml"
        path.write_text(example, encoding="utf-8")
        config = load_config(path)
        assert config.ignores or config.gate


def _commands() -> list[tuple[str, str]]:
    """(page, command) of every `bncheck …` that people are told to type, in blocks or in running text."""
    found = []
    for page, text in PAGES.items():
        blocks = "\n".join(body for language in ("sh", "yaml") for body in fenced(text, language))
        typed = re.findall(r"(?m)(?:^|[ /|])bncheck ((?!@|\[)[a-z-].*?)(?: \| .*| && .*)?$", blocks)
        prose = re.sub(r"(?ms)^```.*?^```$", "", renew_readme.PART.sub("", text))
        inline = re.findall(r"`bncheck ([^`\n]+)`", prose)
        found += [(page, line) for line in (*typed, *inline) if not line.startswith(("[", "@"))]
    return found


@pytest.mark.parametrize(("page", "line"), _commands())
def test_commands_are_understood(page: str, line: str) -> None:
    """Commands and options exist as they are written."""
    words = [word for word in shlex.split(line) if word != "..."]
    group: click.Command = cli.cli
    while isinstance(group, click.Group) and words and not words[0].startswith("-"):
        found = group.get_command(click.Context(group), words[0])
        if found is None:
            assert words[0].startswith("PATH"), f"{page}: {line}"
            return
        words.pop(0)
        group = found
    # a command's name alone, in running text, only names it
    if words and not isinstance(group, click.Group):
        group.make_context("bncheck", words, resilient_parsing="--help" in words)


def test_there_are_commands() -> None:
    """The pattern of the test above finds them, in each guide."""
    pages = {page for page, _ in _commands()}
    guides = {page for page in PAGES if page.startswith("docs/how-to/") and not page.endswith("index.md")}
    assert guides - pages <= {f"docs/how-to/{name}.md" for name in ("pre-commit", "pytest", "guard", "integrations")}


def test_every_option_is_there() -> None:
    """Each option of each command stands in the reference, and each format somewhere."""
    text = PAGES["docs/reference/commands.md"]

    def options(group: click.Command) -> set[str]:
        context = click.Context(group)
        inner = [group.get_command(context, n) for n in group.list_commands(context)] if _is_group(group) else []
        own = {name for p in group.params if isinstance(p, click.Option) and not p.hidden for name in p.opts}
        return own.union(*(options(command) for command in inner if command is not None))

    assert {name for name in options(cli.cli) if name.startswith("--") and name not in text} == set()
    assert [name for name in FORMATS if name not in text] == []


def _is_group(command: click.Command) -> bool:
    return isinstance(command, click.Group)


@pytest.mark.parametrize("page", [*PAGES, *GENERATED, "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link names a file of this project, or a heading of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^```.*?^```$", "", text)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    headings = {
        "#" + re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"(?m)^##+ (.+)$", text)
    }
    folder = (ROOT / page).parent
    assert [link for link in links if link not in headings and not (folder / link.partition("#")[0]).exists()] == []


def test_pages_are_reachable() -> None:
    """Every page stands in a table of contents; the README leads to each part."""
    listed = set()
    for page, text in PAGES.items():
        for body in re.findall(r"(?ms)^```\{toctree\}\n(.*?)^```$", text):
            names = [line for line in body.splitlines() if line and not line.startswith(":") and "*" not in line]
            listed |= {(Path(page).parent / f"{name}.md").as_posix() for name in names}
    assert listed == {page for page in PAGES if page not in ("README.md", "docs/index.md")}


def test_the_site_builds(tmp_path: Path) -> None:
    """Offline, without a warning, with a page for each rule and the schemas beside them."""
    for module in ("sphinx", "furo", "myst_parser"):
        pytest.importorskip(module, reason=f"{module} is not installed: pip install '.[docs]'")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", tmp_path / "doctrees", "docs", site]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all((site / "rules" / f"{code}.html").is_file() for code in RULES.codes)
    assert (site / "config.schema.json").is_file()
    python = (site / "reference" / "python.html").read_text(encoding="utf-8")
    functions = [name for name in import_module("bncheck").__all__ if name[0].islower()]
    assert [name for name in functions if f"bncheck.{name}" not in python] == []
