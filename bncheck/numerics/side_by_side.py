"""Channels of many layers in one flat array, layer after layer: one operation of numpy works on all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.arrays import PerChannel

Flags = NDArray[np.bool_]


class SideBySide:
    """Where each layer begins in arrays of (channels of all layers,)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes` are the layers' channels, at least one each."""
        self._sizes = np.array(sizes, np.intp)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def spread(self, numbers: Iterable[float] | PerChannel) -> PerChannel:
        """A number of each layer, for all of its channels."""
        found: PerChannel = np.repeat(np.asarray(list(numbers), np.float64), self._sizes)
        return found

    def parts(self, values: PerChannel) -> list[PerChannel]:
        """The values of each layer by themselves."""
        return [values[start : start + size] for start, size in zip(self._starts, self._sizes, strict=True)]

    def medians(self, values: PerChannel, where: Flags | None = None) -> PerChannel:
        """Median of each layer's values, or of those there, (layers,), as of at least one number; NaN where none is.

        Layers of one size are sorted together.
        """
        counts = self._sizes if where is None else np.add.reduceat(where, self._starts, dtype=np.intp)
        shown = values if where is None else np.where(where, values, np.inf)
        found: PerChannel = np.empty(self._sizes.size)
        for here, places in self._of_one_size:
            ordered = np.sort(shown[places], axis=1)
            rows, count = np.arange(here.size), counts[here]
            low = ordered[rows, np.maximum((count - 1) // 2, 0)]
            high = ordered[rows, np.minimum(count // 2, places.shape[1] - 1)]
            found[here] = np.where(low == high, low, 0.5 * low + 0.5 * high)
        return np.where(counts > 0, found, np.nan)

    @cached_property
    def _of_one_size(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """(layers of one size, (layers, size) where their channels are), for each size."""
        order = np.argsort(self._sizes, kind="stable")
        ends = np.flatnonzero(np.diff(self._sizes[order])) + 1
        return [
            (here, self._starts[here, None] + np.arange(self._sizes[here[0]]))
            for here in np.split(order, ends.tolist())
        ]

    def totals(self, values: PerChannel | Flags) -> PerChannel:
        """Sum of each layer, (layers,)."""
        found: PerChannel = np.add.reduceat(values, self._starts, dtype=np.float64)
        return found

    def largest(self, values: PerChannel) -> PerChannel:
        """Largest value of each layer, (layers,); NaN where one is."""
        found: PerChannel = np.maximum.reduceat(values, self._starts)
        return found

    def smallest(self, values: PerChannel) -> PerChannel:
        """Smallest value of each layer, (layers,); NaN where one is."""
        found: PerChannel = np.minimum.reduceat(values, self._starts)
        return found
