"""One layer over all checkpoints of a run, as arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.findings import Report
from bncheck.facts.layers import Layer, PerChannel
from bncheck.facts.record import Record

Changes = NDArray[np.bool_]
"""For each checkpoint but the first: whether something differs from the one before, bit for bit."""


class Stack(Record, eq=False):
    """A layer that all checkpoints of a run hold with the same number of channels, their values read."""

    layer: Layer
    """As the last checkpoint has it."""
    mean: NDArray[np.float64]
    """(checkpoints, channels)"""
    variance: NDArray[np.float64]
    """(checkpoints, channels)"""
    trained: Changes
    """Whether gamma, beta or the kernel before it changed: training reached the layer."""

    @property
    def updated(self) -> Changes:
        """Whether a statistic changed."""
        return _changes(self.mean) | _changes(self.variance)


def stacks(reports: Sequence[Report]) -> list[Stack]:
    """Those layers of the last report that all others hold too, in its order; at least two reports are needed."""
    if len(reports) < 2:
        return []
    by_name = [{layer.name: layer for layer in report.layers} for report in reports]
    found = []
    for last in reports[-1].layers:
        layers = [known[last.name] for known in by_name if last.name in known]
        if len(layers) < len(reports):
            continue
        mean = _stacked(layers, lambda layer: layer.mean.values)
        variance = _stacked(layers, lambda layer: layer.variance.values)
        if mean is None or variance is None or mean.shape != variance.shape:
            continue
        found.append(Stack(layer=last, mean=mean, variance=variance, trained=_trained(layers)))
    return found


_WEIGHTS: tuple[Callable[[Layer], PerChannel | None], ...] = (
    lambda layer: layer.gamma.values,
    lambda layer: layer.beta.values,
    lambda layer: None if layer.linear is None else layer.linear.channel_rms,
)


def _trained(layers: Sequence[Layer]) -> Changes:
    """Without any weight at hand nothing tells that training went on."""
    changed = np.zeros(len(layers) - 1, bool)
    for of in _WEIGHTS:
        weights = _stacked(layers, of)
        if weights is not None:
            changed |= _changes(weights)
    return changed


def _stacked(layers: Sequence[Layer], of: Callable[[Layer], PerChannel | None]) -> NDArray[np.float64] | None:
    rows = [values for layer in layers if (values := of(layer)) is not None and values.size]
    if len(rows) < len(layers) or len({row.shape for row in rows}) > 1:
        return None
    return np.concatenate(rows).reshape(len(rows), *rows[0].shape)


def _changes(rows: NDArray[np.float64]) -> Changes:
    """Bit for bit, so that a NaN that stays is no change."""
    bits = np.ascontiguousarray(rows).view(np.int64)
    changed: Changes = (bits[1:] != bits[:-1]).any(axis=1)
    return changed
