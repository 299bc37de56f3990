"""Checkpoints between which statistics moved far more than before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from bncheck.facts.findings import Severity
from bncheck.facts.training_run import EventKind, RunEvent, RunStory
from bncheck.facts.wording import many
from bncheck.numerics.channels import median, medians_of_rows
from bncheck.numerics.init_share import epsilon_of
from bncheck.numerics.training_run.stacks import Stack

LEAST = math.log(4)
"""Change of the median channel's variance, as a logarithm, below which nothing is called a jump; a guess."""
STANDS_OUT = 8.0
"""Times the usual change of the neighbouring checkpoints; a guess."""
AROUND = 8
"""Pairs to either side that say what is usual."""
FEWEST = 4
"""Such pairs that are needed."""


def jump_events(stacked: Sequence[Stack], story: RunStory, *, settled: int) -> Iterator[RunEvent]:
    """One event for each pair of neighbours from place `settled` on, with all layers that jump between them."""
    found: dict[int, list[tuple[float, str]]] = {}
    for stack in stacked:
        with np.errstate(invalid="ignore", divide="ignore"):
            steps = np.diff(np.log(np.maximum(stack.variance, 0.0) + epsilon_of(stack.layer)), axis=0)
        changes = medians_of_rows(np.abs(steps)).tolist()
        for place in range(settled, len(changes)):
            if not changes[place] > LEAST:
                continue
            usual = [c for c in _around(changes, place, settled) if math.isfinite(c)]
            if len(usual) < FEWEST or not math.isfinite(changes[place]):
                continue
            if changes[place] > STANDS_OUT * median(np.array(usual)):
                found.setdefault(place, []).append((median(steps[place]), stack.layer.name))
    for place, layers in sorted(found.items()):
        largest, name = max(layers, key=lambda one: abs(one[0]))
        yield RunEvent(
            kind=EventKind.JUMPED,
            severity=Severity.WARNING,
            message=(
                f"The statistics of {many(len(layers), 'layer')} jump between {story.at(place)} and "
                f"{story.at(place + 1)}: the median variance of {name} is {math.exp(largest):.3g} times what it was."
            ),
            after=place,
            by=place + 1,
            layers=tuple(name for _, name in layers),
        )


def _around(changes: Sequence[float], place: int, settled: int) -> list[float]:
    return [*changes[max(settled, place - AROUND) : place], *changes[place + 1 : place + 1 + AROUND]]
