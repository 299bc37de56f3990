"""A run in few words: its span, where a cause was found, which checkpoint is the first to quantize."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import PurePath

from bncheck.facts.findings import Report, Severity
from bncheck.facts.training_run import CauseWindow, RunStory
from bncheck.facts.wording import listing, many
from bncheck.numerics.training_run.story import run_stories
from bncheck.report.views.story import stories

SPANS_NAMED = 4


def told_runs(reports: Sequence[Report]) -> list[tuple[RunStory, list[Report]]]:
    """Each run among the reports with its story; none where the targets have nothing to do with each other."""
    groups = [list(group) for run, group in groupby(reports, key=lambda report: report.run) if run is not None]
    return list(zip(run_stories(reports), groups, strict=True))


def span_told(story: RunStory) -> str:
    """What the run is: "logs · 200 checkpoints · steps 2 to 400 · 52 batch norm layers"."""
    parts = [PurePath(story.path).name or story.path, many(len(story.names), "checkpoint")]
    steps = [step for step in story.steps if step is not None]
    if steps:
        parts.append(f"step {steps[0]:,}" if steps[0] == steps[-1] else f"steps {steps[0]:,} to {steps[-1]:,}")
    return " · ".join([*parts, many(story.layers, "batch norm layer")])


def causes_told(cause: CauseWindow, story: RunStory) -> str:
    """In which checkpoints a cause was found: "100 of 200 checkpoints, step 202 (model.ckpt-202) to the last"."""
    count, last = len(story.names), len(story.names) - 1
    if cause.spans == ((0, last),):
        return "in every checkpoint" if count > 1 else "in the one checkpoint"
    spans = [_span(first, end, last, story) for first, end in cause.spans]
    return f"in {cause.checkpoints:,} of {many(count, 'checkpoint')}: {listing(spans, SPANS_NAMED)}"


def _span(first: int, end: int, last: int, story: RunStory) -> str:
    if first == end:
        return story.at(first)
    if end == last:
        return f"from {story.at(first)} to the last"
    return f"{'from the first' if first == 0 else 'from ' + story.at(first)} to {story.at(end)}"


def good_told(story: RunStory) -> str:
    """Which checkpoint is the first good one to quantize, to which one that holds, and what was not judged for it."""
    if not story.without_kernels:
        return _good(story)
    skipped = f"In {story.without_kernels:,} of {many(len(story.names), 'checkpoint')}"
    return f"{_good(story)} {skipped} kernels were not read: those of the checkpoints around them change no finding."


def _good(story: RunStory) -> str:
    if story.first_good is None or story.last_good is None:
        return f"No checkpoint is good to quantize: {story.why_none}."
    first = f"{story.at(story.first_good)} is the first good checkpoint"
    if story.last_good == story.first_good:
        return f"{first}, and the only one."
    if story.last_good == len(story.names) - 1:
        return f"{first}; so is the last."
    return f"{first}, {story.at(story.last_good)} the last."


def codes_found(report: Report) -> list[str]:
    """Codes of a report's causes without its notes, the worst first."""
    return list(dict.fromkeys(s.cause.code for s in stories(report) if s.severity is not Severity.INFO))


def alike(reports: Sequence[Report]) -> Iterator[list[Report]]:
    """Stretches of checkpoints with one verdict and the same causes; unreadable ones stand alone."""
    for key, group in groupby(enumerate(reports), key=lambda one: _kind(*one)):
        del key
        yield [report for _, report in group]


def _kind(place: int, report: Report) -> tuple[object, ...]:
    return (place,) if report.unreadable else (report.verdict, *codes_found(report))
