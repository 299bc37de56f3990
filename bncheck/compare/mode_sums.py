"""What batches tell of a model in both modes, added up: the sums of blocks of batches are merged in any order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import Batch
from bncheck.compare.data.summary import InputTotals
from bncheck.compare.outputs import Kind, OutputTotals, apart_from_labels, by_sample
from bncheck.compare.prepared import Prepared
from bncheck.compare.twins.twins import BatchRun, Twins
from bncheck.facts.layers import Mode
from bncheck.numerics import metrics
from bncheck.numerics.moments import Moments, from_batch, merge_known

FLOOR_BATCHES = 4
"""Batches that are mixed anew to learn what batch noise alone does at the output."""


@dataclass(kw_only=True, eq=False)
class ModeSums:
    """What is added up over batches."""

    epsilons: list[float]
    """Of each site."""
    sums: NDArray[np.float64]
    """(sites, 3), as BatchRun.sums."""
    non_finite: NDArray[np.int64]
    samples: NDArray[np.int64]
    """Elements per channel of each site in the largest batch."""
    outputs: list[OutputTotals]
    labels_output: int | None = None
    """Place of the output that the labels belong to, where the user said so."""
    channels: tuple[int, ...] = ()
    """Of each site."""
    moments: Moments | None = None
    """Of all sites in one vector."""
    between: Moments | None = None
    """Over the batches: of the means of all sites in one vector, then of their ln(variance + epsilon)."""
    images: int = 0
    batches: int = 0
    batch_size: int = 0
    seen: InputTotals | None = None
    """Of the input, where somebody asks for it."""
    floors: list[OutputTotals | None] = field(default_factory=list)
    """Of each output, train mode against itself; of the first batches of all."""
    batch_dependence: float | None = None
    """Of the first batch of all."""

    def merge(self, other: ModeSums) -> None:
        """Adds what batches after these told, which were read as the first one was (`summed`)."""
        self.sums += other.sums
        self.non_finite += other.non_finite
        self.samples = np.maximum(self.samples, other.samples)
        for own, more in zip(self.outputs, other.outputs, strict=True):
            own.merge(more)
        self.channels = self.channels or other.channels
        self.moments = merge_known(self.moments, other.moments)
        self.between = merge_known(self.between, other.between)
        self.images += other.images
        self.batches += other.batches
        self.batch_size = max(self.batch_size, other.batch_size)
        if self.seen is not None and other.seen is not None:
            self.seen.merge(other.seen)


def summed(
    twins: Twins,
    prepared: Prepared,
    batches: Iterable[Batch],
    *,
    first: ModeSums | None = None,
    progress: Callable[[int], None] = lambda _: None,
    each: Callable[[BatchRun], None] = lambda _: None,
) -> ModeSums:
    """Runs batches through both twins. Memory does not grow with their number.

    `first` are the sums of the first batch of all, whose outputs decide how all are read; None: it is among `batches`,
    and what only the first ones tell is measured too. `progress` hears of the samples done, `each` of what every batch
    tells. Raises BncheckError where the model refuses the data.
    """
    sums = _nothing(prepared, first)
    kept: list[tuple[NDArray[Any], BatchRun]] = []
    for images, labels in batches:
        run = twins.run(images)
        if first is None and labels is not None and not sums.images:
            _tell_labels(sums, run.train_outputs, labels)
        _add(sums, run, images, labels)
        if first is None and len(kept) < FLOOR_BATCHES and len(images) == sums.batch_size:
            kept.append((images, run))
        each(run)
        progress(sums.images)
    if first is None:
        sums.floors = _floors(twins, sums, kept)
        sums.batch_dependence = _batch_dependence(twins, prepared, sums, kept)
    return sums


def _nothing(prepared: Prepared, first: ModeSums | None) -> ModeSums:
    sites, repaired = prepared.forward.sites, prepared.facts.repaired
    layers = {layer.name: layer for layer in prepared.layers}
    return ModeSums(
        epsilons=[layers[site.layer].epsilon or 0.0 for site in sites],
        sums=np.zeros((len(sites), 3)),
        non_finite=np.zeros(len(sites), np.int64),
        samples=np.zeros(len(sites), np.int64),
        outputs=[OutputTotals(kind=kind) for kind in prepared.kinds]
        if first is None
        else [output.alike() for output in first.outputs],
        labels_output=prepared.labels_output,
        seen=None if repaired is None or repaired.input is None else InputTotals(),
    )


def _add(sums: ModeSums, run: BatchRun, images: NDArray[Any], labels: NDArray[Any] | None) -> None:
    batch, sums.channels = run.moments.together, run.moments.channels
    sums.moments = merge_known(sums.moments, batch)
    variance = batch.variance
    with np.errstate(all="ignore"):
        flat = np.concatenate([batch.mean, np.log(variance + np.repeat(sums.epsilons, sums.channels))])
    sums.between = merge_known(sums.between, from_batch(1, flat, np.zeros_like(flat)))
    sums.samples = np.maximum(sums.samples, run.moments.samples)
    strange = ~np.isfinite(batch.mean) * 1 + ~np.isfinite(variance)
    if np.any(strange):
        sums.non_finite += [int(np.sum(part)) for part in np.split(strange, np.cumsum(sums.channels)[:-1])]
    sums.non_finite += np.sum(~np.isfinite(run.sums), axis=1)
    sums.sums += run.sums
    for total, r, t in zip(sums.outputs, run.train_outputs, run.eval_outputs, strict=True):
        total.add(r, t, len(images), labels)
    if sums.seen is not None:
        sums.seen.add(images)
    sums.images += len(images)
    sums.batches += 1
    sums.batch_size = max(sums.batch_size, len(images))


def _tell_labels(sums: ModeSums, outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> None:
    """Which outputs are no scores beside others, and that the named one is."""
    kinds = apart_from_labels(outputs, [total.kind for total in sums.outputs], labels)
    for total, kind in zip(sums.outputs, kinds, strict=True):
        total.kind = kind
    if sums.labels_output is not None:
        named, output = sums.outputs[sums.labels_output], outputs[sums.labels_output]
        named.theirs = True
        if named.kind not in {Kind.LOGITS, Kind.PROBABILITIES}:
            named.kind = Kind.UNKNOWN if output.size == len(output) else Kind.SCORES


def _floors(twins: Twins, sums: ModeSums, first: Sequence[tuple[NDArray[Any], BatchRun]]) -> list[OutputTotals | None]:
    """Train mode against itself: the first batches' samples, dealt to other batches. None where there are too few."""
    kept = [(images, run) for images, run in first if len(images) == sums.batch_size]
    if len(kept) < 2:
        return [None] * len(sums.outputs)
    size = sums.batch_size
    order = np.arange(len(kept) * size).reshape(len(kept), size).T.reshape(-1)  # dealt like cards, so all are mixed
    images = np.concatenate([images for images, _ in kept])[order]
    dealt = [number for number, total in enumerate(sums.outputs) if total.by_sample]
    before = {
        number: np.concatenate([by_sample(run.train_outputs[number], size) for _, run in kept])[order]
        for number in dealt
    }
    floors = {number: OutputTotals(scores=sums.outputs[number].scores) for number in dealt}
    for start in range(0, len(images), size):
        again = twins.run(images[start : start + size])
        for number, floor in floors.items():
            floor.add(before[number][start : start + size], again.train_outputs[number], size)
    return [floors.get(number) for number in range(len(sums.outputs))]


def _batch_dependence(
    twins: Twins, prepared: Prepared, sums: ModeSums, first: Sequence[tuple[NDArray[Any], BatchRun]]
) -> float | None:
    """NMSE of f(X)[0] against f(X[:1]), f being the graph as it is served: with batch statistics if a site says so."""
    graph = prepared.facts.graph
    if graph is None or not graph.serving or not first or sums.batch_size < 2:
        return None
    if prepared.forward.batch is not None and prepared.forward.batch > 1:
        return None  # it takes no single sample
    served = [site for layer in prepared.facts.layers for site in layer.sites if site.outputs]
    trains = any(site.mode is Mode.TRAIN for site in served)
    images, run = first[0]
    if not sums.outputs[0].by_sample:
        return None
    alone = twins.run(images[:1])
    whole = by_sample((run.train_outputs if trains else run.eval_outputs)[0], len(images))[:1].astype(np.float64)
    single = by_sample((alone.train_outputs if trains else alone.eval_outputs)[0], 1).astype(np.float64)
    if whole.shape != single.shape:
        return None
    result = metrics.nmse(float(np.sum(whole**2)), float(np.sum((single - whole) ** 2)))
    return result if math.isfinite(result) else None
