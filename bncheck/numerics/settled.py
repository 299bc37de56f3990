"""How settled an estimate is, by what two disjoint halves of its samples make of it (METRICS, "split halves")."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from bncheck.numerics.channels import median
from bncheck.numerics.moments import Moments

SURE = 1.5
"""Standard errors that are added: 93 % of the time the loss is less."""


def expected_loss(loss: float, error: float, *, samples: int, splits: int) -> float:
    """Accuracy (0 to 1) that the estimate from all the data may cost against one from any number of samples.

    `loss` is what one half's model costs in the place of the other's (mean of `metrics.lost_confidence`), `error` its
    standard error, over `splits` ways to cut `samples`. Each half's statistics are off by `sqrt(2)` times what those of
    the whole are, independently of the other's, so the halves differ by twice what the whole is off by. Measured on
    repairs from 32, 64 and 128 photographs: they lost 4.9, 2.4 and 1.0 points, and their halves 11.0, 4.4 and 1.9 (13,
    43 and 21 draws). But digits from 32, 48 and 64 lost 2.5, 1.9 and 1.2, and their halves 2.5, 1.1 and 0.5 (5 draws);
    and one draw loses up to four times the mean, which the halves do not tell (correlation 0.2, 0.1 and -0.2 over the
    draws of photographs): what they differ by is independent of what their mean is off by. So the loss is not halved.

    The error is at least that of one answer more in `samples * splits`, so that few samples do not look settled by
    luck.
    """
    answers = max(samples, 1)
    least = math.sqrt(1 / (answers * max(splits, 1)) / answers)
    return min(loss + SURE * max(error, least), 1.0)


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
