"""How settled an estimate is, by what two disjoint halves of its samples make of it (METRICS, "split halves")."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bncheck.numerics.channels import median
from bncheck.numerics.moments import Moments

SURE = 1.5
"""Standard errors that are added: 93 % of the time the loss is less. Two halves of 16 digits that named one of them
otherwise are not settled then, of 32 they are: repaired from as many, 94.2 and 96.1 % against 97.8 % from all."""


def expected_loss(loss: float, samples: int) -> float:
    """Accuracy (0 to 1) that the estimate from all the data may cost against one from any number of samples.

    `loss` is what one half's model costs in the place of the other's (`metrics.lost_confidence` a sample). Each half's
    statistics are off by `sqrt(2)` times what those of the whole are, independently of the other's, so the halves
    differ by twice what the whole is off by. Standard errors of what was seen in `samples` are added, so that few
    samples do not look settled by luck.
    """
    error = math.sqrt(max(loss, 1.0 / max(samples, 1)) / max(samples, 1))
    return min((loss + SURE * error) / 2, 1.0)


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
