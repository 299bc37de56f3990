"""Data flows one way: each part of the package imports only what lies below it; and what keeps the tree readable."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "bncheck"

FACTS = {"facts"}
KNOWN = {"facts", "numerics", "settings"}
READ = {*KNOWN, "sources", "recognise"}
MEASURED = {*READ, "foldproof", "backbones", "compare"}
JUDGED = {"facts", "numerics", "settings", "rules", "judge", "report", "testing"}
ALL_BUT_CLI = {*MEASURED, *JUDGED, "engine", "repair", "commands"}

BELOW: dict[str, set[str]] = {
    "version": set(),
    "facts": set(),
    "settings": {"facts"},
    "numerics": {"facts"},
    "engine": {"facts"},
    "sources": {"facts"},
    "recognise": {*KNOWN, "sources"},
    "foldproof": {*READ},
    "backbones": {*READ},
    "compare": {*READ, "foldproof", "backbones"},
    "testing": {*FACTS},
    "rules": {"facts", "numerics", "testing"},
    "report": {"facts", "numerics", "version"},
    "judge": {"facts", "numerics", "settings", "rules"},
    "repair": {*MEASURED, "version"},
    "guard": {*READ, "judge"},
    "commands": {*MEASURED, "engine", "rules", "judge", "repair"},
    "cli": {*ALL_BUT_CLI, "demo", "doctor", "explain", "version", ""},
    # single modules that are commands of their own, and what users import
    "errors": {"facts"},
    "demo": {*ALL_BUT_CLI},
    "doctor": {"facts", "report", ""},
    "explain": {"facts", "report", "rules"},
    "pytest_plugin": {"facts", "settings", "report", ""},
    "__main__": {"cli"},
    "": {"commands", "facts", "numerics", "settings", "version"},
}
"""Part -> what it may import; "" is the package itself (its version and public names)."""

CLIMBS = {
    # `Report.to_json()`, `_repr_html_()` and `Difference.to_json()` look their reporter up when they are called
    ("facts.findings", "report"),
    ("numerics.difference", "report"),
    # `bncheck.repair.repair` is public, and of the commands
    ("repair", "commands"),
}
"""Module -> part above it: the only ones."""

WITH_TENSORFLOW = {"backbones", "compare", "guard", "demo"}
"""Parts that may import TensorFlow."""
HEAVY = {"tensorflow", "tf_slim", "tf_keras", "keras", "ai_edge_litert", "ai_edge_quantizer", "sklearn"}

OF_NO_MODULE = {
    "test_docs.py": "the documentation",
    "test_ten_tasks.py": "what the documentation is for",
    "test_fixtures.py": "the fixtures are what their manifest says",
    "test_import_cost.py": "what each command may load",
    "test_integrations.py": "action, GitLab, pre-commit: files beside the package",
    "test_layering.py": "the tree itself",
    "test_mutations.py": "damaged files of every format, through the whole of inspect",
    "test_readme.py": "the README",
    "rules/test_generated_graphs.py": "all rules on graphs that are made at random",
    "rules/test_graph_rules_on_real_models.py": "all rules on models",
    "rules/test_judgement_of_quantized_models.py": "all rules on networks quantized by the test",
    "rules/test_judgement_of_trained_models.py": "all rules on networks trained by the test",
    "rules/test_new_rule.py": "a rule that is added to a copy",
    "rules/test_on_real_models.py": "all rules on models",
    "rules/test_printed_fixes.py": "what the rules print, carried out",
    "rules/test_printed_fixes_of_keras.py": "the same for models that Keras saves",
    "rules/test_rules.py": "the registry and the examples of all rules",
    "rules/test_rules_fuzz.py": "all rules on generated facts",
    "rules/test_thresholds.py": "the limits of all rules",
    "rules/test_words.py": "the words of all rules and remedies",
    "sources/pytorch/test_oracle.py": "the whole reader, against PyTorch's",
    "sources/test_open_model.py": "what `sources` itself holds",
}
"""Tests that mirror no single module, with what they are of."""

MOST_MODULES, MOST_LINES, LONGEST_RULE = 24, 400, 250


def _modules(package: Path) -> list[Path]:
    return sorted(p for p in package.rglob("*.py") if "__pycache__" not in p.parts)


def _name(module: Path, package: Path) -> str:
    """Dotted, without the package's own name: `sources.raw`; the package itself is empty."""
    return ".".join(module.relative_to(package).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def _part(name: str) -> str:
    return name.partition(".")[0]


def _imports(source: str, known: set[str]) -> Iterator[str]:
    """Dotted names of all imports, those inside functions as well; a module's name where that is what is imported."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if name.removeprefix("bncheck.") in known]
            yield from modules
            if len(modules) < len(inner):
                yield node.module


def _climbs(package: Path) -> list[tuple[str, str]]:
    """(module, part) of each import that does not point downwards."""
    known = {_name(m, package) for m in _modules(package)}
    found = []
    for module in _modules(package):
        name = _name(module, package)
        imports = _imports(module.read_text(encoding="utf-8"), known)
        own = {i.partition(".")[2] for i in imports if _part(i) == "bncheck"}
        allowed = BELOW[_part(name)] | {_part(name)}
        found += [(name, part) for part in sorted({_part(i) for i in own} - allowed)]
    return found


def _cycles(package: Path) -> list[set[str]]:
    """Groups of modules that reach each other by imports, the declared climbs left out."""
    names = {_name(m, package): m for m in _modules(package)}
    edges: dict[str, set[str]] = {}
    for name, module in names.items():
        imports = _imports(module.read_text(encoding="utf-8"), set(names))
        targets = {i.partition(".")[2] for i in imports if _part(i) == "bncheck"}
        edges[name] = {t for t in targets if t in names and t != name and (name, _part(t)) not in CLIMBS}
    reach = {name: _reached(name, edges) for name in edges}
    groups = [frozenset(b for b in reach[a] if a in reach[b]) for a in edges]
    return [set(group) for group in dict.fromkeys(groups) if group]


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    stack = [start]
    while stack:
        fresh = edges[stack.pop()] - seen
        seen |= fresh
        stack += fresh
    return seen


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package in a place where it may be spoiled."""
    return Path(shutil.copytree(PACKAGE, tmp_path / "bncheck", ignore=shutil.ignore_patterns("__pycache__")))


def test_every_part_has_its_place() -> None:
    """A new module or folder at the top must be given its place here; none stands here that is gone."""
    assert {_part(_name(m, PACKAGE)) for m in _modules(PACKAGE)} == set(BELOW)


def test_imports_point_downwards() -> None:
    """No module imports a part that lies above it or beside it, but for the declared climb."""
    assert set(_climbs(PACKAGE)) == CLIMBS


def test_no_modules_import_each_other() -> None:
    """Neither directly nor through others, inside a part or across parts."""
    assert _cycles(PACKAGE) == []


@pytest.mark.parametrize("module", _modules(PACKAGE), ids=lambda m: str(m.relative_to(PACKAGE)))
def test_nothing_static_imports_tensorflow(module: Path) -> None:
    """Not at the top and not inside a function."""
    if _part(_name(module, PACKAGE)) in WITH_TENSORFLOW:
        return
    names = {name.partition(".")[0] for name in _imports(module.read_text(encoding="utf-8"), set())}
    assert names.isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("module", "line", "part"),
    [
        ("rules/wiring/bn201_update_not_wired", "from bncheck.sources.raw import RawModel", "sources"),
        ("rules/shared/fixes", "def f():\n    import bncheck.sources", "sources"),
        ("report/text/text", "from bncheck import rules", "rules"),
        ("sources/graph/graphs", "from bncheck.recognise.graph import flat", "recognise"),
        ("compare/train_eval", "from bncheck.rules import RULES", "rules"),
        ("backbones/registry", "from bncheck.compare.outputs import judged", "compare"),
        ("repair/undo", "def f():\n    from bncheck.rules.shared import wiring", "rules"),
        ("guard/wiring", "import bncheck.rules", "rules"),
        ("facts/layers", "import bncheck", ""),
    ],
)
def test_a_planted_import_is_found(copy: Path, module: str, line: str, part: str) -> None:
    """In every part, those with TensorFlow too, at the top and inside functions."""
    file = copy / f"{module}.py"
    file.write_text(file.read_text(encoding="utf-8") + f"\n\n{line}\n", encoding="utf-8")
    assert set(_climbs(copy)) - CLIMBS == {(module.replace("/", "."), part)}


def test_a_planted_cycle_is_found(copy: Path) -> None:
    """Two modules of one part that import each other."""
    for one, other in (("crc32c", "sstable"), ("sstable", "crc32c")):
        file = copy / "sources" / "bundle" / f"{one}.py"
        text = file.read_text(encoding="utf-8")
        file.write_text(
            f"{text}\n\ndef f() -> None:\n    from bncheck.sources.bundle import {other}\n", encoding="utf-8"
        )
    assert {"sources.bundle.crc32c", "sources.bundle.sstable"} in _cycles(copy)


def test_folders_are_small() -> None:
    """A folder that a newcomer can read in one look."""
    folders = {m.parent for m in _modules(PACKAGE)}
    counts = {str(f.relative_to(PACKAGE)): len([m for m in f.glob("*.py") if m.name != "__init__.py"]) for f in folders}
    assert {folder: count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_modules_are_short() -> None:
    """Rules with their page, all others without exception."""
    lines = {m: len(m.read_text(encoding="utf-8").splitlines()) for m in _modules(PACKAGE)}
    limit = {m: LONGEST_RULE if m.name.startswith("bn") and m.name[2:5].isdigit() else MOST_LINES for m in lines}
    assert {str(m.relative_to(PACKAGE)): n for m, n in lines.items() if n > limit[m]} == {}


def test_names_of_modules_say_what_they_hold() -> None:
    """No `utils`, no bare participle, no module called as its command's verb, none that repeats its folder."""
    names = [(m.stem.lstrip("_"), m.parent.name, _name(m, PACKAGE)) for m in _modules(PACKAGE)]
    vague = {"utils", "helpers", "misc", "run", "kept", "built", "found", "pooled", "loaded", "given", "judged"}
    vague |= {"building", "decomposed", "expected", "fitting"}
    assert sorted(name for stem, _, name in names if stem in vague) == []
    assert sorted(name for stem, folder, name in names if folder and stem.startswith(f"{folder}_")) == []


def _mirrored(test: Path) -> bool:
    """Whether a test is named after a module of its folder (and what of it), or a part of the package."""
    folder = PACKAGE / test.parent.relative_to(TESTS)
    name = test.stem.removeprefix("test_")
    stems = [path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()]
    return any(name == stem or name.startswith(f"{stem}_") for stem in stems)


def test_tests_mirror_the_package() -> None:
    """`tests/a/test_b.py` tests `bncheck/a/b.py`; whatever runs through several parts lies in `tests/end_to_end`."""
    tests = [t for t in TESTS.rglob("test_*.py") if t.parent.name != "end_to_end"]
    others = {t.relative_to(TESTS).as_posix() for t in tests if not (PACKAGE / t.parent.relative_to(TESTS)).is_dir()}
    assert others == set()
    assert {t.relative_to(TESTS).as_posix() for t in tests if not _mirrored(t)} == set(OF_NO_MODULE)


def test_no_two_classes_have_one_name() -> None:
    """So that a name in a message, a signature or a search means one thing."""
    places: dict[str, list[str]] = {}
    for module in _modules(PACKAGE):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(_name(module, PACKAGE))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_every_rule_has_its_test_module() -> None:
    """One a rule, in the folder of its family, named after it; none is left of a rule that is gone."""
    here, tests = PACKAGE / "rules", Path(__file__).parent / "rules"
    rules = {f"{rule.parent.name}/test_{rule.name}" for rule in here.glob("*/bn[0-9]*.py")}
    assert {f"{test.parent.name}/{test.name}" for test in tests.rglob("test_bn[0-9]*.py")} == rules
