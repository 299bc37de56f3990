"""What a rule is: a generator over the facts, its code, and the documentation in its docstring."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Flag, auto
from textwrap import indent

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, RuleInfo, Severity
from bncheck.facts.layers import Facts

Check = Callable[[Facts], Iterator[Evidence]]

HEADINGS = ("What it detects", "Why it matters", "How it decides", "Not detected", "Fix", "References")
"""Every rule's docstring has a title line and then these sections, each heading on a line of its own, underlined."""

_REMEDY = re.compile(r"^(?P<margin> +)\{(?P<name>[A-Z0-9_]+)\}$", re.MULTILINE)


class Needs(Flag):
    """Evidence without which a rule cannot run; what is lacking is reported as not checked."""

    NOTHING = 0
    VALUES = auto()
    """Checkpoint values or checksums."""
    GRAPH = auto()
    """A MetaGraph, SavedModel or frozen graph."""
    SITES = auto()
    """Sites, from a graph or a Keras configuration."""
    LITE = auto()
    """A TFLite file."""
    REFERENCE = auto()
    """A second checkpoint to compare with."""
    COMPARISON = auto()
    """Both modes, run on data."""
    QUANTIZED = auto()
    """Float and quantized, run on data."""
    FOLD = auto()
    """A TFLite file held against the model that it was converted from."""
    BEFORE = auto()
    """What an earlier model came to, and the same of this one."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule, as registered in `bncheck.rules.RULES`."""

    code: str
    slug: str
    severity: Severity
    confidence: Confidence
    needs: Needs
    explained_by: tuple[str, ...]
    """Codes that are this rule's cause where they hold for the same layers: the two are told as one story."""
    check: Check

    @property
    def info(self) -> RuleInfo:
        """What reports and `explain` show: the docstring, with the remedies that it names (its module's own first)."""
        known = {**vars(remedies), **vars(sys.modules[self.check.__module__])}
        title, sections = parse_docstring(_with_remedies(inspect.getdoc(self.check) or "", known))
        return RuleInfo(
            code=self.code,
            slug=self.slug,
            severity=self.severity,
            confidence=self.confidence,
            title=title,
            sections=sections,
        )


def rule(
    code: str,
    slug: str,
    *,
    severity: Severity,
    needs: Needs,
    confidence: Confidence = Confidence.HIGH,
    explained_by: tuple[str, ...] = (),
) -> Callable[[Check], Rule]:
    """Declares the decorated generator as the rule `code`."""

    def declare(check: Check) -> Rule:
        return Rule(
            code=code,
            slug=slug,
            severity=severity,
            confidence=confidence,
            needs=needs,
            explained_by=explained_by,
            check=check,
        )

    return declare


def _with_remedies(page: str, known: Mapping[str, object]) -> str:
    """The page with each line `{NAME}` replaced by the code of that name, as far in. Raises KeyError for another."""
    return _REMEDY.sub(lambda line: indent(str(known[line["name"]]), line["margin"]), page)


def parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """(title, {heading: text}) of a rule's docstring; a heading is a line of HEADINGS underlined with dashes."""
    lines = text.splitlines()
    title = lines[0].strip() if lines else ""
    sections: dict[str, str] = {}
    heading = ""
    for number, line in enumerate(lines[1:], start=1):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line.strip() in HEADINGS and set(following.strip()) == {"-"}:
            heading = line.strip()
            sections[heading] = ""
        elif heading and not (line.strip() and set(line.strip()) == {"-"}):
            sections[heading] += line + "\n"
    return title, {name: body.strip("\n") for name, body in sections.items()}
