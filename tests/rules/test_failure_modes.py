"""The mapping of failure modes to codes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from bncheck.rules import RULES
from bncheck.rules.failure_modes import (
    FAILURE_MODES,
    FAMILIES,
    FailureMode,
    markdown_table,
    seen_by,
)
from bncheck.rules.rule import Rule

DESIGN = Path(__file__).parents[2].parent / "shared" / "DESIGN.md"
CATALOG = DESIGN.parent / "FAILURE_MODES.md"


def test_every_mode_once() -> None:
    """All 96 ids, each once, in order, as many a family as the catalog has."""
    counts = {"A": 19, "B": 16, "C": 21, "D": 8, "E": 11, "F": 8, "G": 13}
    assert [mode.id for mode in FAILURE_MODES] == [
        f"{x}{n:02d}" for x, most in counts.items() for n in range(1, most + 1)
    ]
    assert Counter(mode.id[0] for mode in FAILURE_MODES) == counts
    assert list(FAMILIES) == list(counts)


@pytest.mark.parametrize("mode", FAILURE_MODES, ids=lambda mode: mode.id)
def test_codes_or_reason(mode: FailureMode) -> None:
    """A rule sees a mode, or a reason why none does stands in a sentence, never both; titles fit into a table."""
    codes = seen_by(mode, RULES)
    assert bool(codes) != bool(mode.reason)
    assert len(set(codes)) == len(codes)
    assert not mode.reason or mode.reason.endswith(".")
    assert 10 < len(mode.title) < 70
    assert "|" not in mode.title + mode.reason


def test_rules_are_in_use() -> None:
    """Every rule but those of coverage and gate sees a mode of the catalog; BN104 sees a symptom of several."""
    idle = {rule.code for rule in RULES if not (rule.sees or rule.sees_too)}
    assert {code for code in idle if not code.startswith(("BN0", "BN5"))} == {"BN104"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_what_rules_see_is_in_the_catalog(rule: Rule) -> None:
    """In its order, each once."""
    order = [mode.id for mode in FAILURE_MODES]
    for modes in (rule.sees, rule.sees_too):
        assert [order.index(mode) for mode in modes] == sorted({order.index(mode) for mode in modes})
    assert set(rule.sees).isdisjoint(rule.sees_too)


@pytest.mark.skipif(not DESIGN.exists(), reason="the design is not beside this checkout")
def test_codes_are_the_designs() -> None:
    """Codes and slugs are those of the table in DESIGN; the gate's own family (BN5) came later."""
    table = "\n".join(line for line in DESIGN.read_text().splitlines() if line.startswith("| BN"))
    designed = {f"BN{code}": slug for code, slug in re.findall(r"(\d{3}) ([a-z][a-z-]+)", table)}
    assert {rule.code: rule.slug for rule in RULES}.items() <= designed.items()


@pytest.mark.skipif(not CATALOG.exists(), reason="the catalog is not beside this checkout")
def test_modes_are_the_catalogs() -> None:
    """The ids are those of FAILURE_MODES."""
    ids = re.findall(r"^\| ([A-G]\d\d) \|", CATALOG.read_text(), re.MULTILINE)
    assert [mode.id for mode in FAILURE_MODES] == ids


def test_table() -> None:
    """The table has a row for each mode, the most telling rule first."""
    rows = markdown_table().splitlines()
    assert len(rows) == 2 + len(FAMILIES) + len(FAILURE_MODES)
    assert all(row.count("|") == 4 for row in rows)
    assert any(row.startswith("| C18 | dead channels | BN107, BN404") for row in rows)
    assert any(row.startswith("| A01 | ") and row.endswith("| BN201, BN101, BN301 |") for row in rows)
