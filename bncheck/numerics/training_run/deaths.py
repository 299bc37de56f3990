"""In which window a channel died: from then on its moving variance shrinks by the decay alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Layer, Role
from bncheck.facts.training_run import EventKind, RunEvent, RunStory
from bncheck.facts.wording import listing, many
from bncheck.numerics.channels import dead_in
from bncheck.numerics.init_share import decay_of, updates_a_step
from bncheck.numerics.side_by_side import SideBySide
from bncheck.numerics.training_run.stacks import Stack

EXACT = 1e-2
"""Relative deviation from decay ** updates within which nothing but the decay worked; a guess, for counters lag."""
CHANNELS_NAMED = 6

Dead = NDArray[np.bool_]


def dead_over_time(stack: Stack) -> Dead:
    """(checkpoints, channels): which channels carry no signal, as BN107 tells it of one checkpoint."""
    if stack.layer.variance.moved is False:
        return np.zeros(stack.variance.shape, bool)
    rows, channels = stack.variance.shape
    side = SideBySide([channels] * rows)
    return dead_in(stack.variance.reshape(-1), [stack.layer.epsilon] * rows, side).reshape(rows, channels)


def death_events(stacked: Sequence[Stack], story: RunStory, updates: Sequence[int | None]) -> Iterator[RunEvent]:
    """One event for each window, with all channels that died in it and stay dead to the end.

    `updates` are those of each checkpoint. The window is told by the decay where that and the updates are known: the
    statistic is `decay ** n` times its former self from the first checkpoint on after which nothing arrived. Else it is
    the one in which the variance fell below what counts as dead.
    """
    windows: dict[tuple[int, int, bool], dict[str, list[int]]] = {}
    for stack in stacked:
        gone = dead_over_time(stack)
        for channel in np.flatnonzero(gone[-1]).tolist():
            alive = np.flatnonzero(~gone[:, channel])
            if not alive.size:
                continue  # in the first checkpoint already: no window
            crossed = int(alive[-1]) + 1
            died = _began(stack.variance[:, channel], crossed, _factors(stack.layer, updates))
            by, told = (crossed, False) if died is None else (died, True)
            if by > 0:
                windows.setdefault((by - 1, by, told), {}).setdefault(stack.layer.name, []).append(channel)
    sizes = {stack.layer.name: stack.variance.shape[1] for stack in stacked}
    for (after, by, told), layers in sorted(windows.items()):
        yield RunEvent(
            kind=EventKind.DIED,
            severity=Severity.WARNING,
            message=_message(after, by, layers, sizes, story, told=told),
            after=after,
            by=by,
            layers=tuple(layers),
        )


def _factors(layer: Layer, updates: Sequence[int | None]) -> list[float | None]:
    """By what a variance shrinks from one checkpoint to the next if nothing arrives."""
    decay = decay_of(layer, Role.VARIANCE)
    if decay is None or any(update.decay_rises for update in layer.updates):
        return [None] * (len(updates) - 1)
    runs = updates_a_step(layer)
    return [None if a is None or b is None or b <= a else decay ** ((b - a) * runs) for a, b in pairwise(updates)]


def _began(variance: NDArray[np.float64], crossed: int, factors: Sequence[float | None]) -> int | None:
    """The checkpoint by which nothing arrived any more; None where the decay does not tell."""
    place = crossed
    while place > 0:
        factor, before = factors[place - 1], float(variance[place - 1])
        if factor is None or before <= 0 or abs(float(variance[place]) / before / factor - 1) > EXACT:
            break
        place -= 1
    return place if place < crossed else None


def _message(
    after: int, by: int, layers: dict[str, list[int]], sizes: dict[str, int], story: RunStory, *, told: bool
) -> str:
    told_layers = [
        f"{len(channels)} of {sizes[name]} in {name} ({_numbers(channels)})" for name, channels in layers.items()
    ]
    count = sum(map(len, layers.values()))
    how = (
        "since then the moving variance has shrunk by the decay alone, so nothing arrives"
        if told
        else "the moving variance has fallen to nothing"
    )
    dies = "dies" if count == 1 else "die"
    return (
        f"{many(count, 'channel')} {dies} between {story.at(after)} and {story.at(by)}: {listing(told_layers)}; {how}."
    )


def _numbers(channels: list[int]) -> str:
    return ("channel " if len(channels) == 1 else "channels ") + listing([str(c) for c in channels], CHANNELS_NAMED)
