"""GitHub workflow commands: one annotation a root cause, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from bncheck.facts.findings import Finding, Report, Severity, Verdict
from bncheck.facts.wording import many
from bncheck.report.escape import encodable, github_data, github_property, visible, visible_lines
from bncheck.report.views.story import Story, stories

_COMMAND = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
LAYERS_NAMED = 10


def write(report: Report, stream: TextIO) -> None:
    """Writes the annotations of one report; a passing one without findings gives a single notice."""
    file = report.target.path
    for story in stories(report):
        cause = story.cause
        stream.write(_command(_COMMAND[story.severity], file, f"{cause.code} {cause.slug}", _body(story), stream))
    if report.verdict is Verdict.INCONCLUSIVE:
        level = "error" if report.exit_code else "notice"
        stream.write(_command(level, file, "bncheck inconclusive", visible(report.headline), stream))
    elif not report.findings:
        what = ", ".join(report.checked) or "nothing"
        text = f"{many(len(report.layers), 'batch norm layer')}, no findings; checked: {what}"
        stream.write(_command("notice", file, f"bncheck {report.verdict.value}", text, stream))


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes the annotations of all reports."""
    for report in reports:
        write(report, stream)


def _command(level: str, file: str, title: str, body: str, stream: TextIO) -> str:
    properties = f"file={github_property(file)},title={github_property(title)}"
    return encodable(f"::{level} {properties}::{github_data(body)}\n", stream.encoding)


def _body(story: Story) -> str:
    cause = story.cause
    lines = [visible(cause.message)]
    lines += [f"Causes {f.code} {f.slug}: {visible(f.message)}" for f in story.explained]
    lines += [_layers(cause)] if cause.layers else []
    lines += [f"Effect: {visible(cause.why)}"] if cause.why else []
    fix = visible_lines(cause.fix.strip("\n")) if cause.fix else []
    return "\n".join([*lines, *(["Fix:", *fix] if fix else [])])


def _layers(finding: Finding) -> str:
    names = [visible(name) for name in finding.layers[:LAYERS_NAMED]]
    more = len(finding.layers) - len(names)
    return f"Layers: {', '.join(names)}" + (f" and {more} more" if more else "")
