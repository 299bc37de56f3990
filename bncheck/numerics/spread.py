"""Many values in few numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bncheck.facts.layers import PerChannel
from bncheck.numerics.channels import finite, median, quantile


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Quantiles of the finite values of a vector, and how many are not finite."""

    smallest: float
    low: float
    """5 % lie below."""
    median: float
    high: float
    """5 % lie above."""
    largest: float
    non_finite: int

    @property
    def farthest(self) -> float:
        """Of the smallest and the largest the one with the larger size."""
        return self.largest if abs(self.largest) >= abs(self.smallest) else self.smallest


def spread(values: PerChannel | None) -> Spread | None:
    """Of a vector with at least one finite value, else None."""
    if values is None:
        return None
    known = np.sort(finite(values))
    if not known.size:
        return None
    return Spread(
        smallest=float(known[0]),
        low=quantile(known, 0.05),
        median=median(known),
        high=quantile(known, 0.95),
        largest=float(known[-1]),
        non_finite=int(values.size - known.size),
    )
