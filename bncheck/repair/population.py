"""Statistics of a population: moments of every layer's input over data, with batch statistics in all layers at once.

Each layer normalises with its batch ("BN-only train mode": dropout off, no update runs), so that every layer sees what
it saw in training, however wrong the stored statistics of the layers before it are. The same as PreciseBN does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import UsageError
from bncheck.numerics.moments import Moments, from_batch, merge, merge_all

TOLERANCE = 1e-3
"""Change per batch below which a layer has converged: of its means in standard deviations, of its log variances."""
PATIENCE = 5
"""Batches in a row for which that must hold for every layer."""

Batch = tuple[NDArray[Any], "NDArray[Any] | None"]
"""Samples (count, ...) and labels, which are not looked at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledMoments:
    """What one batch tells of every site, in one order."""

    samples: Sequence[int]
    """Elements per channel."""
    means: Sequence[NDArray[np.float64]]
    variances: Sequence[NDArray[np.float64]]
    """Biased."""


Run = tuple[PooledMoments, int]
"""What one batch tells, and its samples."""


class TrainMode(Protocol):
    """A model that normalises with batch statistics."""

    layers: Sequence[str]
    """The layer of each site; a layer with several sites stands there several times."""

    def run(self, batch: NDArray[Any]) -> PooledMoments:
        """Moments of every site's input for one batch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Population:
    """Moments of each layer over all batches; those of its sites are pooled."""

    moments: Mapping[str, Moments]
    samples: int
    batches: int
    converged: bool
    """Whether it stopped, or could have, because nothing changed any more."""
    change: float
    """The largest change that the last batch made (see TOLERANCE)."""
    halves: tuple[Mapping[str, Moments], Mapping[str, Moments]] | None = None
    """The same of every other batch, and of the batches between; None of a single batch."""


@dataclass(kw_only=True, eq=False)
class _Progress:
    """What is kept between batches: no more than moments."""

    halves: list[list[Moments]] = field(default_factory=lambda: [[], []])
    """Of each site, of every other batch and of those between."""
    sites: list[Moments] = field(default_factory=list)
    calm: int = 0
    change: float = math.inf


def population(
    model: TrainMode,
    batches: Iterable[Batch],
    *,
    tolerance: float = TOLERANCE,
    patience: int = PATIENCE,
    progress: Callable[[int], None] = lambda _: None,
) -> Population:
    """As `population_of`, of what the batches give in this process. Raises BncheckError where the model refuses one."""
    return population_of(model, run_here(model, batches), tolerance=tolerance, patience=patience, progress=progress)


def run_here(model: TrainMode, batches: Iterable[Batch]) -> Iterator[Run]:
    """What each batch gives."""
    return ((model.run(images), len(images)) for images, _ in batches)


def population_of(
    model: TrainMode,
    runs: Iterable[Run],
    *,
    tolerance: float = TOLERANCE,
    patience: int = PATIENCE,
    progress: Callable[[int], None] = lambda _: None,
) -> Population:
    """Takes batches until the statistics of every layer stand still, or the data end.

    Stands still: for `patience` batches in a row, no layer's statistics moved by more than `tolerance` in root mean
    square over its channels. With tolerance 0 all data are used. Raises UsageError where there are none, or where
    batches are too small for a layer to have a variance.
    """
    state = _Progress()
    samples = count = 0
    for run, size in runs:
        _add(model, state, run, tolerance, half=count % 2)
        count += 1
        samples += size
        progress(samples)
        if state.calm >= patience:
            break
    if not count:
        raise UsageError("the data hold no samples")
    return Population(
        moments=by_layer(model, state.sites),
        halves=(by_layer(model, state.halves[0]), by_layer(model, state.halves[1])) if count > 1 else None,
        samples=samples,
        batches=count,
        converged=state.calm >= patience,
        change=state.change,
    )


def by_layer(model: TrainMode, sites: Sequence[Moments]) -> Mapping[str, Moments]:
    """Moments of each site -> of each layer, those of its sites pooled."""
    by_layer: dict[str, list[Moments]] = {}
    for layer, moments in zip(model.layers, sites, strict=True):
        by_layer.setdefault(layer, []).append(moments)
    return {layer: merge_all(parts) for layer, parts in by_layer.items()}


def of_sites(run: PooledMoments) -> list[Moments]:
    """Moments of each site of one batch."""
    return [from_batch(*part) for part in zip(run.samples, run.means, run.variances, strict=True)]


def _add(model: TrainMode, state: _Progress, run: PooledMoments, tolerance: float, *, half: int) -> None:
    parts = of_sites(run)
    for layer, part in zip(model.layers, parts, strict=True):
        if part.count < 2:
            raise UsageError(
                f"{layer} gets one value per channel from a batch, which has no variance: use a larger --batch-size"
            )
    own = state.halves[half]
    state.halves[half] = [merge(before, part) for before, part in zip(own, parts, strict=True)] if own else parts
    if not state.sites:
        state.sites = parts
        return
    merged = [merge(before, part) for before, part in zip(state.sites, parts, strict=True)]
    state.change = max(_change(before, after) for before, after in zip(state.sites, merged, strict=True))
    state.calm = state.calm + 1 if state.change < tolerance else 0
    state.sites = merged


def _change(before: Moments, after: Moments) -> float:
    """The larger of the changes of mean and variance, as root mean squares over the channels that have any variance."""
    alive = after.variance > np.finfo(np.float32).tiny
    if not np.any(alive):
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = (after.mean - before.mean)[alive] / np.sqrt(after.variance[alive])
        ratio = np.log(after.variance[alive] / before.variance[alive])
    largest = max(float(np.sqrt(np.mean(shift**2))), float(np.sqrt(np.mean(ratio**2))))
    return math.inf if math.isnan(largest) else largest
