"""Quantization ranges that belong to new statistics: what was recorded with the old ones fits no longer.

Weights are rounded after they are folded, so that their range moves with the variance; activations are recorded as
training does, as the average over batches of each batch's lowest and highest value, with the new statistics and the
rounded weights. Nothing else of the graph changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bncheck.compare.data.data import Data
from bncheck.compare.twins.endpoints import find_input, find_outputs
from bncheck.compare.twins.forward import Forward, forward
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.compare.twins.session import Loaded
from bncheck.compare.twins.writer import EVAL, TRAIN, pass_through
from bncheck.facts.fake_quant import Bound, RecordedRange, Rounds
from bncheck.facts.layers import Facts, Layer, PerChannel
from bncheck.facts.repairs import RangeRepair
from bncheck.numerics.fake_quant import extent
from bncheck.recognise.graph.by_graph import facts_of_view
from bncheck.recognise.graph.fake_quant import folded_weights, folds_of
from bncheck.recognise.graph.view import GraphView, view_graph
from bncheck.repair.statistics import NewStatistics
from bncheck.settings.options import Options
from bncheck.sources.raw import RawModel

Extent = tuple[PerChannel, PerChannel]
"""(lowest, highest), of shape () or (channels,) each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class NewRanges:
    """What to write, and what is told of it."""

    told: tuple[RangeRepair, ...] = ()
    replaced: Mapping[str, PerChannel] = field(default_factory=dict)
    """Key of a stored tensor -> its new values."""


def new_ranges(
    raw: RawModel,
    new: Sequence[NewStatistics],
    options: Options,
    data: Data | None,
    progress: Callable[[int], None] = lambda _: None,
) -> NewRanges:
    """Ranges of a model that was trained quantization-aware, for its new statistics; empty for any other.

    Without data those of weights alone: they follow from the statistics. Raises BncheckError where the graph cannot be
    run.
    """
    if not raw.graphs or raw.keras is not None:
        return NewRanges()
    view = view_graph(raw, options)
    facts = facts_of_view(raw, view, options)
    if facts.fake_quant is None:
        return NewRanges()
    layers = _with_statistics(facts.layers, new)
    renewed = {statistics.layer for statistics in new}
    found = _of_weights(view, [layer for layer in layers if layer.name in renewed], facts.fake_quant.ranges)
    if data is not None:
        entry = find_input(view, options.inputs)
        exits = find_outputs(view, entry, tuple(options.outputs))
        twins = forward(view, layers, entry, [e.edge for e in exits], trusted=options.trust_model)
        rounding = {
            view.flat.names[fold.output]: found[view.flat.names[fold.fake_quant]]
            for fold, _ in folds_of(view, layers)
            if fold.fake_quant is not None and view.flat.names[fold.fake_quant] in found
        }
        found |= _of_activations(twins, facts.fake_quant.ranges, rounding, data, progress)
    return _changes(raw, facts.fake_quant.ranges, found)


def renewable(raw: RawModel, facts: Facts) -> bool:
    """Whether `new_ranges` records ranges of this model anew."""
    return bool(raw.graphs) and raw.keras is None and facts.fake_quant is not None


def of_both_copies(raw: NewRanges, averaged: NewRanges) -> NewRanges:
    """Those of raw weights and of averages of them in one checkpoint: what both copies share holds for either.

    Every range includes 0, so that of two ends the farther one lies outside.
    """

    def farther(key: str, values: PerChannel) -> PerChannel:
        other = averaged.replaced.get(key, values)
        return np.where(np.abs(values) >= np.abs(other), values, other)

    replaced = {**averaged.replaced, **{key: farther(key, values) for key, values in raw.replaced.items()}}
    told = {(one.low, one.high): one for one in (*averaged.told, *raw.told)}
    return NewRanges(
        told=tuple(replace(one, after=_ends(replaced[one.low], replaced[one.high])) for one in told.values()),
        replaced=replaced,
    )


def _with_statistics(layers: Iterable[Layer], new: Sequence[NewStatistics]) -> tuple[Layer, ...]:
    by_layer = {statistics.layer: statistics for statistics in new}
    return tuple(
        layer
        if layer.name not in by_layer
        else replace(
            layer,
            mean=replace(layer.mean, values=by_layer[layer.name].mean),
            variance=replace(layer.variance, values=by_layer[layer.name].variance),
        )
        for layer in layers
    )


def _of_weights(view: GraphView, layers: Sequence[Layer], ranges: Sequence[RecordedRange]) -> dict[str, Extent]:
    by_name = {recorded.name: recorded for recorded in ranges}
    found: dict[str, Extent] = {}
    for fold, layer in folds_of(view, layers):
        recorded = None if fold.fake_quant is None else by_name.get(view.flat.names[fold.fake_quant])
        weights = folded_weights(view, fold, layer)
        if recorded is not None and weights is not None:
            found[recorded.name] = extent(weights, per_channel=recorded.per_channel)
    return found


def _of_activations(
    twins: Forward,
    ranges: Sequence[RecordedRange],
    rounding: Mapping[str, Extent],
    data: Data,
    progress: Callable[[int], None],
) -> dict[str, Extent]:
    """The average over batches of each batch's lowest and highest value, with activations as they are."""
    tf = load_tensorflow()
    of_activations = {f"{EVAL}/{r.name}": r for r in ranges if r.rounds is Rounds.ACTIVATIONS}
    graph_def, entering = _unrounded(twins, of_activations, rounding)
    loaded = Loaded(tf, graph_def, twins.inputs)
    try:
        with loaded.graph.as_default():
            fetches = {name: _extent(tf, loaded.tensor(e), of_activations[name]) for name, e in entering.items()}
        run = loaded.runner(fetches)
        sums: dict[str, Extent] = {}
        batches = samples = 0
        for images, _ in data:
            for name, (low, high) in run(images).items():
                before = sums.get(name, (np.float64(0), np.float64(0)))
                sums[name] = (before[0] + low.astype(np.float64), before[1] + high.astype(np.float64))
            batches += 1
            samples += len(images)
            progress(samples)
    finally:
        loaded.close()
    return {
        of_activations[name].name: (low / batches, high / batches)
        for name, (low, high) in sums.items()
        if np.all(np.isfinite(low)) and np.all(np.isfinite(high))
    }


def _extent(tf: Any, x: Any, recorded: RecordedRange) -> tuple[Any, Any]:
    axes = list(range(x.shape.rank - 1)) if recorded.per_channel else None
    return tf.minimum(tf.reduce_min(x, axes), 0.0), tf.maximum(tf.reduce_max(x, axes), 0.0)


def _unrounded(
    twins: Forward, of_activations: Mapping[str, RecordedRange], rounding: Mapping[str, Extent]
) -> tuple[Any, dict[str, str]]:
    """The eval twin with its activations as they are and its weights in new ranges; op -> what entered it."""
    graph_def = type(twins.graph_def)(library=twins.graph_def.library)
    graph_def.node.extend(node for node in twins.graph_def.node if not node.name.startswith(f"{TRAIN}/"))
    nodes = {node.name: node for node in graph_def.node}
    entering: dict[str, str] = {}
    for name in of_activations:
        if name in nodes:
            node = nodes[name]
            entering[name] = node.input[0]
            pass_through(node)
    for output, bounds in rounding.items():
        rounded = nodes.get(f"{EVAL}/{output}/rounded")
        for name, value in zip([] if rounded is None else rounded.input[1:3], bounds, strict=False):
            tensor = nodes[name].attr["value"].tensor
            tensor.tensor_content = np.asarray(value, "<f4").tobytes()
    return graph_def, entering


def _changes(raw: RawModel, ranges: Sequence[RecordedRange], found: Mapping[str, Extent]) -> NewRanges:
    told, replaced = [], dict[str, PerChannel]()
    for recorded in ranges:
        bounds = (recorded.low, recorded.high)
        if recorded.name not in found or any(bound.key not in raw.tensors for bound in bounds):
            continue
        for bound, other, values in zip(bounds, reversed(bounds), found[recorded.name], strict=True):
            shape = raw.tensors[bound.key].shape
            replaced[bound.key] = np.asarray(values, np.float64).reshape(shape)
            replaced |= _companion(raw, bound, other, replaced[bound.key])
        low, high = (np.asarray(part) for part in found[recorded.name])
        told.append(
            RangeRepair(
                name=recorded.name,
                rounds=recorded.rounds.value,
                low=recorded.low.key,
                high=recorded.high.key,
                before=_ends(recorded.low.values, recorded.high.values),
                after=_ends(low, high),
            )
        )
    return NewRanges(told=tuple(told), replaced=replaced)


def _ends(low: PerChannel | None, high: PerChannel | None) -> tuple[float, float] | None:
    """The outermost values."""
    return None if low is None or high is None else (float(low.min()), float(high.max()))


def _companion(raw: RawModel, bound: Bound, other: Bound, values: PerChannel) -> dict[str, PerChannel]:
    """The biased average from which the next step of training would write the range anew: `(1 - decay**n)` of it."""
    for one in (bound, other):
        if not bound.companion or not one.companion or one.values is None or not np.all(one.values):
            continue
        share = np.asarray(raw.tensors[one.companion].read(), np.float64) / one.values
        return {bound.companion: values * share.reshape(values.shape)}
    return {}
