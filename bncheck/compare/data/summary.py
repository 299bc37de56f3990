"""Sums up samples as they come: range, mean, deviation, and whether neighbouring pixels have to do with each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.inputs import InputSummary, lies_in
from bncheck.numerics.moments import Moments, merge_known, of

_SIDE = 16
"""Pixels a side from which samples of three axes are images, whose neighbours are worth a look."""


@dataclass(kw_only=True, eq=False)
class InputTotals:
    """What is kept between batches."""

    moments: Moments | None = None
    low: float = np.inf
    high: float = -np.inf
    samples: int = 0
    seen: set[bytes] = field(default_factory=set)
    products: float = 0.0
    """Sum over neighbours of the product of their deviations from their sample's own mean."""
    squares: float = 0.0

    def add(self, batch: NDArray[Any]) -> None:
        """One batch (samples, ...); of several inputs the first is looked at."""
        names = batch.dtype.names
        values = np.asarray(batch if names is None else batch[names[0]])
        self.samples += len(values)
        self.seen.update(hashlib.blake2b(np.ascontiguousarray(one).tobytes(), digest_size=8).digest() for one in batch)
        numbers = np.asarray(values, np.float64)
        self.moments = merge_known(self.moments, of(numbers.reshape(-1, 1)))
        self.low = min(self.low, float(numbers.min(initial=np.inf)))
        self.high = max(self.high, float(numbers.max(initial=-np.inf)))
        if numbers.ndim == 4 and min(sorted(numbers.shape[1:])[1:]) >= _SIDE:
            self._add_neighbours(numbers)

    def merge(self, other: InputTotals) -> None:
        """Adds what other batches told."""
        self.moments = merge_known(self.moments, other.moments)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.samples += other.samples
        self.seen |= other.seen
        self.products += other.products
        self.squares += other.squares

    def _add_neighbours(self, images: NDArray[np.float64]) -> None:
        channels = int(np.argmin(images.shape[1:])) + 1
        pixels = np.moveaxis(images, channels, -1)
        pixels = pixels - pixels.mean(axis=(1, 2), keepdims=True)
        for a, b in ((pixels[:, 1:], pixels[:, :-1]), (pixels[:, :, 1:], pixels[:, :, :-1])):
            self.products += float(np.sum(a * b))
            self.squares += float(np.sqrt(np.sum(a * a) * np.sum(b * b)))

    def summary(self, *, declared: str | None = None) -> InputSummary:
        """Of all batches so far, at least one; `declared` is the range that the user says is theirs."""
        assert self.moments is not None
        return InputSummary(
            samples=self.samples,
            distinct=len(self.seen),
            low=self.low,
            high=self.high,
            mean=float(self.moments.mean[0]),
            deviation=float(np.sqrt(self.moments.variance[0])),
            neighbours=self.products / self.squares if self.squares > 0 else None,
            declared=None if declared is None else lies_in(self.low, self.high, declared),
        )
