"""Renders what the README shows of the tool: outputs, tables, measured accuracies. `test_readme.py` holds them.

    python tests/renew_readme.py

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
FIXTURES = "fixtures/mobilenet_v2"
PART = re.compile(
    r"^<!-- bncheck:(?P<kind>[a-z-]+)(?: (?P<arguments>[^\n]+?))? -->\n(?P<body>.*?)^<!-- /bncheck -->$",
    re.DOTALL | re.MULTILINE,
)


def render(kind: str, arguments: str) -> str:
    """What belongs between the markers. Raises KeyError for a kind that does not exist."""
    return {"run": _run, "accuracies": _accuracies, "rules": _rules, "failure-modes": _failure_modes}[kind](arguments)


def run(arguments: list[str]) -> tuple[str, int]:
    """(standard output, exit code) of the command line at 80 columns, from the project's own folder."""
    environment = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "CI"}}
    environment |= {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    command = [sys.executable, "-m", "bncheck", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    return done.stdout + done.stderr, done.returncode


def _run(arguments: str) -> str:
    output, _ = run(arguments.split())
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
    return f"| [`{name}`]({FIXTURES}/{name}) | {facts['story']} | {train} | {stored} | {said} |\n"


def _rules(_: str) -> str:
    from bncheck.explain import markdown_table

    return markdown_table()


def _failure_modes(_: str) -> str:
    from bncheck.rules.failure_modes import markdown_table

    return markdown_table()


def renewed(text: str) -> str:
    """The README with every part rendered anew."""

    def part(match: re.Match[str]) -> str:
        head, _, _ = match[0].partition("\n")
        return f"{head}\n\n{render(match['kind'], match['arguments'] or '')}\n<!-- /bncheck -->"

    return PART.sub(part, text)


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(encoding="utf-8")), encoding="utf-8")
