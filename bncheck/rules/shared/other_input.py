"""Whether data are of another range than those that the statistics of a repaired copy are of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncheck.facts.layers import Facts

if TYPE_CHECKING:
    from bncheck.facts.inputs import InputSummary

RANGE = 1.5
"""Factor of the input from which it is another range: no two usual ones are nearer than 2, and other images of the same
range differ by less; a guess."""
SHIFT = 1.0
"""Deviations of the input by which its mean may differ: between 0..1 and -1..1 photographs differ by about 1.5, and by
a third of one among themselves; a guess."""
FEWEST = 8
"""Different samples below which a mean may be far off by accident: a guess."""


def other_input(model: Facts) -> tuple[str, str, float, float] | None:
    """(a sentence, what was measured, its value, its limit) where a copy was repaired for other input; else None.

    Only a provenance file that fits the statistics is heard.
    """
    repaired, comparison = model.repaired, model.comparison
    if repaired is None or not repaired.confirmed or repaired.input is None or comparison is None:
        return None
    made, seen = repaired.input, comparison.seen
    if seen is None or seen.distinct < FEWEST or not (made.deviation > 0 and seen.deviation > 0):
        return None
    factor, shift = seen.deviation / made.deviation, abs(seen.mean - made.mean) / made.deviation
    if abs(math.log(factor)) <= math.log(RANGE) and shift <= SHIFT:
        return None
    told = (
        f"According to {repaired.file}, this copy was repaired with input {_told(made)}; these data lie {_told(seen)}."
    )
    if abs(math.log(factor)) > math.log(RANGE):
        return told, "deviation of the input over that of the repair", factor, RANGE
    return told, "shift of the input's mean, in deviations", shift, SHIFT


def _told(seen: InputSummary) -> str:
    return f"between {seen.low:.4g} and {seen.high:.4g} (mean {seen.mean:.3g}, deviation {seen.deviation:.3g})"
