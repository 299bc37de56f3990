"""Folded channel ranges: what batch norm does to the weights of the layer before it, once folded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.record import Record
from bncheck.numerics.channels import dead_channels, median
from bncheck.numerics.fold import fold_scales
from bncheck.numerics.side_by_side import SideBySide

BITS = 8
"""Width of the weights that TFLite's integer schemes use."""


class FoldedRanges(Record, eq=False):
    """Per output channel of one layer, the largest folded weight."""

    layer: Layer
    ranges: PerChannel
    """max |w| * |gamma| / sqrt(variance + epsilon), or without the kernel the fold scale alone."""
    dead: NDArray[np.bool_]
    with_kernel: bool

    @cached_property
    def alive(self) -> PerChannel:
        """Ranges of living channels that are not zero."""
        return self.ranges[~self.dead & (self.ranges > 0)]

    @cached_property
    def alive_spread(self) -> float:
        """Largest over median of the living channels; 0 where there is none."""
        alive = self.alive
        with np.errstate(over="ignore"):
            return float(alive.max() / median(alive)) if alive.size else 0.0

    @cached_property
    def dead_ratio(self) -> float:
        """Largest range of a dead channel over the median of the living; 0 where there is none of either."""
        if not self.dead.any():
            return 0.0
        largest = np.max(self.ranges[self.dead], initial=0.0)
        with np.errstate(over="ignore"):
            return float(largest / median(self.alive)) if self.alive.size else 0.0


def folded_ranges(layer: Layer) -> FoldedRanges | None:
    """None where gamma, variance or epsilon are unread, or the variance is not a number above -epsilon."""
    return folded_ranges_of([layer])[0]


def folded_ranges_of(layers: Sequence[Layer]) -> list[FoldedRanges | None]:
    """`folded_ranges` of each layer, all of them at once."""
    scales = fold_scales(layers)
    known = [(layer, scale) for layer, scale in zip(layers, scales, strict=True) if scale is not None]
    if not known:
        return [None] * len(layers)
    side = SideBySide([scale.size for _, scale in known])
    kernels = [_kernel(layer, scale) for layer, scale in known]
    largest = np.concatenate(
        [
            np.full(scale.size, np.nan) if kernel is None else kernel.reshape(-1)
            for kernel, (_, scale) in zip(kernels, known, strict=True)
        ]
    )
    fits = np.isfinite(side.largest(largest))
    with np.errstate(over="ignore", invalid="ignore"):  # an infinite scale, of a weight that is 0
        every = np.concatenate([scale.reshape(-1) for _, scale in known]) * np.where(
            side.spread(fits) > 0, largest, 1.0
        )
    finite = np.isfinite(side.largest(every))
    made = (
        FoldedRanges(
            layer=layer, ranges=ranges.reshape(scale.shape), dead=dead_channels(layer), with_kernel=with_kernel
        )
        if is_finite
        else None
        for (layer, scale), ranges, with_kernel, is_finite in zip(
            known, side.parts(every), fits.tolist(), finite.tolist(), strict=True
        )
    )
    return [None if scale is None else next(made) for scale in scales]


def alive_spreads(known: Sequence[FoldedRanges]) -> list[float]:
    """`FoldedRanges.alive_spread` of each layer, all of them at once."""
    if not known:
        return []
    side = SideBySide([one.ranges.size for one in known])
    ranges = np.concatenate([one.ranges.reshape(-1) for one in known])
    alive = ~np.concatenate([one.dead.reshape(-1) for one in known]) & (ranges > 0)
    with np.errstate(over="ignore", invalid="ignore"):
        spreads = side.largest(np.where(alive, ranges, 0.0)) / side.medians(ranges, alive)
    for one, spread in zip(known, np.where(np.isnan(spreads), 0.0, spreads).tolist(), strict=True):
        one.__dict__["alive_spread"] = spread  # as the cached property would find them, one by one
    return [one.alive_spread for one in known]


def _kernel(layer: Layer, scale: PerChannel) -> PerChannel | None:
    """Largest weight a channel of the kernel before the layer; None where it does not fit."""
    kernel = None if layer.linear is None else layer.linear.channel_max
    return kernel if kernel is not None and kernel.shape == scale.shape else None


def levels(spread: float, bits: int = BITS) -> float:
    """Levels of one sign that a channel keeps whose range is 1 / spread (at least 1) of the largest: 2**(bits - 1) /
    spread.
    """
    return float(2 ** (bits - 1) / spread)


def range_spread(ranges: PerChannel) -> float:
    """Largest over median of the finite ranges above zero (METRICS, "folded range spread"); 0 where there is none."""
    used = ranges[np.isfinite(ranges) & (ranges > 0)]
    with np.errstate(over="ignore"):
        return float(used.max() / median(used)) if used.size else 0.0
