"""What the watchers of both frameworks share: statistics as they were, whether they moved, and the init share."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.wording import listing
from bncheck.numerics.init_share import HARMLESS

FIRST_STEPS = 20
"""Steps after which statistics that stand still are no accident."""
SHARE = HARMLESS
"""Init share that the watchers tell the number of updates for."""
LOG = logging.getLogger("bncheck.guard")
NAMED = 5
"""Layers that a message names."""
Values: TypeAlias = Mapping[str, tuple[NDArray[Any], ...]]
"""Layer -> its statistics as they are now."""


class StatisticsNotMoving(BncheckError):
    """Training ran, and statistics of batch norm did not move; `layers` names them."""

    def __init__(self, layers: Sequence[str], steps: int, total: int, fix: str) -> None:
        self.layers = tuple(layers)
        self.steps = steps
        super().__init__(
            f"after {steps:,} steps the moving mean and variance of {len(layers)} of {total} batch norm layers have "
            f"not moved: {listing(layers, NAMED)}. With is_training=False, and once quantized, these layers normalise "
            f"with what they started with.\n{fix}"
        )


def updates_until(share: float, decay: float) -> int:
    """The number of updates after which less than `share` (0 to 1) of the initial value is left: decay**n < share.

    Raises UsageError for a share or decay out of that range.
    """
    if not 0 < share < 1 or not 0 <= decay < 1:
        raise UsageError(f"share {share} and decay {decay} must lie between 0 and 1")
    return 1 if decay == 0 else math.floor(math.log(share) / math.log(decay)) + 1


@dataclass(kw_only=True)
class Watch:
    """Statistics as they were, and whether they moved."""

    first_steps: int
    share: float
    start: dict[str, tuple[NDArray[Any], ...]] = field(default_factory=dict)
    done: bool = False

    def begin(self, values: Values) -> None:
        """Remembers layers that were not there before."""
        for layer, statistics in values.items():
            self.start.setdefault(layer, statistics)

    def check(self, values: Values, steps: int, fix: str) -> None:
        """Raises StatisticsNotMoving where a layer's statistics are bit for bit what they were."""
        self.done = True
        still = [
            layer
            for layer, before in self.start.items()
            if layer in values
            and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(before, values[layer], strict=True))
        ]
        if still:
            raise StatisticsNotMoving(still, steps, len(self.start), fix)


def check_first_steps(first_steps: int) -> int:
    """The number itself. Raises UsageError below 1."""
    if first_steps < 1:
        raise UsageError(f"first_steps is {first_steps}: it must be 1 or more")
    return first_steps


def tell_share(decays: Iterable[float], share: float, total: int | None) -> None:
    """Logs after how many updates the init share is below `share`; warns where the run is known to be shorter."""
    known = [decay for decay in decays if 0 <= decay < 1]
    if not known:
        return
    slowest = max(known)
    needed = updates_until(share, slowest)
    LOG.info(
        "with decay %g less than %g %% of the initial statistics is left after %d updates", slowest, 100 * share, needed
    )
    if total is not None and total < needed:
        warnings.warn(
            f"with decay {slowest:g} batch norm's statistics need {needed:,} updates until less than {share:.0%} of "
            f"their initial values is left, and this run has {total:,}: {slowest**total:.1%} will be left. Lower the "
            "decay (momentum) or train longer",
            stacklevel=3,
        )
