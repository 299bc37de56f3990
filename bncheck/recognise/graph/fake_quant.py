"""The ranges of a graph's FakeQuant ops, which weights they round, and the steps at which training changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import ReadError
from bncheck.facts.fake_quant import Bound, FakeQuantFacts, RecordedRange, Rounds, StepReached
from bncheck.facts.layers import Layer
from bncheck.facts.wording import many
from bncheck.numerics.fake_quant import extent, rounding_noise
from bncheck.recognise.auxiliary import companions
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.folded import Fold, Reached, reached, rounding
from bncheck.recognise.graph.trace import FAKE_QUANT, VARIABLES, sources
from bncheck.recognise.graph.view import GraphView

_STORED = VARIABLES | {"Const"}
_DEPTHWISE = "DepthwiseConv2dNative"


def fake_quant_facts(view: GraphView, layers: Iterable[Layer]) -> FakeQuantFacts | None:
    """What a graph tells of its rounding; None where it rounds nothing within stored ranges."""
    flat = view.flat
    if not any(op in flat.by_op for op in FAKE_QUANT):
        return None
    folds = folds_of(view, layers)
    of_weights = {fold.fake_quant: (fold, layer) for fold, layer in folds}
    nodes = sorted((n for op in FAKE_QUANT for n in flat.by_op.get(op, ())), key=view.position.__getitem__)
    ranges = [found for node in nodes if (found := _range(view, node, of_weights)) is not None]
    if not ranges:
        return None
    delays = (reached(flat, predicate) for predicate in rounding(flat))
    return FakeQuantFacts(
        ranges=tuple(ranges),
        folded=len(folds),
        corrected=any(fold.corrected for fold, _ in folds),
        freeze=_step(view, (fold.freeze for fold, _ in folds)),
        delay=_step(view, delays),
    )


def told(known: FakeQuantFacts | None) -> tuple[str, ...]:
    """What a report says of it in a sentence; nothing where the graph folds no batch norm."""
    if known is None or not known.folded:
        return ()
    what = f"trained quantization-aware: the graph folds {many(known.folded, 'batch norm')} into their weights"
    freeze = known.freeze
    if freeze is not None:
        count = f"{freeze.counter} is {freeze.at}"
        since = {
            True: f"which training has reached ({count}): since then it normalises with the stored statistics",
            False: f"which training has not reached ({count}): it normalises with those of each batch",
            None: f"by the count of {freeze.counter}, which was not read",
        }[freeze.reached]
        return (f"{what}, and freezes it from step {freeze.step} on, {since}",)
    if known.corrected:
        return (f"{what}, and never freezes it: training normalises with the statistics of each batch to the end",)
    return (what,)


def folds_of(view: GraphView, layers: Iterable[Layer]) -> list[tuple[Fold, Layer]]:
    """Every batch norm that the graph folds into weights."""
    by_site = {site.name: layer for layer in layers for site in layer.sites}
    return [
        (site.fold, layer)
        for found in view.layers
        for site in found.sites
        if site.fold is not None and (layer := by_site.get(view.flat.names[site.node])) is not None
    ]


def folded_weights(view: GraphView, fold: Fold, layer: Layer) -> NDArray[np.float64] | None:
    """`w * gamma / sqrt(variance + epsilon)` in the kernel's shape, with the statistics that `layer` holds.

    None where the weights or the statistics are not at hand.
    """
    found = [node_of(e) for e in sources(view.flat, fold.kernel)]
    tensor = view.stored.tensor(found[0]) if len(found) == 1 else None
    if tensor is None or tensor.unavailable is not None or layer.variance.values is None:
        return None
    if layer.gamma.name and layer.gamma.values is None:
        return None
    try:
        kernel = np.asarray(tensor.read(), np.float64)
    except ReadError:
        return None
    variance = layer.variance.values.reshape(-1)
    gamma = 1.0 if layer.gamma.values is None else layer.gamma.values.reshape(-1)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + (layer.epsilon or 0.0))
    shape = kernel.shape[2:4] if view.flat.ops[fold.linear] == _DEPTHWISE else kernel.shape[-1:]
    if scale.size != np.prod(shape, dtype=np.int64):
        return None
    folded: NDArray[np.float64] = kernel * scale.reshape(shape)
    return folded if np.all(np.isfinite(folded)) else None


def _range(view: GraphView, node: int, of_weights: Mapping[int | None, tuple[Fold, Layer]]) -> RecordedRange | None:
    flat = view.flat
    if len(flat.data[node]) < 3:
        return None
    bounds = [_bound(view, e) for e in flat.data[node][1:3]]
    if bounds[0] is None or bounds[1] is None:
        return None
    low, high = bounds[0], bounds[1]
    bits, narrow = flat.attr(node, "num_bits"), flat.attr(node, "narrow_range")
    count, is_narrow = 8 if bits is None or not bits.i else int(bits.i), narrow is not None and bool(narrow.b)
    per_channel = flat.ops[node].endswith("PerChannel")
    fold, layer = of_weights.get(node, (None, None))
    weights = None if fold is None or layer is None else folded_weights(view, fold, layer)
    exact = None if weights is None else extent(weights, per_channel=per_channel)
    noise = least = None
    if weights is not None and exact is not None:
        least = rounding_noise(weights, *exact, bits=count, narrow=is_narrow)
        if low.values is not None and high.values is not None and _fits(low, high, weights, per_channel=per_channel):
            noise = rounding_noise(weights, low.values, high.values, bits=count, narrow=is_narrow)
    return RecordedRange(
        name=flat.names[node],
        rounds=Rounds.WEIGHTS if fold is not None or _stored(flat, flat.data[node][0]) else Rounds.ACTIVATIONS,
        low=low,
        high=high,
        bits=count,
        narrow=is_narrow,
        per_channel=per_channel,
        layer=None if layer is None else layer.name,
        extent=exact,
        noise=noise,
        least_noise=least,
    )


def _fits(low: Bound, high: Bound, weights: NDArray[np.float64], *, per_channel: bool) -> bool:
    size = weights.shape[-1] if per_channel else 1
    return all(bound.values is not None and bound.values.size == size for bound in (low, high))


def _stored(flat: FlatGraph, e: int) -> bool:
    """Whether an edge brings stored weights as they are."""
    return all(flat.ops[node_of(x)] in _STORED for x in sources(flat, e))


def _bound(view: GraphView, e: int) -> Bound | None:
    found = {node_of(x) for x in sources(view.flat, e)}
    if len(found) != 1 or view.flat.ops[node := found.pop()] not in _STORED:
        return None
    name, tensor = view.stored.name(node), view.stored.tensor(node)
    initial = view.writes.initial.get(node)
    if tensor is None or tensor.unavailable is not None:
        return Bound(name=name, initial=initial)
    try:
        values = np.asarray(tensor.read(), np.float64)
    except ReadError:
        return Bound(name=name, initial=initial)
    return Bound(
        name=name,
        key=tensor.name,
        values=values,
        initial=initial,
        companion=next((key for key in companions(name) if key in view.stored.names), ""),
    )


def _step(view: GraphView, conditions: Iterable[Reached | None]) -> StepReached | None:
    """The first condition that counts steps."""
    found = next((condition for condition in conditions if condition is not None), None)
    if found is None:
        return None
    tensor = view.stored.tensor(found.counter)
    at = None
    if tensor is not None and tensor.unavailable is None:
        try:
            at = int(np.asarray(tensor.read()).reshape(-1)[0])
        except ReadError:
            at = None
    return StepReached(step=found.step, counter=view.stored.name(found.counter), at=at)
