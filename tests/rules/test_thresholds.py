"""Thresholds: each says what it means and where it comes from, and stands once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import bncheck.rules

MODULES = sorted(p for p in Path(bncheck.rules.__file__).parent.rglob("*.py"))


def _thresholds(module: Path) -> dict[str, tuple[str, str]]:
    """Constants that are numbers, or tuples of numbers: name -> (value, docstring)."""
    body = ast.parse(module.read_text(encoding="utf-8")).body
    found = {}
    for node, below in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.Assign) or not _numeric(node.value):
            continue
        told = ast.literal_eval(below.value) if isinstance(below, ast.Expr) else ""
        found[ast.unparse(node.targets[0])] = (ast.unparse(node.value), str(told))
    return found


def _numeric(value: ast.expr) -> bool:
    leaves = value.elts if isinstance(value, ast.Tuple) else [value]
    numbers = [n for leaf in leaves for n in ast.walk(leaf) if isinstance(n, ast.Constant)]
    computed = any(isinstance(n, (ast.Call, ast.JoinedStr, ast.Dict)) for n in ast.walk(value))
    return bool(numbers) and not computed and all(isinstance(n.value, (int, float)) for n in numbers)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_each_says_what_it_is(module: Path) -> None:
    """A docstring below it, with the source of the number or the word that it is a guess."""
    assert [name for name, (_, told) in _thresholds(module).items() if not told] == []


def test_none_stands_twice() -> None:
    """No two modules have a number of the same name and value, of which one could be changed without the other."""
    every = Counter((name, value) for module in MODULES for name, (value, _) in _thresholds(module).items())
    assert [name for name, count in every.items() if count > 1] == []
