"""Data flows one way: each part of the package imports only what lies below it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "bncheck"

FACTS = {"model", "measured", "lite_facts"}
COMMANDS = {"cli_common", "cli_help", "cli_compare", "cli_demo", "cli_gate", "cli_repair"}
BELOW = {
    "errors": set(),
    "model": {"measured", "lite_facts"},
    "measured": set(),
    "lite_facts": {"measured"},
    "finding": {*FACTS},
    "sources": {"errors"},
    "recognise": {"errors", *FACTS, "sources"},
    "options": {"model"},
    "folded": {"model"},
    "testing": {*FACTS},
    "testing_quantized": {*FACTS, "testing"},
    "rules": {*FACTS, "folded", "finding", "testing", "testing_quantized"},
    "amounts": set(),
    "config": {"amounts", "errors"},
    "suppress": {"errors", "finding", "config"},
    "not_checked": {"model", "finding", "rules"},
    "judge": {*FACTS, "finding", "config", "suppress", "not_checked", "rules"},
    "check": {
        *("errors", *FACTS, "finding", "config", "not_checked", "judge", "recognise", "sources"),
        "options",
    },
    "gating": {
        *("errors", *FACTS, "finding", "config", "not_checked", "judge", "check", "recognise", "sources"),
        *("options", "compare"),
    },
    "report": {*FACTS, "folded", "finding", ""},
    "explain": {"errors", "finding", "report", "rules"},
    "doctor": {""},
    "output": {"errors", "report"},
    "cli_common": {"errors", "config", "finding", "report", "output"},
    "cli": {"errors", "config", "finding", "output", "explain", "doctor", "report", *COMMANDS, ""},
    "cli_help": set(),
    "cli_compare": {"cli_common", "cli_help", "config", "finding", "compare", ""},
    "cli_gate": {
        *("amounts", "cli_common", "cli_help", "cli_compare", "errors", "config", "finding", "check", "gating", ""),
    },
    "cli_demo": {"errors", "output", "demo"},
    "cli_repair": {"cli_common", "cli_help", "errors", "config", "output", "repair"},
    "pytest_plugin": {"errors", "config", "finding", "report", ""},
    "__main__": {"cli"},
    "": {"check", "compare", "config", "finding", "gating"},
}
"""Part -> what it may import; "" is the package itself (its version and public names)."""

EXCEPTIONS = {
    # `Report.to_json()` looks its reporter up when it is called
    ("finding", "report"),
}
WITH_TENSORFLOW = {"backbones", "compare", "repair", "guard", "demo"}
"""Parts that may import TensorFlow; nothing static imports them."""
HEAVY = {"tensorflow", "tf_slim", "tf_keras", "keras", "ai_edge_litert", "sklearn"}


def _modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "__pycache__" not in p.parts)


def _part(module: Path) -> str:
    first = module.relative_to(PACKAGE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def _imports(source: str) -> Iterator[str]:
    """Dotted names of all imports, those inside functions as well."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module == "bncheck":
                yield from (f"bncheck.{alias.name}" for alias in node.names if (PACKAGE / f"{alias.name}.py").exists())


def _wrong(part: str, source: str) -> list[str]:
    own = {name for name in _imports(source) if name.partition(".")[0] == "bncheck"}
    parts = {[*name.split("."), ""][1] for name in own}
    allowed = BELOW[part] | {part}
    return sorted(p for p in parts if p not in allowed and (part, p) not in EXCEPTIONS)


def test_every_part_has_its_place() -> None:
    """A new module or folder must be given its place here."""
    assert {_part(m) for m in _modules()} <= set(BELOW) | WITH_TENSORFLOW


@pytest.mark.parametrize("module", _modules(), ids=lambda m: str(m.relative_to(PACKAGE)))
def test_imports_point_downwards(module: Path) -> None:
    """No module imports a part that lies above it or beside it."""
    if _part(module) not in WITH_TENSORFLOW:
        assert _wrong(_part(module), module.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("module", _modules(), ids=lambda m: str(m.relative_to(PACKAGE)))
def test_nothing_static_imports_tensorflow(module: Path) -> None:
    """Not at the top and not inside a function."""
    if _part(module) not in WITH_TENSORFLOW:
        names = {name.partition(".")[0] for name in _imports(module.read_text(encoding="utf-8"))}
        assert names.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("part", "source", "wrong"),
    [
        ("rules", "from bncheck.sources.raw import RawModel", ["sources"]),
        ("rules", "def f():\n    import bncheck.sources", ["sources"]),
        ("report", "from bncheck import rules\nfrom bncheck.rules import RULES", ["rules"]),
        ("sources", "from bncheck.model import Facts", ["model"]),
        ("finding", "from bncheck.report.json_v1 import dumps", []),
        ("rules", "import bncheck\nimport numpy", [""]),
        ("rules", "from bncheck.rules.rule import rule\nfrom bncheck.model import Facts", []),
    ],
)
def test_the_test_can_fail(part: str, source: str, wrong: list[str]) -> None:
    """Wrong imports are seen, right ones are not accused."""
    assert _wrong(part, source) == wrong
