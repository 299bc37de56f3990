"""Train mode against eval mode of one model on the same data: the loop over batches that fills a Comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.first_look import keras_input, look_at
from bncheck.compare.data.summary import InputTotals
from bncheck.compare.outputs import Kind, OutputTotals, apart_from_labels, by_sample, labels_belong, place_of
from bncheck.compare.shared_layers import shared
from bncheck.compare.twins.endpoints import find_input, find_outputs
from bncheck.compare.twins.forward import Forward, TwinSite, declared_input, forward
from bncheck.compare.twins.keras_model import frozen_graph, named_as_in
from bncheck.compare.twins.plain import refuse_other_kinds
from bncheck.compare.twins.reach import inputs_beside
from bncheck.compare.twins.twins import BatchRun, Twins
from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Facts, Layer, Mode, PerChannel
from bncheck.facts.measurements import Accuracy, Comparison, DataFacts, LayerDifference, OutputDifference
from bncheck.numerics import metrics
from bncheck.numerics.moments import Moments, from_batch, merge, split
from bncheck.recognise import recognise
from bncheck.recognise.graph.by_graph import facts_of_view
from bncheck.recognise.graph.flat import node_of
from bncheck.recognise.graph.view import view_graph
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel

Batch = tuple[NDArray[Any], NDArray[Any] | None]
"""Images (samples, ...) and, where there are any, labels (samples,)."""

MODE = "train-vs-eval"
_DEFAULT = Options()
_FLOOR_BATCHES = 4
"""Batches that are mixed anew to learn what batch noise alone does at the output."""
_WORST = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A model ready to be run in both modes."""

    facts: Facts
    layers: tuple[Layer, ...]
    """As the twins hold them; the names are those of `facts`."""
    forward: Forward
    input: str
    outputs: tuple[str, ...]
    kinds: tuple[Kind, ...]
    """What the graph says of each output."""
    labels_output: int | None = None
    """The place of the output that the user says the labels belong to."""


def prepare(raw: RawModel, options: Options = _DEFAULT) -> Prepared:
    """Recognises a model with a graph and makes its twins. Raises ReadError, UsageError or BncheckError."""
    masks: Mapping[str, str] = {}
    keras_names: Mapping[str, str] = {}
    if raw.keras is not None:
        facts = recognise(raw, options)
        refuse_other_kinds(facts.layers)
        look_at(options, keras_input(raw))
        frozen = frozen_graph(raw, trusted=options.trust_model)
        raw, masks, keras_names = frozen.raw, frozen.masks, frozen.outputs
        view = view_graph(raw, options)
        layers = named_as_in(facts.layers, facts_of_view(raw, view, options).layers)
    elif raw.graphs:
        view = view_graph(raw, options)
        facts = replace(facts_of_view(raw, view, options), repaired=raw.repaired)
        layers = facts.layers
    elif raw.format.inspected_only:
        raise BncheckError(f"{raw.path} is a {raw.format}, which bncheck inspects but does not run")
    else:
        raise BncheckError(f"{raw.path} is a {raw.format} without a graph: give --graph, --model or --builder")
    if not layers:
        raise BncheckError(f"{raw.path}: no batch norm was found to compare")
    refuse_other_kinds(layers)
    entry = find_input(view, options.inputs)
    exits = find_outputs(view, entry, tuple(keras_names.get(name, name) for name in options.outputs))
    labelled = place_of(options.labels_output, [e.name for e in exits], keras_names)
    if not inputs_beside(view, entry):
        look_at(options, declared_input(view, entry))
    names = view.flat.names
    return Prepared(
        facts=facts,
        layers=layers,
        forward=forward(view, layers, entry, [e.edge for e in exits], trusted=options.trust_model, masks=masks),
        input=names[node_of(entry)],
        outputs=tuple(e.name for e in exits),
        kinds=tuple(e.kind for e in exits),
        labels_output=labelled,
    )


@dataclass(kw_only=True, eq=False)
class _Totals:
    """What is added up over the batches."""

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
    kept: list[tuple[NDArray[Any], BatchRun]] = field(default_factory=list)


def measure(
    twins: Twins,
    prepared: Prepared,
    batches: Iterable[Batch],
    describe: Callable[[int, int, int], DataFacts],
    *,
    progress: Callable[[int], None] = lambda _: None,
    each: Callable[[BatchRun], None] = lambda _: None,
) -> Comparison:
    """Runs every batch through both twins. Memory does not grow with their number.

    `describe(samples, batch_size, batches)` gives the facts of the data once they are known; `progress` hears of the
    samples done, `each` of what every batch tells. Raises BncheckError where the model refuses the data, or there is
    none.
    """
    start = time.perf_counter()
    sites = prepared.forward.sites
    layers = {layer.name: layer for layer in prepared.layers}
    totals = _Totals(
        epsilons=[layers[site.layer].epsilon or 0.0 for site in sites],
        sums=np.zeros((len(sites), 3)),
        non_finite=np.zeros(len(sites), np.int64),
        samples=np.zeros(len(sites), np.int64),
        outputs=[OutputTotals(kind=kind) for kind in prepared.kinds],
        labels_output=prepared.labels_output,
    )
    repaired = prepared.facts.repaired
    seen = None if repaired is None or repaired.input is None else InputTotals()
    for images, labels in batches:
        run = twins.run(images)
        _add(totals, run, images, labels)
        if seen is not None:
            seen.add(images)
        each(run)
        progress(totals.images)
    if not totals.images:
        raise BncheckError("the data hold no samples")
    places = _layers(prepared, totals)
    return Comparison(
        mode=MODE,
        data=describe(totals.images, totals.batch_size, totals.batches),
        input=prepared.input,
        layers=places,
        shared=shared(places, prepared.layers),
        outputs=_outputs(twins, prepared, totals),
        accuracy=_accuracy(totals),
        seen=None if seen is None else seen.summary(),
        batch_dependence=_batch_dependence(twins, prepared, totals),
        seconds=time.perf_counter() - start,
    )


def _add(totals: _Totals, run: BatchRun, images: NDArray[Any], labels: NDArray[Any] | None) -> None:
    batch, totals.channels = run.moments.together, run.moments.channels
    totals.moments = batch if totals.moments is None else merge(totals.moments, batch)
    variance = batch.variance
    with np.errstate(all="ignore"):
        flat = np.concatenate([batch.mean, np.log(variance + np.repeat(totals.epsilons, totals.channels))])
    one = from_batch(1, flat, np.zeros_like(flat))
    totals.between = one if totals.between is None else merge(totals.between, one)
    totals.samples = np.maximum(totals.samples, run.moments.samples)
    strange = ~np.isfinite(batch.mean) * 1 + ~np.isfinite(variance)
    if np.any(strange):
        totals.non_finite += [int(np.sum(part)) for part in np.split(strange, np.cumsum(totals.channels)[:-1])]
    totals.non_finite += np.sum(~np.isfinite(run.sums), axis=1)
    totals.sums += run.sums
    if labels is not None and not totals.images:
        _tell_labels(totals, run.train_outputs, labels)
    for total, r, t in zip(totals.outputs, run.train_outputs, run.eval_outputs, strict=True):
        total.add(r, t, len(images), labels)
    totals.images += len(images)
    totals.batches += 1
    totals.batch_size = max(totals.batch_size, len(images))
    if len(totals.kept) < _FLOOR_BATCHES and len(images) == totals.batch_size:
        totals.kept.append((images, run))


def _tell_labels(totals: _Totals, outputs: Sequence[NDArray[Any]], labels: NDArray[Any]) -> None:
    """Which outputs are no scores beside others, and that the named one is."""
    kinds = apart_from_labels(outputs, [total.kind for total in totals.outputs], labels)
    for total, kind in zip(totals.outputs, kinds, strict=True):
        total.kind = kind
    if totals.labels_output is not None:
        named, output = totals.outputs[totals.labels_output], outputs[totals.labels_output]
        named.theirs = True
        if named.kind not in {Kind.LOGITS, Kind.PROBABILITIES}:
            named.kind = Kind.UNKNOWN if output.size == len(output) else Kind.SCORES


def _layers(prepared: Prepared, totals: _Totals) -> tuple[LayerDifference, ...]:
    layers = {layer.name: layer for layer in prepared.layers}
    assert totals.moments is not None
    assert totals.between is not None
    means, logs = np.split(totals.between.bessel, 2)
    ends = np.cumsum(totals.channels)
    return tuple(
        _layer_difference(site, layers[site.layer], totals, number, moments, (means[start:end], logs[start:end]))
        for number, (site, moments, start, end) in enumerate(
            zip(
                prepared.forward.sites,
                split(totals.moments, totals.channels),
                ends - totals.channels,
                ends,
                strict=True,
            )
        )
    )


def _layer_difference(  # noqa: PLR0917 - one site's share of everything
    site: TwinSite, layer: Layer, totals: _Totals, number: int, moments: Moments, spread: tuple[PerChannel, PerChannel]
) -> LayerDifference:
    mean, variance = layer.mean.values, layer.variance.values
    assert mean is not None
    assert variance is not None
    epsilon = layer.epsilon or 0.0
    gamma, beta = layer.gamma.values, layer.beta.values
    r2, e2 = metrics.local_sums(moments.mean, moments.variance, mean, variance, gamma, beta, epsilon)
    sums, samples = totals.sums[number], int(totals.samples[number])
    floor = metrics.local_floor(moments.variance, gamma, beta, epsilon, samples)
    measured = metrics.measured_floor(*spread, moments.variance, gamma, beta, epsilon)
    return LayerDifference(
        layer=site.layer,
        samples=samples,
        mean_shift=metrics.mean_shift(moments.mean, mean, variance, epsilon),
        log_variance_ratio=metrics.log_variance_ratio(moments.variance, variance, epsilon),
        local_nmse=metrics.nmse(float(np.sum(r2)), float(np.sum(e2))),
        local_floor=max(floor, measured) if math.isfinite(measured) else floor,
        cumulative_nmse=metrics.nmse(float(sums[0]), float(sums[2])),
        cumulative_cosine=metrics.cosine(float(sums[0]), float(sums[1]), float(sums[2])),
        worst_channels=tuple(int(c) for c in np.argsort(-np.nan_to_num(e2, nan=np.inf), kind="stable")[:_WORST]),
        non_finite=int(totals.non_finite[number]),
    )


def _outputs(twins: Twins, prepared: Prepared, totals: _Totals) -> tuple[OutputDifference, ...]:
    floors = _floors(twins, totals)
    theirs = labels_belong(totals.outputs)
    for total in totals.outputs:
        total.theirs = total is theirs
    return tuple(
        total.difference(name, floor)
        for name, total, floor in zip(prepared.outputs, totals.outputs, floors, strict=True)
    )


def _floors(twins: Twins, totals: _Totals) -> list[OutputTotals | None]:
    """Train mode against itself: the first batches' samples, dealt to other batches. None where there are too few."""
    kept = [(images, run) for images, run in totals.kept if len(images) == totals.batch_size]
    if len(kept) < 2:
        return [None] * len(totals.outputs)
    size = totals.batch_size
    order = np.arange(len(kept) * size).reshape(len(kept), size).T.reshape(-1)  # dealt like cards, so all are mixed
    images = np.concatenate([images for images, _ in kept])[order]
    dealt = [number for number, total in enumerate(totals.outputs) if total.by_sample]
    first = {
        number: np.concatenate([by_sample(run.train_outputs[number], size) for _, run in kept])[order]
        for number in dealt
    }
    floors = {number: OutputTotals(scores=totals.outputs[number].scores) for number in dealt}
    for start in range(0, len(images), size):
        again = twins.run(images[start : start + size])
        for number, floor in floors.items():
            floor.add(first[number][start : start + size], again.train_outputs[number], size)
    return [floors.get(number) for number in range(len(totals.outputs))]


def _accuracy(totals: _Totals) -> Accuracy:
    """Of the output that the labels belong to."""
    total = labels_belong(totals.outputs)
    if total is None or total.top.accuracy is None:
        return Accuracy()
    train, stored = total.top.accuracy
    return Accuracy(train=train, eval=stored, commonest=max(total.asked.values()) / total.top.labelled)


def _batch_dependence(twins: Twins, prepared: Prepared, totals: _Totals) -> float | None:
    """NMSE of f(X)[0] against f(X[:1]), f being the graph as it is served: with batch statistics if a site says so."""
    graph = prepared.facts.graph
    if graph is None or not graph.serving or not totals.kept or totals.batch_size < 2:
        return None
    if prepared.forward.batch is not None and prepared.forward.batch > 1:
        return None  # it takes no single sample
    served = [site for layer in prepared.facts.layers for site in layer.sites if site.outputs]
    trains = any(site.mode is Mode.TRAIN for site in served)
    images, run = totals.kept[0]
    if not totals.outputs[0].by_sample:
        return None
    alone = twins.run(images[:1])
    whole = by_sample((run.train_outputs if trains else run.eval_outputs)[0], len(images))[:1].astype(np.float64)
    single = by_sample((alone.train_outputs if trains else alone.eval_outputs)[0], 1).astype(np.float64)
    if whole.shape != single.shape:
        return None
    result = metrics.nmse(float(np.sum(whole**2)), float(np.sum((single - whole) ** 2)))
    return result if math.isfinite(result) else None
