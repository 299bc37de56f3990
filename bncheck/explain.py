"""Pages and tables about the rules themselves, from their docstrings."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

from bncheck.facts.errors import UsageError
from bncheck.facts.findings import RuleInfo
from bncheck.report.text.layout import wrap
from bncheck.rules import RULES
from bncheck.rules.registry import Registry
from bncheck.rules.rule import HEADINGS, Needs, Rule, causes

_NEEDS = {
    Needs.VALUES: "values",
    Needs.GRAPH: "graph",
    Needs.SITES: "sites",
    Needs.PREDICTIONS: "kernels",
    Needs.LITE: "TFLite file",
    Needs.CONVERTED: "TFLite or ONNX file",
    Needs.REFERENCE: "--reference",
    Needs.COMPARISON: "data",
    Needs.QUANTIZED: "quantized",
    Needs.FOLD: "TFLite file, its source",
    Needs.BEFORE: "--against",
}
_VERBATIM = ("- ", "* ", "| ", "|-")


def find_rule(name: str, rules: Registry = RULES) -> Rule:
    """The rule of this code or slug, in any case. Raises UsageError that names the nearest."""
    wanted = name.strip()
    for code, slug in rules.slugs.items():
        if wanted.upper() == code or wanted.lower() == slug:
            return rules.rule(code)
    codes = {slug: code for code, slug in rules.slugs.items()}
    family = [code for code in rules.codes if wanted and code.startswith(wanted.upper())]
    near = difflib.get_close_matches(wanted.upper(), rules.codes, n=3, cutoff=0.75)
    near += [codes[s] for s in difflib.get_close_matches(wanted.lower(), codes, n=3, cutoff=0.5)]
    meant = ", ".join(dict.fromkeys(f"{code} {rules.slugs[code]}" for code in family or near))
    raise UsageError(f"no rule {wanted!r}: " + (f"did you mean {meant}?" if meant else "`bncheck rules` lists them"))


def page(rule: Rule, width: int = 80) -> str:
    """The rule's page as plain text: prose wrapped to `width` columns, code and tables as they are."""
    info = rule.info
    lines = [f"{info.code} {info.slug}", *wrap(info.title, width), "", *wrap(_standing(rule), width)]
    for heading in (h for h in HEADINGS if info.sections.get(h)):
        body = [f"  {line}".rstrip() for line in _reflowed(info.sections[heading], width - 2)]
        lines += ["", heading, *body[:-1]]
    return "\n".join(lines) + "\n"


def _reflowed(text: str, width: int) -> Iterator[str]:
    """Lines of a section, and an empty one; what is indented, a list entry or a table's row stays as it is."""
    prose: list[str] = []
    for line in [*text.splitlines(), ""]:
        if line and not line[0].isspace() and not line.startswith(_VERBATIM):
            prose.append(line)
            continue
        if prose:
            yield from wrap(" ".join(prose), width)
            prose = []
        yield line


def markdown_page(rule: Rule) -> str:
    """The rule's page as markdown; code is indented in the docstring, which markdown takes for code as well."""
    info = rule.info
    lines = [f"# {info.code} {info.slug}", "", info.title, "", f"*{_standing(rule)}*"]
    for heading in (h for h in HEADINGS if info.sections.get(h)):
        lines += ["", f"## {heading}", "", info.sections[heading]]
    return "\n".join(lines) + "\n"


def _standing(rule: Rule) -> str:
    needs = needs_of(rule) or "nothing"
    parts = [f"{rule.severity.value}, {rule.confidence.value} confidence", f"needs {needs}"]
    explaining = causes(rule, RULES)
    if explaining:
        parts.append(f"may be explained by {', '.join(explaining)}")
    return " · ".join(parts)


def needs_of(rule: Rule) -> str:
    """What a rule needs, in words: "values, graph"; empty for nothing."""
    return ", ".join(name for need, name in _NEEDS.items() if need in rule.needs)


def table(rules: Registry = RULES) -> str:
    """All rules, one a line, for a pipe."""
    rows = [(r.code, r.slug, r.severity.value, needs_of(r), r.info.title) for r in rules]
    widths = [max(len(row[n]) for row in rows) for n in range(4)]
    return "".join("  ".join((*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[4])) + "\n" for row in rows)


def listing(rules: Registry = RULES, width: int = 80) -> str:
    """All rules for a terminal of `width` columns: a line that names each, and its title below."""
    indent = " " * (max((len(rule.code) for rule in rules), default=0) + 2)
    lines: list[str] = []
    for rule in rules:
        needs = needs_of(rule)
        lines.append(f"{rule.code}  {rule.slug} · {rule.severity.value}{needs and f' · needs {needs}'}")
        lines += (indent + line for line in wrap(rule.info.title, width - len(indent)))
    return "".join(f"{line}\n" for line in lines)


def markdown_table(rules: Registry = RULES) -> str:
    """All rules as a markdown table."""
    head = "| code | name | severity | needs | what it finds |\n|---|---|---|---|---|\n"
    rows = ((r.code, r.slug, r.severity.value, needs_of(r), r.info.title.replace("|", r"\|")) for r in rules)
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def json_table(rules: Registry = RULES) -> str:
    """All rules as a JSON list."""
    return json.dumps([_document(rule.info, rule) for rule in rules], indent=2) + "\n"


def _document(info: RuleInfo, rule: Rule) -> dict[str, object]:
    return {
        "code": info.code,
        "slug": info.slug,
        "severity": info.severity.value,
        "confidence": info.confidence.value,
        "needs": [name for need, name in _NEEDS.items() if need in rule.needs],
        "explained_by": list(causes(rule, RULES)),
        "title": info.title,
        "sections": dict(info.sections),
    }
