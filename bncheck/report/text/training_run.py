"""A run for people: what happened and when, then who found what in which checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bncheck.facts.findings import Report, Verdict
from bncheck.facts.training_run import CauseWindow, EventKind, RunStory
from bncheck.report.escape import visible
from bncheck.report.text.layout import LABEL, Line, cells, cut, hanging, pad, wrap
from bncheck.report.views.layers import shares
from bncheck.report.views.training_run import alike, causes_told, codes_found, good_told, span_told

SHORTEST_STRETCH = 3
"""Checkpoints of a run that are alike and still told one by one."""
_BARS = "▁▂▃▄▅▆▇█"
_WIDEST = 60
_WORST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
_LABELS = {
    EventKind.NEVER_STARTED: "Updates",
    EventKind.FROZEN: "Updates",
    EventKind.STOPPED: "Updates",
    EventKind.PAUSED: "Updates",
    EventKind.DIED: "Channels",
    EventKind.JUMPED: "Jump",
    EventKind.OTHER_LAYERS: "Layers",
}
_STYLE = {Verdict.PASS: "pass", Verdict.FAIL: "error", Verdict.INCONCLUSIVE: "inconclusive"}


def run_lines(story: RunStory, reports: Sequence[Report], width: int) -> Iterator[Line]:
    """The story of one run, whose reports these are."""
    verdicts = {report.verdict for report in reports}
    verdict = next(one for one in _WORST if one in verdicts)
    yield (verdict.value.upper(), _STYLE[verdict]), (f"  {visible(span_told(story))}", "label")
    yield ()
    yield from _sparklines(story, width)
    for event in story.events:
        yield from _event(_LABELS[event.kind], visible(event.message), event.severity.value, width)
    if story.outlook:
        yield from hanging("Init", visible(story.outlook), width)
    yield from hanging("Quantize", visible(good_told(story)), width)
    if story.causes:
        yield ()
        for cause in story.causes:
            yield from _cause(cause, story, width)


def _event(label: str, text: str, severity: str, width: int) -> Iterator[Line]:
    for number, line in enumerate(wrap(text, width - 2 - LABEL)):
        yield ("  " + ("" if number else label).ljust(LABEL), severity), (line, "")


def _cause(cause: CauseWindow, story: RunStory, width: int) -> Iterator[Line]:
    name = f"{cause.code} {cause.slug}"
    first, *rest = wrap(f"{name}: {visible(causes_told(cause, story))}", width - 2)
    yield ("  ", ""), (first[: len(cause.code)], cause.severity.value), (first[len(cause.code) :], "")
    for line in rest:
        yield (("    " + line, ""),)


def _sparklines(story: RunStory, width: int) -> Iterator[Line]:
    if not story.series:
        return
    room = max(cells(title) for title in story.series) + 2
    wide = max(8, min(_WIDEST, width - room - 24))
    for title, values in story.series.items():
        known = [value for value in values if value is not None]
        most = max(known)
        told = f"{known[0]:.3g} to {known[-1]:.3g}" if most > 1 else f"{known[0]:.0%} to {known[-1]:.0%}"
        yield ("  " + title.ljust(room), "label"), (sparkline(values, wide), "code"), (f"  {told}", "dim")
    yield ()


def sparkline(values: Sequence[float | None], width: int) -> str:
    """One character for each value, of many for the largest of as many as share one; blank where none is known."""
    columns = min(width, len(values))
    parts = [values[n * len(values) // columns : (n + 1) * len(values) // columns] for n in range(columns)]
    tops = [max((value for value in part if value is not None), default=None) for part in parts]
    most = max((top for top in tops if top is not None), default=0.0)
    return "".join(
        " " if top is None else _BARS[min(len(_BARS) - 1, int(top / most * (len(_BARS) - 1) + 0.5)) if most else 0]
        for top in tops
    )


def run_table(reports: Sequence[Report], names: Sequence[str], width: int, *, verbose: bool) -> Iterator[Line]:
    """A row for each checkpoint under its name; without `verbose` one for each long stretch of those that are alike."""
    name_of = {id(report): name for report, name in zip(reports, names, strict=True)}
    groups = [[report] for report in reports] if verbose else [*_told_apart(alike(reports))]
    rows = [_row(group, name_of[id(group[0])]) for group in groups]
    head = ("checkpoint", "step", "verdict", "moved", "init share", "findings")
    widths = [max(cells(row[n]) for row in (head, *rows)) for n in range(5)]
    widths[0] = min(widths[0], max(12, width - sum(widths[1:]) - 5 * 2 - 12))
    left = width - sum(widths) - 10
    yield (("  ".join(pad(h, w) for h, w in zip(head, [*widths, 0], strict=True)).rstrip(), "label"),)
    for row, group in zip(rows, groups, strict=True):
        name = row[0] if cells(row[0]) <= widths[0] else cut(row[0], widths[0] - 1) + "…"
        first, *rest = wrap(row[5], max(12, left))
        yield (
            (f"{pad(name, widths[0])}  {pad(row[1], widths[1], right=True)}  ", ""),
            (pad(row[2], widths[2]), _STYLE[group[0].verdict]),
            (f"  {pad(row[3], widths[3])}  {pad(row[4], widths[4])}  {first}", ""),
        )
        for line in rest:
            yield ((" " * (width - max(12, left)) + line, ""),)


def _told_apart(groups: Iterable[list[Report]]) -> Iterator[list[Report]]:
    """Stretches of checkpoints that are alike; short ones one by one."""
    for group in groups:
        if len(group) <= SHORTEST_STRETCH:
            yield from ([report] for report in group)
        else:
            yield group


def _row(group: Sequence[Report], name: str) -> tuple[str, str, str, str, str, str]:
    report, last = group[0], group[-1]
    moved = [layer.moved for layer in last.layers]
    known = [m for m in moved if m is not None]
    left = [[one.share for one in shares(end).values()] for end in (report, last)]
    told = dict.fromkeys(f"{max(values):.1%}" if values else "" for values in left)
    steps = dict.fromkeys("" if end.target.step is None else f"{end.target.step:,}" for end in (report, last))
    unread = visible(report.headline) if report.unreadable else ""
    return (
        visible(name) + (f" + {len(group) - 1}" if last is not report else ""),
        " to ".join(steps),
        report.verdict.value,
        f"{sum(known)}/{len(known)}" if known else "",
        " to ".join(told),
        unread or ", ".join(codes_found(report)) or "none",
    )
