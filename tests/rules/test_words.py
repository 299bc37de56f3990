"""The words of findings, fixes, remedies and pages: none that CONTRIBUTING says to avoid."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bncheck.facts import remedies
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.record import replace
from bncheck.rules import RULES
from bncheck.rules.rule import Rule

CONTRIBUTING = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
AVOID = [
    phrase.strip()
    for row in re.findall(r"(?m)^\| ([^|]+) \| [^|]+ \|$", CONTRIBUTING.partition("| avoid | say |\n|---|---|\n")[2])
    for phrase in row.split(",")
]
FOUND = re.compile(rf"\b({'|'.join(map(re.escape, AVOID))})\b", re.IGNORECASE)

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


def told(rule: Rule) -> Iterator[str]:
    """All that the rule says of its broken examples."""
    for model in sys.modules[rule.check.__module__].broken():
        for evidence in rule.check(model):
            yield from (evidence.message, evidence.why, evidence.fix)


def avoided(text: str) -> list[str]:
    """Words to avoid, each with what stands around it."""
    flat = " ".join(text.split())
    return [flat[max(0, found.start() - 30) : found.end() + 30] for found in FOUND.finditer(flat)]


def test_the_list_is_read() -> None:
    """The table has rows, and the search finds its phrases and no parts of other words."""
    assert len(AVOID) > 20
    assert avoided("Whoever restores it")
    assert not avoided("recommend")


@every_rule
def test_findings(rule: Rule) -> None:
    """No message, effect or fix uses a word to avoid."""
    assert [word for text in told(rule) for word in avoided(text)] == []


OF_TENSORFLOW = re.compile(r"\btf\.|\bslim\b|UPDATE_OPS|\bkeras\.|\.restore\(")
OF_KERAS_ALONE = {"BN217"}
"""Rules of facts that a state dict does not hold."""


@pytest.mark.parametrize("kind", [FileKind.PYTORCH, FileKind.SAFETENSORS, FileKind.FLAX])
@pytest.mark.parametrize("rule", [r for r in RULES if r.code not in OF_KERAS_ALONE], ids=lambda rule: rule.code)
def test_other_frameworks_hear_nothing_of_tensorflow(rule: Rule, kind: FileKind) -> None:
    """What values alone tell, told and remedied in the words and code of their own framework."""
    examples = [m for m in sys.modules[rule.check.__module__].broken() if m.format.kind is FileKind.TF1_CHECKPOINT]
    for model in examples:
        if model.graph is None and model.comparison is None and model.quantized is None:
            found = list(rule.check(replace(model, format=Format(kind), path="model.x")))
            assert [text for e in found for text in (e.message, e.fix) if OF_TENSORFLOW.search(text)] == []


@every_rule
def test_pages(rule: Rule) -> None:
    """Nor does its page: title, sections and code."""
    assert avoided("\n".join((rule.info.title, *rule.info.sections.values()))) == []


@every_rule
def test_counts_agree_with_their_nouns(rule: Rule) -> None:
    """One is no plural: "1 of 1 betas have", "1 layers"."""
    plural = re.compile(r"\b1 (layers|channels|operators|updates|steps|samples|places|values|sites|of 1 \w+s)\b")
    assert [found[0] for text in told(rule) for found in plural.finditer(text)] == []


def test_remedies() -> None:
    """Nor do the remedies that several rules give, whose comments stand above the code."""
    texts = [text for name, text in vars(remedies).items() if name.isupper() and isinstance(text, str)]
    assert texts
    assert [word for text in texts for word in avoided(text)] == []
    assert not [line for text in texts for line in text.splitlines() if re.search(r"\S {2,}#", line)]
