"""What a rule is: a generator over the facts, its code, and the documentation in its docstring."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Flag, auto
from functools import cached_property
from textwrap import indent

from bncheck.facts import remedies
from bncheck.facts.findings import Confidence, Evidence, Meaning, RuleFamily, RuleInfo, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.record import Record

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
    PREDICTIONS = auto()
    """Statistics that the weights before a layer predict: kernels, and what joins them to layers."""
    LITE = auto()
    """A TFLite file."""
    CONVERTED = auto()
    """A TFLite file or an ONNX model."""
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


class Rule(Record):
    """One rule, as registered in `bncheck.rules.RULES`."""

    code: str
    slug: str
    severity: Severity
    confidence: Confidence
    needs: Needs
    explained_by: tuple[str | Meaning, ...]
    """What is this rule's cause where it holds for the same layers: the two are told as one story.

    Codes, or what rules mean, for all that say so; the most telling first. `causes` gives all of them as codes.
    """
    explains: tuple[str, ...]
    """Codes of rules that this one explains, though they do not say so."""
    milder_than: tuple[str, ...]
    """Codes of the same fault to a higher degree: who had these is not worse now."""
    meaning: Meaning
    ends_gate: str
    """As in `RuleInfo`."""
    refuses_repair: str
    """Likewise."""
    sees: tuple[str, ...]
    """Failure modes that this rule is the first to tell."""
    sees_too: tuple[str, ...]
    """Failure modes that others tell better."""
    check: Check

    @cached_property
    def info(self) -> RuleInfo:
        """What reports and `explain` show."""
        return RuleInfo(
            code=self.code,
            slug=self.slug,
            severity=self.severity,
            confidence=self.confidence,
            family=RuleFamily(int(self.code[2])),
            meaning=self.meaning,
            measured=bool(self.needs & (Needs.COMPARISON | Needs.QUANTIZED)),
            ends_gate=self.ends_gate,
            refuses_repair=self.refuses_repair,
            page=self.page,
        )

    def page(self) -> tuple[str, dict[str, str]]:
        """(title, sections) of the docstring, with the remedies that it names (its module's own first)."""
        known = {**vars(remedies), **vars(sys.modules[self.check.__module__])}
        return parse_docstring(_with_remedies(inspect.getdoc(self.check) or "", known))


def rule(
    code: str,
    slug: str,
    *,
    severity: Severity,
    needs: Needs,
    confidence: Confidence = Confidence.HIGH,
    explained_by: tuple[str | Meaning, ...] = (),
    explains: tuple[str, ...] = (),
    milder_than: tuple[str, ...] = (),
    meaning: Meaning = Meaning.NONE,
    ends_gate: str = "",
    refuses_repair: str = "",
    sees: str = "",
    sees_too: str = "",
) -> Callable[[Check], Rule]:
    """Declares the decorated generator as the rule `code`; what it sees are failure modes with spaces between."""

    def declare(check: Check) -> Rule:
        return Rule(
            code=code,
            slug=slug,
            severity=severity,
            confidence=confidence,
            needs=needs,
            explained_by=explained_by,
            explains=explains,
            milder_than=milder_than,
            meaning=meaning,
            ends_gate=ends_gate,
            refuses_repair=refuses_repair,
            sees=tuple(sees.split()),
            sees_too=tuple(sees_too.split()),
            check=check,
        )

    return declare


def _with_remedies(page: str, known: Mapping[str, object]) -> str:
    """The page with each line `{NAME}` replaced by the code of that name, as far in. Raises KeyError for another."""
    return _REMEDY.sub(lambda line: indent(str(known[line["name"]]), line["margin"]), page)


def causes(rule: Rule, rules: Iterable[Rule]) -> tuple[str, ...]:
    """Codes of all rules that may explain this one, the most telling first: those it names, then those that name it."""
    known = tuple(rules)
    found: list[str] = []
    for cause in rule.explained_by:
        found += [cause] if isinstance(cause, str) else [other.code for other in known if cause & other.meaning]
    found += [other.code for other in known if rule.code in other.explains]
    return tuple(code for code in dict.fromkeys(found) if code != rule.code)


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
