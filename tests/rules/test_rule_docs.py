"""Rule pages: what `bncheck explain` prints."""

from __future__ import annotations

import inspect
import re

import pytest

from bncheck.rules import RULES
from bncheck.rules.rule import HEADINGS, Rule, parse_docstring

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


def test_parse() -> None:
    """A heading counts only with its underline; text keeps its inner blank lines and its indented code."""
    title, sections = parse_docstring(
        "Title.\n\nWhat it detects\n---------------\nFix it\n\n    code()\n\nFix\n---\nWhy it matters\nNothing."
    )
    assert title == "Title."
    assert sections == {"What it detects": "Fix it\n\n    code()", "Fix": "Why it matters\nNothing."}
