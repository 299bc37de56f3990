"""The samples of an estimate in two disjoint halves, cut several ways, and the moments that each half makes.

Ways to cut few samples differ: of two halves of 32 crops of photographs the one made 2 % of the answers change and
another 16 %. So few samples are cut often, and many once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BncheckError
from bncheck.numerics.moments import Moments, merge
from bncheck.numerics.settled import noise
from bncheck.repair.population import Batch, Population, TrainMode, by_layer, of_sites

MOST_SPLITS = 8
ANSWERS = 512
"""Samples times splits, beyond which another split tells little: a half point of accuracy is then seen."""
FEW = 256
"""Samples that are cut at will, which takes them all at once; more are cut between batches, in one pass."""
_SEED = 0

Mixed = Callable[[NDArray[np.generic], Mapping[str, Moments]], Mapping[str, Moments]]
"""(samples, their moments) -> the moments that are written for such samples (`few_images.Pictures.mixed`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Two halves of the samples."""

    first: Mapping[str, Moments]
    second: Mapping[str, Moments]
    in_second: NDArray[np.bool_]
    """Of every sample of the estimate, in the order of the data."""


def splits(
    model: TrainMode, batches: Iterable[Batch], estimate: Population, mixed: Mixed | None = None
) -> tuple[Split, ...]:
    """MOST_SPLITS of few samples, one of many; none where a half leaves a layer without a variance.

    Each half is normalised in batches of the size of the data's, or of its own where it is smaller, and `mixed` as all
    samples are. A graph that takes no other batches than its own is cut between them.
    """
    if estimate.samples <= FEW:
        found = _cut(model, gathered(batches, estimate.samples), estimate, mixed)
        if found:
            return found
    if estimate.halves is None:
        return ()
    size = estimate.samples // estimate.batches
    odd = np.arange(estimate.samples) // size % 2 == 1
    return (Split(first=estimate.halves[0], second=estimate.halves[1], in_second=odd),)


def mean_noise(found: Sequence[Split]) -> Mapping[str, tuple[float, float]]:
    """Layer -> `settled.noise`, mean over the splits; empty without any."""
    each = [noise(one.first, one.second) for one in found]
    return {
        layer: (float(np.mean([one[layer][0] for one in each])), float(np.mean([one[layer][1] for one in each])))
        for layer in (each[0] if each else ())
    }


def _cut(
    model: TrainMode, samples: NDArray[np.generic], estimate: Population, mixed: Mixed | None
) -> tuple[Split, ...]:
    total, size = len(samples), estimate.samples // estimate.batches
    random = np.random.default_rng(_SEED)
    found = []
    for _ in range(min(MOST_SPLITS, ANSWERS // total)):
        in_second = np.zeros(total, bool)
        in_second[random.permutation(total)[: total // 2]] = True
        parts = [samples[~in_second], samples[in_second]]
        first, second = (_moments(model, part, size) for part in parts)
        if first is None or second is None:
            return ()
        if mixed is not None:
            first, second = (mixed(part, of) for part, of in zip(parts, (first, second), strict=True))
        found.append(Split(first=first, second=second, in_second=in_second))
    return tuple(found)


def _moments(model: TrainMode, half: NDArray[np.generic], size: int) -> Mapping[str, Moments] | None:
    """None where the half is empty or too small for a variance, or the graph takes no batch of its size."""
    if not len(half):
        return None
    sites: Sequence[Moments] = ()
    try:
        for part in np.array_split(half, -(-len(half) // size)):
            own = of_sites(model.run(part))
            sites = [merge(a, b) for a, b in zip(sites, own, strict=True)] if sites else own
    except BncheckError:
        return None
    return by_layer(model, sites) if all(np.all(part.count > 1) for part in sites) else None


def gathered(batches: Iterable[Batch], count: int) -> NDArray[np.generic]:
    """The first samples of some data (count, ...), without labels."""
    found: list[NDArray[np.generic]] = []
    for images, _ in batches:
        found.append(images)
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)[:count]
