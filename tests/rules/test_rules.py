"""The whole registry: every rule against its own examples, and against everybody else's."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bncheck.rules
from bncheck.facts.findings import Evidence, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts
from bncheck.rules import RULES
from bncheck.rules.rule import Rule, causes

BY_CODE = {rule.code: rule for rule in RULES}
CAUSES = {rule.code: set(causes(rule, RULES)) for rule in RULES}


def module(rule: Rule) -> ModuleType:
    """The file of a rule."""
    return sys.modules[rule.check.__module__]


def examples(kind: str) -> list[Any]:
    """(rule, facts) of every rule's `clean` or `broken`."""
    return [
        pytest.param(rule, model, id=f"{rule.code}-{number}")
        for rule in RULES
        for number, model in enumerate(getattr(module(rule), kind)())
    ]


@pytest.mark.parametrize(("rule", "model"), examples("clean"))
def test_silent_on_clean_examples(rule: Rule, model: Facts) -> None:
    """No rule speaks on what it calls clean."""
    assert [evidence.message for evidence in rule.check(model)] == []


@pytest.mark.parametrize(("rule", "model"), examples("broken"))
def test_speaks_on_broken_examples(rule: Rule, model: Facts) -> None:
    """Every rule speaks on what it calls broken: with a message, and numbers that are numbers."""
    found = list(rule.check(model))
    assert found
    for evidence in found:
        assert evidence.message.strip() == evidence.message
        assert evidence.message.endswith((".", "?", "!", ")"))
        assert len(set(evidence.layers)) == len(evidence.layers)
        for item in evidence.measurements:
            assert item.name
            assert isinstance(item.value, (bool, int, float, str))
            assert not isinstance(item.value, np.generic)


@pytest.mark.parametrize(("rule", "model"), examples("broken"))
def test_no_other_error_on_broken_examples(rule: Rule, model: Facts) -> None:
    """A broken example is an error of its own rule alone, or of rules that tell the same story."""
    own = CAUSES[rule.code]
    others = {
        other.code
        for other in RULES
        if other is not rule
        and other.code not in own
        and rule.code not in CAUSES[other.code]
        and not CAUSES[other.code] & own
        and any((found.severity or other.severity) is Severity.ERROR for found in other.check(model))
    }
    assert others == set()


@pytest.mark.parametrize(("rule", "model"), [*examples("clean"), *examples("broken")])
def test_rules_are_pure(rule: Rule, model: Facts) -> None:
    """The same facts give the same evidence twice, so no rule keeps or changes anything."""
    assert comparable(list(rule.check(model))) == comparable(list(rule.check(model)))


@pytest.mark.parametrize(
    ("rule", "model"),
    [
        found
        for found in examples("broken")
        if found.values[0].code.startswith("BN1") and found.values[0].code != "BN115"
    ],
)
def test_examples_are_named_layers(rule: Rule, model: Facts) -> None:
    """Layers that the statistics rules accuse are layers of the model, in its order."""
    order = {layer.name: place for place, layer in enumerate(model.layers)}
    for evidence in rule.check(model):
        places = [order[name] for name in evidence.layers]
        assert places == sorted(places)


def test_nothing_to_say_without_layers() -> None:
    """A target in which nothing was recognised makes no rule of the statistics speak, nor raise."""
    empty = Facts(path="nothing", format=Format(FileKind.TF1_CHECKPOINT))
    assert [rule.code for rule in RULES if rule.code.startswith(("BN1", "BN4")) and list(rule.check(empty))] == []


def test_registry_is_complete_and_in_order() -> None:
    """RULES holds exactly the files on disk, sorted by code, no code twice."""
    folder = Path(bncheck.rules.__file__).parent
    on_disk = sorted(path.stem for path in folder.rglob("bn[0-9]*.py"))
    assert [rule.check.__module__.rpartition(".")[2] for rule in RULES] == on_disk
    assert [rule.code for rule in RULES] == sorted(BY_CODE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_names(rule: Rule) -> None:
    """Code and slug are well formed, and the file is named after them."""
    assert re.fullmatch(r"BN[0-5]\d\d", rule.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", rule.slug)
    assert rule.check.__module__.rpartition(".")[2] == f"{rule.code.lower()}_{rule.slug.replace('-', '_')}"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_causes_exist(rule: Rule) -> None:
    """Whatever explains a rule, is explained by it, or is a worse degree of it is another rule."""
    named = {code for code in rule.explained_by if isinstance(code, str)}
    assert {*named, *rule.explains, *rule.milder_than} <= BY_CODE.keys() - {rule.code}
    assert causes(rule, RULES) or not rule.explained_by


def comparable(found: list[Evidence]) -> list[str]:
    """Evidence as text, in which NaN equals NaN."""
    return [repr(evidence) for evidence in found]
