"""A training run on the page: what happened, how shares develop, and a table of its checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bncheck.facts.findings import Report
from bncheck.facts.training_run import RunStory
from bncheck.numerics.training_run.story import UPDATED
from bncheck.report.html.charts import run_chart
from bncheck.report.html.layers import layer_views
from bncheck.report.html.parts import weight
from bncheck.report.views.training_run import causes_told, codes_found, good_told, span_told, told_runs

_MOVED = "layers whose statistics moved"
_WORST = "initial value's part of the variance, median channel of the worst layer"
_RUNNING = "layers whose statistics changed since the checkpoint before"
_MARKS = ((_MOVED, "line local"), (_WORST, "line arrives"), (_RUNNING, "line bad"))


def run_sections(reports: Sequence[Report], names: Sequence[str]) -> list[dict[str, Any]]:
    """The template's variables for each run among the reports, or for models that have nothing to do with each other.

    `names` are what the checkpoints are called.
    """
    found, first = [], 0
    for story, of_run in told_runs(reports):
        found.append(_section(story, of_run, first, names[first : first + len(of_run)]))
        first += len(of_run)
    return found or [_section(None, reports, 0, names)]


def _section(story: RunStory | None, reports: Sequence[Report], first: int, names: Sequence[str]) -> dict[str, Any]:
    drawn = [] if story is None or len(reports) < 2 else list(_drawn(story, reports, names))
    drawn.sort(key=lambda row: [title for title, _ in _MARKS].index(row[1]))
    present = {row[1] for row in drawn}
    stepped = all(report.target.step is not None for report in reports)
    return {
        "id": f"run-{first}" if first else "run",
        "title": "The models" if story is None else span_told(story) if first else "The run",
        "told": [] if story is None else list(_told(story)),
        "rows": [_row(report, f"r{first + n}", names[n]) for n, report in enumerate(reports)],
        "legend": [(mark, title) for title, mark in _MARKS if title in present],
        "chart": run_chart(drawn, x="step" if stepped else "checkpoint") if drawn else None,
    }


def _told(story: RunStory) -> Iterator[dict[str, str]]:
    yield from ({"tag": event.severity.value, "text": event.message} for event in story.events)
    yield from (
        {"tag": cause.severity.value, "text": f"{cause.code} {cause.slug}: {causes_told(cause, story)}."}
        for cause in story.causes
    )
    yield from ({"tag": "", "text": text} for text in (story.outlook, good_told(story)) if text)


def _drawn(story: RunStory, reports: Sequence[Report], names: Sequence[str]) -> Iterator[tuple[int, str, float, str]]:
    stepped = all(report.target.step is not None for report in reports)
    running = story.series.get(UPDATED, (None,) * len(reports))
    for n, (report, name) in enumerate(zip(reports, names, strict=True)):
        place = report.target.step if stepped and report.target.step is not None else n + 1
        moved = [layer.moved for layer in report.layers if layer.moved is not None]
        parts = [p.median for view in layer_views(report) if (p := view.init_parts) is not None]
        shares = (
            (_MOVED, sum(moved) / len(moved) if moved else None),
            (_WORST, max(parts, default=None)),
            (_RUNNING, running[n]),
        )
        yield from ((place, title, share, name) for title, share in shares if share is not None)


def _row(report: Report, key: str, name: str) -> dict[str, str]:
    moved = [layer.moved for layer in report.layers if layer.moved is not None]
    shares = [view.share for view in layer_views(report) if view.share is not None]
    return {
        "key": key,
        "name": name,
        "verdict": report.verdict.value,
        "step": "\u2013" if report.target.step is None else f"{report.target.step:,}",
        "moved": f"{sum(moved)} of {len(moved)}" if moved else "\u2013",
        "share": weight(max(shares)) if shares else "\u2013",
        "findings": report.headline if report.unreadable else ", ".join(codes_found(report)) or "none",
    }
