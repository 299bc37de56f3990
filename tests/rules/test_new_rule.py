"""A rule is one file and one line in the registry: one that is added to a copy of the package is found everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEALTHY = ROOT / "fixtures" / "tiny" / "healthy" / "control_dependencies" / "model.ckpt-80"
LINE = '        "statistics.bn198_offset_grew",\n'
RULE = '''"""BN198 offset-grew."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Evidence, Meaning, Severity
from bncheck.facts.layers import Facts
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts


@rule(
    "BN198",
    "offset-grew",
    severity=Severity.ERROR,
    needs=Needs.VALUES,
    explains=("BN101",),
    meaning=Meaning.VALUES_FAULT | Meaning.STATISTICS_STAY,
    ends_gate="an offset that grew is all that it would show",
    sees="B07",
    sees_too="C18",
)
def check(model: Facts) -> Iterator[Evidence]:
    """A beta left its zero.

    What it detects
    ---------------
    Layers that learned an offset.

    Why it matters
    --------------
    It does not; the rule is a test's.

    How it decides
    --------------
    By beta.

    Not detected
    ------------
    Anything else.

    Fix
    ---
    None is needed.

    References
    ----------
    https://example.org
    """
    grown = tuple(layer.name for layer in model.layers if layer.beta.moved)
    if grown:
        yield Evidence(layers=grown, message="An offset grew.")


def clean() -> tuple[Facts, ...]:
    """Nothing."""
    return ()


def broken() -> tuple[Facts, ...]:
    """Any trained layer."""
    return (facts(batch_norm("bn")),)
'''


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one more rule."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "bncheck", root / "bncheck", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "renew_readme.py", root / "tests")
    (root / "bncheck" / "rules" / "statistics" / "bn198_offset_grew.py").write_text(RULE, encoding="utf-8")
    registry = root / "bncheck" / "rules" / "__init__.py"
    listed = registry.read_text(encoding="utf-8")
    last = max(line for line in listed.splitlines(keepends=True) if '"statistics.bn1' in line)
    registry.write_text(listed.replace(last, last + LINE), encoding="utf-8")
    return root


def run(root: Path, *arguments: str) -> tuple[str, int]:
    """(standard output, exit code) of Python in that project."""
    environment = {**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1", "COLUMNS": "80", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.returncode


def bncheck(root: Path, *arguments: str) -> tuple[str, int]:
    """The same of the command line."""
    return run(root, "-m", "bncheck", *arguments)


def test_rules_list_it(copy: Path) -> None:
    """In code order, with its name."""
    rows = [line.split()[:3] for line in bncheck(copy, "rules")[0].splitlines()]
    assert ["BN198", "offset-grew", "error"] in rows
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)


def test_explain_shows_its_page_and_what_it_explains(copy: Path) -> None:
    """By code and by name; the rules that it explains name it, those that ask for its kind as well."""
    assert bncheck(copy, "explain", "BN198") == bncheck(copy, "explain", "offset-grew")
    assert "A beta left its zero." in bncheck(copy, "explain", "BN198")[0]
    for effect in ("BN101", "BN302", "BN501"):
        assert "BN198" in bncheck(copy, "explain", effect)[0]


def test_the_gate_fails_by_it(copy: Path) -> None:
    """A fixture that is healthy without it; the finding is the rule's own."""
    assert bncheck(ROOT, "gate", str(HEALTHY))[1] == 0
    told, code = bncheck(copy, "gate", str(HEALTHY), "--format", "json")
    assert ([finding["code"] for finding in json.loads(told)["findings"]], code) == (["BN198"], 1)


def test_it_ends_the_gate(copy: Path) -> None:
    """By its own sentence, before anything is run."""
    told, _ = bncheck(copy, "gate", str(HEALTHY), "--data", "synthetic", "--format", "json")
    (stage,) = [stage for stage in json.loads(told)["gate"]["stages"] if stage["name"] == "train vs eval"]
    assert stage["state"] == "stopped early"
    assert stage["why"] == "BN198 offset-grew decides: an offset that grew is all that it would show"


def test_sarif_has_the_rule_and_its_result(copy: Path) -> None:
    """Its page, and a result that points to it."""
    told, _ = bncheck(copy, "gate", str(HEALTHY), "--format", "sarif")
    (log,) = json.loads(told)["runs"]
    rules = [rule["id"] for rule in log["tool"]["driver"]["rules"]]
    assert [rules[result["ruleIndex"]] for result in log["results"]] == ["BN198"]


def test_the_guard_asks_it(copy: Path) -> None:
    """It says that statistics stay."""
    code = (
        "from bncheck.judge.judge import wiring_faults; from bncheck.testing import batch_norm, facts; "
        "print([finding.code for finding in wiring_faults(facts(batch_norm('bn', beta=1.0)))])"
    )
    assert run(copy, "-c", code)[0].split() == ["['BN198']"]


def test_the_documentation_has_it(copy: Path) -> None:
    """In both tables; the more telling rule of a failure mode stays first."""
    code = "import sys; sys.path.insert(0, 'tests'); import renew_readme; print(renew_readme.render(sys.argv[1], ''))"
    row = "| [BN198](BN198.md) | offset-grew | error | values | A beta left its zero. |"
    assert row in run(copy, "-c", code, "rules")[0]
    modes = run(copy, "-c", code, "failure-modes")[0]
    assert "meaning of `trainable=False` changed in TF2 | BN198 |" in modes
    assert "| C18 | dead channels | BN107, BN198, BN404 |" in modes
