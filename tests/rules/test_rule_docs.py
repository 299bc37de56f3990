"""Rule pages: what `bncheck explain` prints."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import pytest

from bncheck.facts import remedies
from bncheck.facts.findings import Evidence
from bncheck.facts.layers import Facts
from bncheck.rules import RULES
from bncheck.rules.rule import HEADINGS, Rule, parse_docstring
from bncheck.rules.wiring import bn201_update_not_wired, bn209_saver_omits_statistics

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)


@every_rule
def test_headings(rule: Rule) -> None:
    """Every page has all sections, in order, none empty, none other."""
    assert tuple(rule.info.sections) == HEADINGS
    assert all(text.strip() for text in rule.info.sections.values())


@every_rule
def test_title(rule: Rule) -> None:
    """The title is one sentence on one line."""
    assert re.fullmatch(r"[A-Z0-9].{15,140}\.", rule.info.title)


@every_rule
def test_no_underline_left_over(rule: Rule) -> None:
    """No heading is misspelt: every line of dashes underlines one of the six."""
    lines = (inspect.getdoc(rule.check) or "").splitlines()
    underlined = [lines[n - 1].strip() for n, line in enumerate(lines) if set(line.strip()) == {"-"}]
    assert tuple(underlined) == HEADINGS


@every_rule
def test_references_are_concrete(rule: Rule) -> None:
    """References name an issue, a paper, a page or a failure mode."""
    assert re.search(r"#\d+|arXiv \d{4}\.\d{4,5}|https://|[A-GP]\d\d?\b", rule.info.sections["References"])


@every_rule
def test_remedies_are_filled_in(rule: Rule) -> None:
    """No page shows the name of a remedy instead of its code."""
    assert not re.search(r"^ *\{\w+\}$", rule.info.sections["Fix"], re.MULTILINE)


def test_a_page_shows_the_remedy_that_findings_give() -> None:
    """To the letter, as far in as its name stands; one of the rule's own is found in the rule's module."""
    assert indent(remedies.WIRE_UPDATES, "    ") in bn201_update_not_wired.check.info.sections["Fix"]
    own = bn209_saver_omits_statistics
    assert indent(own.SAVE_ALL, "    ") in own.check.info.sections["Fix"]


def test_a_remedy_that_no_one_knows() -> None:
    """A name that is misspelt is an error, and not shown to anybody."""

    def misspelt(_: Facts) -> Iterator[Evidence]:
        """Title.

        Fix
        ---
            {WIRE_UPDATE}
        """
        yield from ()

    with pytest.raises(KeyError, match="WIRE_UPDATE"):
        _ = replace(bn201_update_not_wired.check, check=misspelt).info.sections


def test_the_updates_are_collected_in_one_place() -> None:
    """No rule and no other part writes the code that collects TF1's updates once more."""
    package = Path(remedies.__file__).parents[1]
    written = [p.name for p in package.rglob("*.py") if "GraphKeys.UPDATE_OPS" in p.read_text(encoding="utf-8")]
    assert written == ["remedies.py"]


def test_parse() -> None:
    """A heading counts only with its underline; text keeps its inner blank lines and its indented code."""
    title, sections = parse_docstring(
        "Title.\n\nWhat it detects\n---------------\nFix it\n\n    code()\n\nFix\n---\nWhy it matters\nNothing."
    )
    assert title == "Title."
    assert sections == {"What it detects": "Fix it\n\n    code()", "Fix": "Why it matters\nNothing."}
