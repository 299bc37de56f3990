"""SARIF 2.1.0 for code scanning: all rules that ran, one result a root cause, layers as logical locations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from bncheck.facts.findings import Finding, Report, RuleInfo, Severity, Suppressed
from bncheck.report.escape import sarif_text, uri_path, visible, visible_lines
from bncheck.report.views.rule_page import page_address
from bncheck.report.views.story import Story, stories
from bncheck.version import __version__

SCHEMA_URI = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "bncheck/v1"
"""Key of the fingerprint; GitHub would otherwise make one up from lines of source, which a model has none of."""

_LEVEL = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_RANK = {"high": 90.0, "medium": 60.0, "low": 30.0}


def write(report: Report, stream: TextIO) -> None:
    """Writes one report as a log with one run."""
    write_run([report], stream)


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes a log with one run a report."""
    log = {"$schema": SCHEMA_URI, "version": "2.1.0", "runs": [_run(report) for report in reports]}
    stream.write(json.dumps(log, indent=2, allow_nan=False) + "\n")


def _run(report: Report) -> dict[str, Any]:
    found: list[tuple[Story, Suppressed | None]] = [(story, None) for story in stories(report)]
    found += [(Story(cause=entry.finding, explained=()), entry) for entry in report.suppressed]
    index = {info.code: number for number, info in enumerate(report.rules)}
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "bncheck",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(info) for info in report.rules],
            }
        },
        "columnKind": "unicodeCodePoints",
        "automationDetails": {"id": f"bncheck/{_uri(report.target.path).removeprefix('file://').strip('/')}/"},
        "artifacts": [{"location": {"uri": _uri(report.target.path)}, "roles": ["analysisTarget"]}],
        "invocations": [_invocation(report)],
        "results": [_result(story, report, index.get(story.cause.code, -1), by) for story, by in found],
        "properties": {"verdict": report.verdict.value, "exitCode": report.exit_code, **_stages(report)},
    }
    return run


def _stages(report: Report) -> dict[str, Any]:
    """Of a gate, each with its state."""
    return {} if report.gate is None else {"stages": {stage.name: stage.state.value for stage in report.gate.stages}}


def _rule(info: RuleInfo) -> dict[str, Any]:
    rule: dict[str, Any] = {
        "id": info.code,
        "name": "".join(word.capitalize() for word in info.slug.split("-")),
        "shortDescription": {"text": sarif_text(info.title or info.slug)},
        "defaultConfiguration": {"level": _LEVEL[info.severity], "rank": _RANK[info.confidence.value]},
        "properties": {"tags": ["batch-normalization"], "precision": _precision(info.confidence.value)},
    }
    address = page_address(info.code)
    if address:
        rule["helpUri"] = address
    pages = {heading: text for heading, text in info.sections.items() if text.strip()}
    detects = pages.get("What it detects", "")
    if detects:
        rule["fullDescription"] = {"text": sarif_text(" ".join(detects.split()))}
    if pages:
        pages["Page"] = address or f"`bncheck explain {info.code}` prints this page."
        plain = "\n\n".join(f"{heading}\n{text}" for heading, text in pages.items())
        rich = "\n\n".join(f"### {heading}\n\n{text}" for heading, text in pages.items())
        rule["help"] = {"text": sarif_text(plain), "markdown": rich}
    return rule


def _precision(confidence: str) -> str:
    return {"high": "very-high", "medium": "high", "low": "medium"}[confidence]


def _result(story: Story, report: Report, rule_index: int, by: Suppressed | None) -> dict[str, Any]:
    """One root cause; what it explains is told in it, so that an alert is a finding of the text report."""
    finding = story.cause
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "level": _LEVEL[story.severity],
        "rank": _RANK[finding.confidence.value],
        "message": {"text": sarif_text(_message(story))},
        "locations": [_location(finding, report)],
        "partialFingerprints": {FINGERPRINT: finding.fingerprint},
        "properties": {
            "layers": [visible(layer) for layer in finding.layers],
            "explains": [{"ruleId": f.code, "fingerprint": f.fingerprint} for f in story.explained],
            "fix": "\n".join(visible_lines(finding.fix)),
        },
    }
    if rule_index >= 0:
        result["ruleIndex"] = rule_index
    if by is not None:
        kind, reason = ("external", sarif_text(visible(by.by)))
        result["suppressions"] = [{"kind": kind, "status": "accepted", "justification": reason}]
    return result


def _message(story: Story) -> str:
    finding = story.cause
    parts = [visible(finding.message)]
    parts += [f"Causes {f.code} {f.slug}: {visible(f.message)}" for f in story.explained]
    if finding.why:
        parts.append(visible(finding.why))
    return "\n".join(parts)


def _location(finding: Finding, report: Report) -> dict[str, Any]:
    # a model has no lines, but code scanning refuses a location without one
    physical = {"artifactLocation": {"uri": _uri(report.target.path), "index": 0}, "region": {"startLine": 1}}
    named = finding.layers or ((finding.location,) if finding.location else ())
    location: dict[str, Any] = {"physicalLocation": physical}
    if named:
        location["logicalLocations"] = [
            {"name": visible(name.rpartition("/")[2]), "fullyQualifiedName": visible(name), "kind": "member"}
            for name in dict.fromkeys(named)
        ]
    return location


def _invocation(report: Report) -> dict[str, Any]:
    notes = [f"not checked: {n.what}: {n.why}" for n in report.not_checked]
    notes += [*report.target.notes, *([report.headline] if report.headline else [])]
    return {
        "executionSuccessful": not report.unreadable,
        "exitCode": report.exit_code,
        "toolExecutionNotifications": [{"level": "note", "message": {"text": sarif_text(visible(n))}} for n in notes],
    }


def _uri(path: str) -> str:
    """Relative to the working folder where the file lies below it, as code scanning wants it."""
    target = Path(path)
    if not target.is_absolute():
        return uri_path(path)
    try:
        return uri_path(target.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return "file://" + uri_path(target.as_posix())
