"""Renders what README and documentation show of the tool: outputs, tables, accuracies, a page for each rule.

    python tests/renew_readme.py

`test_readme.py` and `test_docs.py` hold them. The JSON schema of the configuration is renewed with them.

A part stands between `<!-- bncheck:KIND ARGUMENTS -->` and `<!-- /bncheck -->`; everything else is left alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
RULES = DOCS / "rules"
SCHEMA = ROOT / "bncheck" / "settings" / "config.schema.json"
FIXTURES = "fixtures/mobilenet_v2"
PART = re.compile(
    r"^<!-- bncheck:(?P<kind>[a-z-]+)(?: (?P<arguments>[^\n]+?))? -->\n(?P<body>.*?)^<!-- /bncheck -->$",
    re.DOTALL | re.MULTILINE,
)


def render(kind: str, arguments: str) -> str:
    """What belongs between the markers. Raises KeyError for a kind that does not exist."""
    renderers = {
        "run": _run,
        "accuracies": _accuracies,
        "rules": _rules,
        "failure-modes": _failure_modes,
        "configuration": _configuration,
    }
    return renderers[kind](arguments)


def pages() -> list[Path]:
    """The README and all pages of the documentation but those of the rules, which are generated whole."""
    return [README, *sorted(path for path in DOCS.rglob("*.md") if not path.name.startswith("BN"))]


def rule_pages() -> dict[Path, str]:
    """Path -> text of each rule's page."""
    from bncheck.explain import markdown_page
    from bncheck.rules import RULES as ALL

    return {RULES / f"{rule.code}.md": markdown_page(rule) for rule in ALL}


def run(arguments: list[str]) -> tuple[str, int]:
    """(standard output, exit code) of the command line at 80 columns, from the project's own folder."""
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "CI"}}
    environment |= {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "bncheck", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    return done.stdout + done.stderr, done.returncode


def _run(arguments: str) -> str:
    output, _ = run(arguments.split())
    # which recipes there are depends on what is installed
    output = output.partition("\nRecipes of ai-edge-quantizer")[0].rstrip("\n") + "\n"
    return f"```console\n$ bncheck {arguments}\n{output}```\n"


def _accuracies(names: str) -> str:
    head = (
        "| checkpoint | what happened | accuracy, batch statistics | accuracy, stored statistics | bncheck says |\n"
        "|---|---|---|---|---|\n"
    )
    return head + "".join(map(_accuracy_row, names.split()))


def _accuracy_row(name: str) -> str:
    facts = json.loads((ROOT / FIXTURES / name / "facts.json").read_text(encoding="utf-8"))
    path = f"{FIXTURES}/{name}/{facts['inspect'][1]}"
    report = json.loads(run(["inspect", "checkpoint", path, "--format", "json"])[0])
    codes = ", ".join(sorted(finding["code"] for finding in report["findings"]))
    train, stored = (f"{100 * facts[f'accuracy_{mode}_mode']:.1f} %" for mode in ("train", "eval"))
    said = f"{report['verdict']}: {codes}" if codes else report["verdict"]
    return f"| `{name}` | {facts['story']} | {train} | {stored} | {said} |\n"


def _rules(_: str) -> str:
    from bncheck.explain import markdown_table

    return re.sub(r"(?m)^\| (BN\d+) ", r"| [\1](\1.md) ", markdown_table())


def _configuration(table: str) -> str:
    from bncheck.settings.options import ConfigTable
    from bncheck.settings.template import markdown_table

    return markdown_table({"top": ConfigTable.TOP, "gate": ConfigTable.GATE}[table])


def _failure_modes(_: str) -> str:
    from bncheck.rules.failure_modes import markdown_table

    return markdown_table()


def renewed(text: str) -> str:
    """A page with every part rendered anew."""

    def part(match: re.Match[str]) -> str:
        head, _, _ = match[0].partition("\n")
        return f"{head}\n\n{render(match['kind'], match['arguments'] or '')}\n<!-- /bncheck -->"

    return PART.sub(part, text)


def main() -> None:
    """Writes all of it; pages of rules that are gone are removed."""
    from bncheck.settings.template import schema_text

    for path in pages():
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
    texts = rule_pages()
    for path in set(RULES.glob("BN*.md")) - set(texts):
        path.unlink()
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
