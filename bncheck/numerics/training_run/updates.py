"""When the updates of the statistics ran: never, to a certain step, or with a pause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np

from bncheck.facts.findings import Severity
from bncheck.facts.training_run import EventKind, RunEvent, RunStory
from bncheck.facts.wording import many
from bncheck.numerics.training_run.stacks import Stack

SHORTEST_PAUSE = 2
"""Pairs of checkpoints without an update in the midst of a run that are told: one may be a checkpoint saved twice."""

_ALL_ALONG = (EventKind.NEVER_STARTED, EventKind.FROZEN)


def update_events(stacked: Sequence[Stack], story: RunStory) -> Iterator[RunEvent]:
    """One event for each window, with all layers whose statistics stay in it while their weights change.

    Where neither statistics nor weights change, the layer is frozen on purpose, and nothing is told.
    """
    windows: dict[tuple[EventKind, int, int], list[str]] = {}
    for stack in stacked:
        for kind, first, last in _still(stack):
            windows.setdefault((kind, first, last), []).append(stack.layer.name)
    for (kind, first, last), layers in sorted(windows.items(), key=lambda item: item[0][1:]):
        of = f"{len(layers):,} of {many(len(stacked), 'layer')}"
        message = _message(kind, (first, last), of, story, one=len(layers) == 1)
        minor = kind is EventKind.PAUSED and first > 0
        yield RunEvent(
            kind=kind,
            severity=Severity.INFO if minor else Severity.WARNING,
            message=message,
            after=None if kind in _ALL_ALONG else first,
            by=min(first + 1, last),
            layers=tuple(layers),
        )


def stopped_at(events: Sequence[RunEvent]) -> int | None:
    """Place of the last checkpoint for which all statistics were still updated; None where updates never stopped."""
    ends = [e.after or 0 for e in events if e.kind in (EventKind.STOPPED, *_ALL_ALONG)]
    return min(ends, default=None)


def _still(stack: Stack) -> Iterator[tuple[EventKind, int, int]]:
    """(kind, first, last): the checkpoints `first` to `last` have the same statistics, and other weights."""
    updated, trained = stack.updated, stack.trained
    count = len(updated)
    places = np.flatnonzero(updated)
    if not places.size:
        if trained.any():
            yield EventKind.FROZEN if stack.layer.moved else EventKind.NEVER_STARTED, 0, count
        return
    end = int(places[-1]) + 1
    if trained[end:].any():
        yield EventKind.STOPPED, end, count
    starts = [-1, *places.tolist()]
    for before, after in pairwise(starts):
        first, last = before + 1, after
        if last - first >= SHORTEST_PAUSE and trained[first:last].all():
            yield EventKind.PAUSED, first, last


def _message(kind: EventKind, window: tuple[int, int], of: str, story: RunStory, *, one: bool) -> str:
    first, last = window
    since = f"from {story.at(first)} to {story.at(last)}"
    have, do = ("has", "does") if one else ("have", "do")
    return {
        EventKind.NEVER_STARTED: (
            f"The statistics of {of} are the initial ones in all {many(last + 1, 'checkpoint')}, {since}, while the "
            "weights change: no update ever ran."
        ),
        EventKind.FROZEN: (
            f"The statistics of {of} stay the same in all {many(last + 1, 'checkpoint')}, {since}, while the weights "
            "change: they are frozen, which a fine-tune may want, or their updates are forgotten."
        ),
        EventKind.STOPPED: (
            f"Updates stop at {story.at(first)}: to {story.at(last)} the statistics of {of} {do} not change any more, "
            "while the weights do. What was trained since then is normalised with statistics of older weights."
        ),
        EventKind.PAUSED: (
            f"Updates pause {since}: the statistics of {of} {have} not changed between them, while the weights have."
        ),
    }[kind]
