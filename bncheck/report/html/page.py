"""A report as the page's template takes it: words, numbers with what to sort them by, blocks of prose and code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from bncheck.facts.findings import Finding, Report
from bncheck.facts.wording import decibel, fine_percent, many
from bncheck.report.escape import visible_lines
from bncheck.report.html.channels import channel_document, channels_of, used_series
from bncheck.report.html.charts import channel_chart
from bncheck.report.html.layers import LayerView, layer_views
from bncheck.report.html.parts import Section, weight
from bncheck.report.html.run_sections import run_sections
from bncheck.report.html.sections import sections
from bncheck.report.html.table import layer_columns
from bncheck.report.views.comparison import DIVERGES, INHERITS
from bncheck.report.views.rule_page import rule_url
from bncheck.report.views.short_names import told_apart
from bncheck.report.views.story import Story, counts, how_many, standing, stories, verdict_told

FULL_LAYERS = 1_500
"""Layers that the reports of one page may show in full; of a longer run the older ones keep their findings."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One figure at the top."""

    label: str
    value: str
    note: str = ""
    tone: str = ""
    """"bad", "good" or nothing."""
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of a fix."""

    kind: str
    """"prose" or "code"."""
    text: str


def page(reports: Sequence[Report], *, many: bool) -> dict[str, Any]:
    """The template's variables for one report, or for those of a run."""
    full = _shown_in_full(reports)
    names = told_apart([report.target.path for report in reports])
    shown = [_report(report, names[n], f"r{n}", full=report in full) for n, report in enumerate(reports)]
    last = next((n for n in reversed(range(len(reports))) if reports[n].verdict.value != "pass"), len(reports) - 1)
    return {
        "many": many,
        "is_run": _is_run(reports),
        "reports": shown,
        "open": last,
        "title": shown[last]["name"]
        if not many
        else _folder(reports)
        if _is_run(reports)
        else f"{len(reports)} models",
        "verdict": _worst(reports) if many else reports[0].verdict.value,
        "summary": _summary(reports) if many else "",
        "runs": run_sections(reports, names) if many else [],
    }


def blocks(fix: str) -> list[Block]:
    """Indented lines are code, the others prose."""
    found: list[Block] = []
    code: list[str] = []
    prose: list[str] = []

    def close() -> None:
        if prose:
            found.append(Block(kind="prose", text=" ".join(prose)))
            prose.clear()
        while code and not code[-1].strip():
            code.pop()
        if code:
            indent = min(len(line) - len(line.lstrip()) for line in code if line.strip())
            found.append(Block(kind="code", text="\n".join(line[indent:] for line in code)))
            code.clear()

    for line in visible_lines(fix.strip("\n")):
        if line[:1].isspace() or (code and not line.strip()):
            if prose:
                close()
            code.append(line)
        else:
            if code:
                close()
            if line.strip():
                prose.append(line.strip())
            else:
                close()
    close()
    return found


def _report(report: Report, name: str, key: str, *, full: bool) -> dict[str, Any]:
    views = layer_views(report)
    channels = channels_of(report, views) if full else []
    series = used_series(channels)
    return {
        "key": key,
        "name": name,
        "path": report.target.path,
        "verdict": report.verdict.value,
        "told": verdict_told(report),
        "headline": report.headline,
        "facts": list(_target_facts(report)),
        "tiles": list(_tiles(report, views)),
        "stories": [_story(story, report, f"{key}-{n}-rule") for n, story in enumerate(stories(report))],
        "counts": counts(report),
        "full": full,
        "sections": [_section(section) for section in sections(report, views)] if full else [],
        "columns": layer_columns(views) if full else None,
        "channels": channel_document(channels) if channels else None,
        "series": [
            {
                "key": s.key,
                "title": s.title,
                "share": s.share,
                "log": s.scale == "log",
                "spec": channel_chart(title=s.title, scale=s.scale, neutral=s.neutral, share=s.share),
            }
            for s in series
        ],
        "not_checked": report.not_checked,
        "checked": report.checked,
        "notes": report.target.notes,
        "suppressed": [{"finding": entry.finding, "by": entry.by} for entry in report.suppressed],
        "rules": [rule.code for rule in report.rules],
        "timing": [f"{stage} {_seconds(seconds)}" for stage, seconds in report.timing.items()],
        "exit_code": report.exit_code,
        "fail_on": report.fail_on,
        "configuration": report.configuration,
        "gate": _gate(report),
    }


def _section(section: Section) -> dict[str, Any]:
    return {
        "key": section.key,
        "title": section.title,
        "lead": section.lead,
        "facts": section.facts,
        "charts": section.charts,
        "table": section.table,
        "table_title": section.table_title,
        "notes": section.notes,
    }


def _is_run(reports: Sequence[Report]) -> bool:
    """Whether these are checkpoints of one run, not models that have nothing to do with each other."""
    return len({report.run for report in reports}) == 1 and reports[0].run is not None


def _folder(reports: Sequence[Report]) -> str:
    path = PurePath(reports[0].run or "")
    return path.name or str(path)


def _target_facts(report: Report) -> Iterator[str]:
    target = report.target
    yield target.format
    if report.folded is not None and not report.layers:
        yield many(report.folded, "operator") + " to fold into"
    elif not report.unreadable:
        yield many(len(report.layers), "batch norm layer")
    if target.step is not None:
        yield f"step {target.step:,}"
    if target.updates is not None and target.updates != target.step:
        yield f"{target.updates:,} updates" + (f" ({target.updates_from})" if target.updates_from else "")


def _tiles(report: Report, views: Sequence[LayerView]) -> Iterator[Tile]:
    yield from _accuracy_tiles(report)
    wrong = [view for view in views if view.state == DIVERGES]
    if report.comparison is not None and report.comparison.layers:
        inherit = sum(1 for view in views if view.state == INHERITS)
        note = f"{inherit} more inherit the error" if inherit else "by themselves, beyond batch noise"
        of = f"{len(wrong)} of {len(report.comparison.layers)}"
        yield Tile(label="Layers that diverge", value=of, note=note, tone="bad" if wrong else "good")
    moved = [view.layer.moved for view in views if view.layer is not None and view.layer.moved is not None]
    if moved and not (report.comparison is not None and all(moved)):
        yield Tile(
            label="Statistics that moved", value=f"{sum(moved)} of {len(moved)}", note="left their initial value"
        )
    shares = [view.share for view in views if view.share is not None]
    if shares:
        decays = {view.layer.decay for view in views if view.layer is not None and view.layer.decay is not None}
        note = f"decay {', '.join(f'{d:g}' for d in sorted(decays)[:3])}" if decays else "initial value never left"
        yield Tile(label="Weight of the initial value", value=weight(max(shares)), note=note)


def _accuracy_tiles(report: Report) -> Iterator[Tile]:
    comparison, measured = report.comparison, report.quantized
    accuracy = comparison.accuracy if comparison is not None else measured.accuracy if measured is not None else None
    if accuracy is not None:
        steps = [("batch statistics", accuracy.train), ("stored statistics", accuracy.eval)]
        if measured is not None:
            steps.append(("quantized", measured.accuracy.quantized))
        known = [(name, value) for name, value in steps if value is not None]
        if known:
            value = " \u2192 ".join(fine_percent(v) for _, v in known)
            note = " \u2192 ".join(name for name, _ in known)
            yield Tile(label="Accuracy", value=value, note=note, wide=len(known) > 1)
    if comparison is not None and comparison.outputs:
        output = next((o for o in comparison.outputs if o.agreement is not None), comparison.outputs[0])
        if output.agreement is not None:
            floor = (
                ""
                if output.agreement_floor is None
                else f"batch noise alone leaves {fine_percent(output.agreement_floor)}"
            )
            yield Tile(label="Same top class in both modes", value=fine_percent(output.agreement), note=floor)
        else:
            floor = "" if output.floor is None else f"batch noise alone: {decibel(output.floor)} dB"
            yield Tile(label="Output SQNR, train vs eval", value=f"{decibel(output.nmse)} dB", note=floor)
    if measured is not None and measured.outputs:
        output = next((o for o in measured.outputs if o.agreement is not None), measured.outputs[0])
        value = f"{decibel(output.nmse)} dB" if output.agreement is None else fine_percent(output.agreement)
        label = "Output SQNR, quantized" if output.agreement is None else "Same top class, float and quantized"
        yield Tile(label=label, value=value, note=f"SQNR {decibel(output.nmse)} dB" if output.agreement else "")


def _story(story: Story, report: Report, anchor: str) -> dict[str, Any]:
    cause = story.cause
    info = next((rule for rule in report.rules if rule.code == cause.code), None)
    told = [] if info is None else [(heading, text) for heading, text in info.sections.items() if heading in _TOLD]
    return {
        "severity": story.severity.value,
        "standing": standing(story),
        "cause": _finding(cause, report),
        "explained": [_finding(finding, report) for finding in story.explained],
        "anchor": anchor,
        "page": rule_url(cause.code) or (f"#{anchor}" if told else ""),
        "rule": told,
        "rule_title": "" if info is None else info.title,
    }


_TOLD = ("What it detects", "How it decides", "Not detected", "References")


def _finding(finding: Finding, report: Report) -> dict[str, Any]:
    return {
        "code": finding.code,
        "slug": finding.slug,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "message": finding.message,
        "why": finding.why,
        "fix": blocks(finding.fix),
        "layers": finding.layers,
        "of": how_many(finding, report),
        "location": finding.location if finding.location not in finding.layers else "",
        "evidence": [
            (m.name, _measured(m.value), "" if m.limit is None else _measured(m.limit), m.unit)
            for m in finding.evidence
        ],
    }


def _measured(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _gate(report: Report) -> list[tuple[str, str, str]]:
    """(stage, how it ended, why) of a gate."""
    stages = () if report.gate is None else report.gate.stages
    return [(stage.name, stage.state.value, "; ".join(t for t in (stage.why, stage.how) if t)) for stage in stages]


def _shown_in_full(reports: Sequence[Report]) -> list[Report]:
    """The latest, as long as their layers fit, and always the one that is open."""
    room = FULL_LAYERS
    shown: list[Report] = []
    worst_first = sorted(range(len(reports)), key=lambda n: (reports[n].verdict.value == "pass", -n))
    for n in worst_first:
        size = max(len(reports[n].layers), 1)
        if not shown or size <= room:
            shown.append(reports[n])
            room -= size
    return shown


def _worst(reports: Sequence[Report]) -> str:
    verdicts = {report.verdict.value for report in reports}
    return next((verdict for verdict in ("fail", "inconclusive") if verdict in verdicts), "pass")


def _summary(reports: Sequence[Report]) -> str:
    """How many fail, pass, ...: the worst first."""
    found = Counter(report.verdict.value for report in reports)
    told = ", ".join(f"{found[verdict]} {verdict}" for verdict in ("fail", "inconclusive", "pass") if found[verdict])
    return f"{len(reports)} checkpoints of one run: {told}" if _is_run(reports) else told


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
