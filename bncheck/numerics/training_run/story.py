"""Reports of a run's checkpoints -> its story."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from os.path import commonpath
from pathlib import PurePath
from typing import TypeVar

import numpy as np

from bncheck.facts.findings import KERNELS, Report, Severity, Verdict
from bncheck.facts.layers import Role
from bncheck.facts.training_run import CauseWindow, EventKind, RunEvent, RunStory
from bncheck.facts.wording import listing, many, percent
from bncheck.numerics.init_share import HARMLESS, InitShare, decay_of, init_shares, updates_a_step
from bncheck.numerics.training_run.deaths import dead_over_time, death_events
from bncheck.numerics.training_run.jumps import jump_events
from bncheck.numerics.training_run.stacks import Stack, stacks
from bncheck.numerics.training_run.updates import stopped_at, update_events

UPDATED, SHARE, DEAD = "layers updated", "init share", "dead channels"
"""Titles of the series."""

_T = TypeVar("_T")


def run_stories(reports: Sequence[Report]) -> tuple[RunStory, ...]:
    """One story for each run among the reports, which stand run by run, each in the order of its steps."""
    return tuple(tell(list(group)) for run, group in groupby(reports, key=lambda r: r.run) if run is not None)


def tell(reports: Sequence[Report]) -> RunStory:
    """The story of one run's checkpoints, in the order of their steps. Those that could not be read are left aside."""
    folder = PurePath(reports[0].run or commonpath([str(PurePath(report.target.path).parent) for report in reports]))
    story = RunStory(
        path=str(folder),
        names=tuple(_below(PurePath(report.target.path), folder) for report in reports),
        steps=tuple(report.target.step for report in reports),
        layers=max(len(report.layers) for report in reports),
    )
    places = [n for n, report in enumerate(reports) if not report.unreadable and report.layers]
    known = [reports[n] for n in places]
    # what is told of the readable ones by their places among themselves is said of all by `places`
    readable = replace(story, names=_of(story.names, places), steps=_of(story.steps, places))
    stacked = stacks(known)
    shares = _shares(known)
    events = list(_events(stacked, readable, known, shares))
    stop = stopped_at(events)
    if stop is not None:  # it stays as it was where updates stopped
        shares = [*shares[: stop + 1], *shares[stop : stop + 1] * (len(shares) - stop - 1)]
    series = {
        UPDATED: (None, *_updated(stacked)),
        SHARE: tuple(None if found is None else found.share for found in shares),
        DEAD: _dead(stacked, len(known)),
    }
    good = [n for n, report in enumerate(known) if _good(report) and (stop is None or n <= stop)]
    return replace(
        story,
        events=tuple(_placed(event, places) for event in events),
        causes=_causes(reports),
        outlook=_outlook(readable, known, shares, stop),
        series={
            title: _spread(values, places, len(reports)) for title, values in series.items() if _worth_showing(values)
        },
        without_kernels=sum(any(entry.what == KERNELS for entry in report.not_checked) for report in reports),
        first_good=places[good[0]] if good else None,
        last_good=places[good[-1]] if good else None,
        why_none="" if good else _why_none(reports, stop),
    )


def _below(path: PurePath, folder: PurePath) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _of(values: tuple[_T, ...], places: Sequence[int]) -> tuple[_T, ...]:
    return tuple(values[n] for n in places)


def _events(
    stacked: Sequence[Stack], story: RunStory, known: Sequence[Report], shares: Sequence[InitShare | None]
) -> Iterator[RunEvent]:
    names = {frozenset(layer.name for layer in report.layers) for report in known}
    if len(names) > 1:
        yield RunEvent(
            kind=EventKind.OTHER_LAYERS,
            severity=Severity.INFO,
            message=f"The checkpoints do not all hold the same layers: {many(len(stacked), 'layer')} that all of them "
            "hold were held against each other.",
        )
    if not stacked:
        return
    updates = [report.target.updates for report in known]
    yield from update_events(stacked, story)
    yield from death_events(stacked, story, updates)
    settled = next((n for n, found in enumerate(shares) if found is None or found.share < HARMLESS), len(known))
    yield from jump_events(stacked, story, settled=settled)


def _shares(known: Sequence[Report]) -> list[InitShare | None]:
    """The largest of each checkpoint, as the counters have it; None unknown."""
    found: list[InitShare | None] = []
    for report in known:
        moving = [layer for layer in report.layers if layer.moved is not False]
        found.append(max(init_shares(moving, report.target.updates), key=lambda one: one.share, default=None))
    return found


def _updated(stacked: Sequence[Stack]) -> tuple[float | None, ...]:
    """Share of the layers whose statistics changed since the checkpoint before."""
    if not stacked:
        return ()
    return tuple(np.mean([stack.updated for stack in stacked], axis=0).tolist())


def _dead(stacked: Sequence[Stack], count: int) -> tuple[float | None, ...]:
    if not stacked:
        return (None,) * count
    return tuple(np.sum([dead_over_time(stack).sum(axis=1) for stack in stacked], axis=0).astype(float).tolist())


def _worth_showing(values: Sequence[float | None]) -> bool:
    known = [value for value in values if value is not None]
    return len(known) > 1 and any(known)


def _spread(values: Sequence[float | None], places: Sequence[int], count: int) -> tuple[float | None, ...]:
    found: list[float | None] = [None] * count
    for place, value in zip(places, values, strict=False):
        found[place] = value
    return tuple(found)


def _placed(event: RunEvent, places: Sequence[int]) -> RunEvent:
    return replace(
        event,
        after=None if event.after is None else places[event.after],
        by=None if event.by is None else places[event.by],
    )


def _good(report: Report) -> bool:
    objected = any(finding.severity is not Severity.INFO for finding in report.findings)
    return report.verdict is Verdict.PASS and not objected


def _causes(reports: Sequence[Report]) -> tuple[CauseWindow, ...]:
    """Each cause once, in the order in which they came up; notes and what another finding explains are left out."""
    seen: dict[str, list[int]] = {}
    told = {}
    for n, report in enumerate(reports):
        for finding in report.findings:
            if finding.severity is Severity.INFO or finding.caused_by is not None:
                continue
            told[finding.code] = finding
            if not seen.get(finding.code) or seen[finding.code][-1] != n:
                seen.setdefault(finding.code, []).append(n)
    unread = {n for n, report in enumerate(reports) if report.unreadable}
    return tuple(
        CauseWindow(
            code=code, slug=told[code].slug, severity=told[code].severity, spans=tuple(_stretches(places, unread))
        )
        for code, places in seen.items()
    )


def _stretches(places: Sequence[int], unread: set[int]) -> Iterator[tuple[int, int]]:
    first = last = places[0]
    for place in places[1:]:
        if set(range(last + 1, place)) <= unread:
            last = place
            continue
        yield first, last
        first = last = place
    yield first, last


def _outlook(story: RunStory, known: Sequence[Report], shares: Sequence[InitShare | None], stop: int | None) -> str:
    found = shares[-1] if shares else None
    if found is None or stop == 0:
        return ""
    if stop is not None and found.share >= HARMLESS:
        return f"The init share stays at {percent(found.share)}, where the updates left it at {story.at(stop)}."
    if found.share < HARMLESS:
        first = next(n for n, one in enumerate(shares) if one is not None and one.share < HARMLESS)
        since = f"since {story.at(first)}" if first else f"in all checkpoints, from {story.at(0)} on"
        return f"The init share is under {HARMLESS * 100:.0f} % {since}."
    return _still_to_go(found, known[-1].target.updates)


def _still_to_go(found: InitShare, updates: int | None) -> str:
    decay, runs = decay_of(found.layer, Role.VARIANCE), updates_a_step(found.layer)
    if updates is None or decay is None or not 0 < decay < 1:
        return ""
    needed = math.ceil(math.log(HARMLESS) / math.log(decay) / runs)
    return (
        f"The init share is {percent(found.share)} in the last checkpoint; with decay {decay:g} it falls under "
        f"{HARMLESS * 100:.0f} % after {many(needed, 'update')}, {max(needed - updates, 1):,} more than there were."
    )


def _why_none(reports: Sequence[Report], stop: int | None) -> str:
    codes = dict.fromkeys(f.code for r in reports for f in r.findings if f.severity is not Severity.INFO)
    if codes:
        return f"each has {listing(list(codes))} or ends inconclusive"
    return "the updates had stopped" if stop is not None else "none could be judged"
