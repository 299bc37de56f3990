"""Markdown for a job summary or a pull request comment (GitHub's flavour)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from bncheck.facts.findings import Finding, Report, Severity, Verdict
from bncheck.facts.training_run import RunStory
from bncheck.facts.wording import many
from bncheck.report.escape import encodable, markdown, markdown_code, markdown_fence, markdown_prose, visible_lines
from bncheck.report.text.comparison import comparison_markdown
from bncheck.report.text.quantized import quantized_markdown
from bncheck.report.views.fold_proof import fold_markdown
from bncheck.report.views.gate import stages_told
from bncheck.report.views.short_names import told_apart
from bncheck.report.views.story import SEVERITIES, Story, counts, standing, stories, verdict_told
from bncheck.report.views.training_run import causes_told, good_told, span_told, told_runs

LAYERS_NAMED = 20

_MARK = {Verdict.PASS: "✅", Verdict.FAIL: "❌", Verdict.INCONCLUSIVE: "❔"}
_SIGN = {Severity.ERROR: "🔴", Severity.WARNING: "🟠", Severity.INFO: "🔵"}


def write(report: Report, stream: TextIO) -> None:
    """Writes one report as a section."""
    _write(report, told_apart([report.target.path])[0], stream)


def write_run(reports: Sequence[Report], stream: TextIO) -> None:
    """Writes the story of each run, then a section a report, under names that tell them apart."""
    for story, _ in told_runs(reports):
        stream.writelines(encodable(line, stream.encoding) + "\n" for line in [*_run(story), ""])
    for report, name in zip(reports, told_apart([one.target.path for one in reports]), strict=True):
        _write(report, name, stream)
        stream.write("\n")


def _write(report: Report, name: str, stream: TextIO) -> None:
    lines = list(_section(report, name))
    kept = (line for n, line in enumerate(lines) if line or lines[n - 1])
    stream.writelines(encodable(line, stream.encoding) + "\n" for line in kept)


def _run(story: RunStory) -> Iterator[str]:
    yield f"## {markdown(span_told(story))}"
    yield ""
    yield from (f"- {_SIGN[event.severity]} {markdown_prose(event.message)}" for event in story.events)
    for cause in story.causes:
        yield f"- {_SIGN[cause.severity]} {cause.code} {cause.slug}: {markdown(causes_told(cause, story))}"
    yield from (f"- {markdown(text)}" for text in (story.outlook, good_told(story)) if text)


def _section(report: Report, name: str) -> Iterator[str]:
    target = report.target
    size = (
        many(len(report.layers), "batch norm layer")
        if report.folded is None
        else many(report.folded, "operator") + " to fold into"
    )
    facts = [markdown(target.format), size]
    facts += [f"step {target.step:,}"] if target.step is not None else []
    yield f"## {_MARK[report.verdict]} {verdict_told(report)} {markdown_code(name)}"
    yield ""
    yield " · ".join(facts)
    if report.headline:
        yield ""
        yield f"**{markdown(report.headline)}**"
    if report.gate is not None:
        yield ""
        yield " · ".join(markdown(part) for part in stages_told(report.gate))
    for story in stories(report):
        yield ""
        yield from _story(story, report)
    if report.quantized is not None:
        yield ""
        yield from quantized_markdown(report)
    if report.comparison is not None:
        yield ""
        yield from comparison_markdown(report)
    if report.fold is not None:
        yield ""
        yield from fold_markdown(report)
    if report.suppressed:
        yield ""
        yield f"<details><summary>{len(report.suppressed)} suppressed</summary>"
        yield ""
        yield from (f"- {s.finding.code} {s.finding.slug}: {markdown(s.by)}" for s in report.suppressed)
        yield ""
        yield "</details>"
    yield ""
    yield from _tail(report)


def _story(story: Story, report: Report) -> Iterator[str]:
    cause = story.cause
    of = f" · {len(cause.layers)} of {len(report.layers)} layers" if cause.layers and report.layers else ""
    yield f"### {_SIGN[story.severity]} {cause.code} {cause.slug} · {standing(story)}{of}"
    yield ""
    yield markdown_prose(cause.message)
    for finding in story.explained:
        yield ""
        yield f"Causes {finding.code} {finding.slug} ({finding.severity.value}): {markdown_prose(finding.message)}"
    if cause.why:
        yield ""
        yield f"**Effect** {markdown_prose(cause.why)}"
    if cause.fix:
        yield ""
        yield "**Fix**"
        yield ""
        yield from _fix(cause.fix)
    if cause.layers:
        yield ""
        yield from _layers(cause)


def _fix(fix: str) -> Iterator[str]:
    """Indented lines become fenced code, the others prose."""
    code: list[str] = []
    for line in [*visible_lines(fix.strip("\n")), ""]:
        if line[:1].isspace() or (code and not line):
            code.append(line)
            continue
        if code:
            while code and not code[-1].strip():
                code.pop()
            yield from ("", *markdown_fence([c.removeprefix("    ") for c in code]), "")
            code = []
        yield markdown_prose(line)
    if code:
        yield from ("", *markdown_fence([c.removeprefix("    ") for c in code if c.strip()]))


def _layers(finding: Finding) -> Iterator[str]:
    names = [markdown_code(name) for name in finding.layers]
    if len(names) <= LAYERS_NAMED:
        yield "Layers: " + ", ".join(names)
        return
    yield f"<details><summary>{len(names)} layers</summary>"
    yield ""
    yield from (f"- {name}" for name in names)
    yield ""
    yield "</details>"


def _tail(report: Report) -> Iterator[str]:
    number = counts(report)
    yield "| " + " | ".join([*(s.value for s in SEVERITIES), "suppressed", "checked", "exit code"]) + " |"
    yield "|---" * 6 + "|"
    checked = markdown(", ".join(report.checked) or "nothing")
    cells = [*(str(number[s.value]) for s in SEVERITIES), str(number["suppressed"]), checked, str(report.exit_code)]
    yield "| " + " | ".join(cells) + " |"
    if report.not_checked or report.target.notes:
        yield ""
        yield from (f"- not checked: {markdown(n.what)} ({markdown(n.why)})" for n in report.not_checked)
        yield from (f"- note: {markdown(note)}" for note in report.target.notes)
