"""Findings as stories: a cause, with the findings that it explains told inside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bncheck.facts.findings import Finding, Report, Severity, Verdict
from bncheck.facts.record import Record
from bncheck.facts.wording import many

SEVERITIES = (Severity.ERROR, Severity.WARNING, Severity.INFO)
"""Worst first."""


class Story(Record):
    """One root cause and what follows from it."""

    cause: Finding
    explained: tuple[Finding, ...]

    @property
    def severity(self) -> Severity:
        """The worst of all its findings."""
        return min((f.severity for f in (self.cause, *self.explained)), key=SEVERITIES.index)


def verdict_told(report: Report) -> str:
    """The verdict as it heads a report: no bare PASS where there is something to look at ("PASS, 1 warning")."""
    verdict = report.verdict.value.upper()
    if report.verdict is not Verdict.PASS:
        return verdict
    found = Counter(story.severity for story in stories(report))
    parts = [many(found[one], one.value) for one in (Severity.ERROR, Severity.WARNING) if found[one]]
    return ", ".join((verdict, *parts))


def standing(story: Story) -> str:
    """The severity of the cause; where what it explains is worse, how many there are of each: "1 error, 1 warning"."""
    own, worst = story.cause.severity, story.severity
    if own is worst:
        return own.value
    found = Counter(f.severity for f in (story.cause, *story.explained))
    return ", ".join(many(found[one], one.value) for one in SEVERITIES if found[one])


def how_many(finding: Finding, report: Report) -> str:
    """Of which layers it is: "3 of 52 layers" of the model, or of the source that a converted file is held against.

    "2 places" of what is neither; empty where it is about none.
    """
    found = len(finding.layers)
    fold = () if report.fold is None else report.fold.layers
    for names in ({layer.name for layer in report.layers}, {layer.layer for layer in fold}):
        if found and names.issuperset(finding.layers):
            return f"{found} of {many(len(names), 'layer')}"
    return many(found, "place") if found else ""


def stories(report: Report) -> tuple[Story, ...]:
    """The findings of a report, each in exactly one story, the worst story first."""
    told: dict[int, list[Finding]] = {}
    causes: list[Finding] = []
    for finding in report.findings:
        root = _root(finding, report.findings)
        if root is finding:
            causes.append(finding)
        else:
            told.setdefault(id(root), []).append(finding)
    found = [Story(cause=cause, explained=tuple(told.get(id(cause), ()))) for cause in causes]
    return tuple(sorted(found, key=lambda story: SEVERITIES.index(story.severity)))


def counts(report: Report) -> dict[str, int]:
    """Numbers of layers, sites and updates, and of stories by their worst severity.

    `error + warning + info + explained` is the number of findings; `suppressed` ones come on top.
    """
    told = stories(report)
    by_severity = Counter(story.severity for story in told)
    return {
        "layers": len(report.layers),
        "sites": sum(len(layer.sites) for layer in report.layers),
        "updates": sum(len(layer.updates) for layer in report.layers),
        **{severity.value: by_severity[severity] for severity in SEVERITIES},
        "folded": report.folded or 0,
        "explained": len(report.findings) - len(told),
        "suppressed": len(report.suppressed),
    }


def _root(finding: Finding, findings: Sequence[Finding]) -> Finding:
    """The finding at the end of the chain of causes; the finding itself where the chain breaks or turns in a circle."""
    seen = {id(finding)}
    root = finding
    while root.caused_by is not None:
        cause = _cause(root, findings)
        if cause is None:
            break
        if id(cause) in seen:
            return finding
        seen.add(id(cause))
        root = cause
    return root


def _cause(finding: Finding, findings: Sequence[Finding]) -> Finding | None:
    same_code = [f for f in findings if f.code == finding.caused_by]
    shared = [f for f in same_code if not set(f.layers).isdisjoint(finding.layers)]
    return next(iter(shared or same_code), None)
