"""How settled an estimate is, by what two disjoint halves of its samples make of it (METRICS, "split halves")."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bncheck.numerics.channels import median
from bncheck.numerics.moments import Moments


def expected_disagreement(agreement: float, samples: int) -> float:
    """Share of samples on which the estimate from all the data may differ from one of any number, 0 to 1.

    Each half's statistics are off by `sqrt(2)` times what those of the whole are, and the two are off independently,
    so the halves differ by twice what the whole is off by; and disagreement grows as that distance. One standard error
    of the disagreement seen in `samples` is added, so that few samples do not look settled by luck.
    """
    differing = 1.0 - agreement
    error = math.sqrt(max(differing * agreement, 1.0 / max(samples, 1)) / max(samples, 1))
    return min((differing + error) / 2, 1.0)


def expected_error(nmse: float) -> float:
    """The same of an output that is no classes: a quarter of the squared distance between the halves."""
    return nmse / 4


def samples_needed(samples: int, expected: float, limit: float) -> int:
    """How many samples would bring `expected` to `limit`: distances shrink as 1 / sqrt(samples)."""
    return math.ceil(samples * max(1.0, (expected / limit) ** 2))


def noise(one: Mapping[str, Moments], other: Mapping[str, Moments]) -> dict[str, tuple[float, float]]:
    """Layer -> standard error, in the median channel, of its mean in deviations, and of its log variance.

    Half the distance of the halves is one standard error of the whole; the median of a normal variable's size is 0.674
    of its deviation.
    """
    return {layer: _noise(one[layer], other[layer]) for layer in one}


def _noise(a: Moments, b: Moments) -> tuple[float, float]:
    variance = (a.variance + b.variance) / 2
    alive = (a.variance > 0) & (b.variance > 0) & np.isfinite(variance)
    if not np.any(alive):
        return 0.0, 0.0
    shift = np.abs(a.mean - b.mean)[alive] / np.sqrt(variance[alive])
    ratio = np.abs(np.log(a.variance[alive] / b.variance[alive]))
    return tuple(median(part) / 2 / 0.674 for part in (shift, ratio))  # type: ignore[return-value] # two of two
