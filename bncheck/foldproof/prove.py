"""The fold proof: which statistics and epsilon a TFLite or ONNX file has folded in, layer by layer, without running it.

An operator is found by its kernel, which a fold only multiplies by one number a channel (fit.py), not by its name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bncheck.facts.errors import UsageError
from bncheck.facts.layers import Facts
from bncheck.facts.measurements import FoldedLayer, FoldProof
from bncheck.foldproof.by_position import by_order, exchanged, is_named, size_of
from bncheck.foldproof.explain_layer import (
    TAKEN_IN,
    Explained,
    Explanation,
    alone,
    explain,
    fold_ratio,
    forms_once,
    matches,
    without_kernels,
)
from bncheck.foldproof.fit import Array
from bncheck.foldproof.into_next_dense import forward, holds_kernel
from bncheck.foldproof.kernel_places import KernelPlace
from bncheck.foldproof.lite_kernels import lite_places
from bncheck.foldproof.onnx_kernels import onnx_places
from bncheck.foldproof.second_scale import beyond, difference, of_another
from bncheck.foldproof.source_units import Kernel, Source, Unit, bias_beside, source_of
from bncheck.recognise.auxiliary import SHADOW
from bncheck.recognise.lite.by_lite import without_weights
from bncheck.sources.raw import RawModel


def prove(
    source: RawModel, converted: RawModel, *, facts: Facts | None = None, reference: RawModel | None = None
) -> FoldProof:
    """Holds every batch norm layer of `source` against the operators of the TFLite or ONNX file `converted`.

    `facts` are those of `source` where they are at hand. `reference` is another checkpoint of the same model, whose
    weights and statistics are tried where those of `source` do not fit. Raises ReadError where a file is damaged,
    UsageError where `converted` is neither.
    """
    if source.lite is not None:
        raise UsageError(f"{source.path} is a TFLite file: give the model that {converted.path} was converted from")
    linear, affine = _places(converted)
    model = source_of(source, facts, reference)
    lacking = "" if converted.lite is None else without_weights(converted.lite)
    state = _State(source=model, linear=linear, affine=affine, lacking=lacking)
    with np.errstate(all="ignore"):
        _by_kernel(state)
        _beyond(state)
        _left_standing(state)
        _forward(state)
        _by_any_kernel(state)
        told = _told(state)
    return FoldProof(
        path=str(converted.path),
        source=str(source.path),
        layers=told,
    )


def _places(converted: RawModel) -> tuple[tuple[KernelPlace, ...], tuple[KernelPlace, ...]]:
    if converted.lite is not None:
        return lite_places(converted.lite)
    if converted.onnx is not None:
        return onnx_places(converted)
    raise UsageError(f"{converted.path}: {converted.format}, neither a TFLite nor an ONNX file")


@dataclass(kw_only=True, eq=False)
class _State:
    """What was found so far."""

    source: Source
    linear: tuple[KernelPlace, ...]
    affine: tuple[KernelPlace, ...]
    lacking: str
    """Why the file holds no weights at all; empty where it does."""
    found: dict[int, list[Explanation]] = field(default_factory=dict)
    """Unit -> operators that hold it, with what was folded."""
    unexplained: dict[int, list[Explained]] = field(default_factory=lambda: defaultdict(list))
    """Unit -> operators that hold its kernel with something else folded in."""
    taken: set[tuple[int, int]] = field(default_factory=set)
    """Places that hold a layer."""
    foreign: bool = False
    """Not one kernel fits, and not even the shapes agree: another model, in which like shapes are chance."""

    def open_units(self) -> list[Unit]:
        """Those that can be computed and were not found."""
        return [unit for unit in self.source.units if not unit.problem and unit.number not in self.found]

    def free(self, candidates: Iterable[KernelPlace]) -> list[KernelPlace]:
        return [place for place in candidates if place.order not in self.taken]

    def give(self, unit: Unit, explanation: Explanation) -> None:
        self.taken.add(explanation.match.place.order)
        self.found.setdefault(unit.number, []).append(explanation)


def _by_kernel(state: _State) -> None:
    """Finds operators by the layers' kernels; of operators with one kernel, each goes to the layer it fits best."""
    by_size: dict[tuple[int, int], list[KernelPlace]] = defaultdict(list)
    for place in state.linear:
        by_size[place.channels, place.channels * place.fan_in].append(place)
    wanted: dict[tuple[int, int], list[Unit]] = defaultdict(list)
    for unit in state.source.units:
        sizes = {int(np.prod(w.kernel.tensor.shape, dtype=np.int64)) for w in unit.weights if w.kernel is not None}
        for size in sizes:
            wanted[unit.channels, size].append(unit)
    for key, units in wanted.items():
        _assign(state, units, by_size.get(key, ()))


def _assign(state: _State, units: Sequence[Unit], candidates: Sequence[KernelPlace], *, guessed: bool = False) -> None:
    """Best fits first; a layer that is applied several times, in several operators, takes each that fits it exactly."""
    pairs: list[tuple[int, int, tuple[int, int], Unit, Explanation]] = []
    forms = forms_once()
    for place in candidates:
        helds = list(place.read())
        for unit in units:
            holding: list[Explained] = []
            best: Explanation | None = None
            for match in matches(unit, place, helds, forms):
                holding.append(match)
                found = explain(match)
                if found is not None and (best is None or found.rank < best.rank):
                    best = found
                if best is not None and best.rank == 0:
                    break
            if best is not None:
                pairs.append((best.rank, unit.number, place.order, unit, without_kernels(best)))
            elif not guessed and any(match.bounds.telling for match in holding):
                state.unexplained[unit.number].extend(holding)
    pairs.sort(key=lambda pair: pair[:3])
    for _, number, order, unit, best in pairs:
        if order not in state.taken and (number not in state.found or best.folded == "stored"):
            state.give(unit, best)
    for rank, number, _, unit, best in pairs:  # copies of one layer, of which the file holds fewer than the model
        if number not in state.found and rank == 0:
            state.give(unit, replace(best, why="the same numbers as another layer's"))


def _beyond(state: _State) -> None:
    """Operators that hold a kernel with more folded in than its own layer."""
    for unit in state.open_units():
        for match in state.unexplained[unit.number]:
            if _gives_more(state, unit, match):
                break


def _gives_more(state: _State, unit: Unit, match: Explained) -> bool:
    found = None if match.place.order in state.taken else beyond(match, state.source)
    if found is None:
        return False
    state.give(unit, found.explanation)
    if found.second is not None:
        why = f"together with {unit.layer.name}, which it follows"
        state.give(found.second, replace(found.explanation, why=why, match=replace(match, unit=found.second)))
    return True


def _left_standing(state: _State) -> None:
    """Layers whose arithmetic stands in the file as MUL and ADD of its own."""
    for place in state.affine:
        helds = list(place.read()) if place.channels else []
        for unit in state.open_units():
            if unit.channels != place.channels:
                continue
            found = [one for match in alone(unit, place, helds) if (one := explain(match)) is not None]
            best = min(found, key=lambda one: one.rank, default=None)
            if best is not None and best.rank < TAKEN_IN:
                why = f"not folded: it remains as {' and '.join(best.match.held.behind)}"
                state.give(unit, replace(best, why=why))
                break


def _forward(state: _State) -> None:
    """Layers that the converter took into the dense layer behind them."""
    for unit in state.open_units():
        for place in state.free(state.linear):
            others = [other for other in state.open_units() if other is not unit]
            found = forward(unit, place, state.source, others)
            if found is not None:
                state.give(unit, found.explanation)
                if found.second is not None:
                    state.give(found.second, replace(found.explanation, why=f"together with {unit.layer.name}"))
                break


def _by_any_kernel(state: _State) -> None:
    """Layers of which no file tells what lies before them: by whichever stored kernel an operator holds.

    First those that explain an operator by themselves, then those that do with a second scale behind them.
    """
    without = state.open_units()
    free = [place for place in state.free(state.linear) if any(u.channels == place.channels for u in without)]
    if not without or not free or state.source.ordered:
        return
    for place, assumed in _assumed(state, free):
        _assign(state, assumed, [place], guessed=True)
    forms = forms_once()
    for place, assumed in _assumed(state, state.free(free)) if state.open_units() else ():
        helds = list(place.read())
        found = (match for unit in assumed for match in matches(unit, place, helds, forms))
        next((match for match in found if _gives_more(state, match.unit, match)), None)


def _assumed(state: _State, places: Sequence[KernelPlace]) -> Iterator[tuple[KernelPlace, list[Unit]]]:
    """Each place with each kernel of its size, and the layers of its channels that are still to be found."""
    for kernel in state.source.kernels():
        size = int(np.prod(kernel.tensor.shape, dtype=np.int64))
        for place in state.free(places):
            if place.channels * place.fan_in == size:
                bias = bias_beside(kernel.tensor, state.source.find, place.channels)
                units = [unit for unit in state.open_units() if unit.channels == place.channels]
                yield place, [_assuming(unit, kernel, bias) for unit in units]


def _assuming(unit: Unit, kernel: Kernel, bias: Array | None) -> Unit:
    told = "shadow" if kernel.tensor.name.endswith(SHADOW) else "stored"
    sets = tuple(
        replace(w, kernel=kernel, bias=w.bias if bias is None else bias) for w in unit.weights if w.told == told
    )
    return replace(unit, weights=sets)


def _told(state: _State) -> tuple[FoldedLayer, ...]:
    """One entry a layer, in the source's order."""
    missing = [unit for unit in state.open_units() if not _holding(state, unit)]
    placed = {number: found[0].match.place.order for number, found in state.found.items()}
    stray = by_order(missing, placed, state.free(state.linear), ordered=state.source.ordered)
    wanted = [unit for unit in missing if size_of(unit) is not None]
    state.foreign = not placed and not any(state.unexplained.values()) and len(stray) < len(wanted)
    if state.foreign:
        stray, missing = {}, []
    left = _left_over(state, [unit for unit in missing if unit.number not in stray])
    told = [_layer(state, unit, stray, left) for unit in state.source.units]
    if state.source.ordered:
        whole = {number: found[0].match.place for number, found in state.found.items()}
        for number, other in exchanged(state.source.units, whole).items():
            why = f"swapped with {other.layer.name}"
            told[number] = replace(told[number], folded="other", why=why)
    return tuple(told)


def _layer(state: _State, unit: Unit, stray: Mapping[int, KernelPlace], left: Mapping[int, Explained]) -> FoldedLayer:
    if unit.problem:
        return _unmatched(unit, unit.problem)
    if unit.number in state.found:
        return _confirmed(unit, state.found[unit.number])
    holding = _holding(state, unit)
    if holding or unit.number in left:
        match = holding[0] if holding else left[unit.number]
        another = of_another(match, state.source.units)
        if another is not None:
            return _of(unit, another, another.why)
        return _of(unit, *difference(match))
    if unit.number in stray and stray[unit.number].unreadable:
        return _unmatched(unit, stray[unit.number].unreadable)
    if unit.number in stray:
        return _other_kernel(unit, stray[unit.number])
    for place in state.free(state.linear) if state.source.ordered else ():
        if holds_kernel(unit, place, state.source):
            why = "the dense layer behind it is multiplied by a scale that is not that of the stored statistics"
            return replace(_unmatched(unit, why), folded="other", operator=place.name, error=np.inf)
    return _unmatched(unit, _why_unmatched(state, unit))


def _holding(state: _State, unit: Unit) -> list[Explained]:
    """Operators that hold its kernel and no layer that was found, the likeliest first."""
    free = [match for match in state.unexplained[unit.number] if match.place.order not in state.taken]
    return sorted(free, key=lambda match: (not is_named(match.place, unit), len(match.held.behind), match.place.order))


def _left_over(state: _State, units: Sequence[Unit]) -> dict[int, Explained]:
    """Layers without a linear layer -> chains of MUL and ADD of as many channels, if there are as many of each."""
    found: dict[int, Explained] = {}
    bare = [unit for unit in units if size_of(unit) is None] if state.source.ordered else []
    for channels in {unit.channels for unit in bare}:
        members = [unit for unit in bare if unit.channels == channels]
        chains = [place for place in state.free(state.affine) if place.channels == channels]
        multiplying = [(place, helds) for place in chains if (helds := list(place.read()))]
        if len(members) == len(multiplying):
            for unit, (place, helds) in zip(members, multiplying, strict=True):
                found[unit.number] = next(alone(unit, place, helds))
    return found


def _confirmed(unit: Unit, found: Sequence[Explanation]) -> FoldedLayer:
    whys = [found[0].why] if found[0].why else []
    if len(found) > 1:
        whys.append(f"and in {len(found) - 1} more operator{'s' if len(found) > 2 else ''}")
    return _of(unit, found[0], "; ".join(whys))


def _of(unit: Unit, found: Explanation, why: str) -> FoldedLayer:
    return FoldedLayer(
        layer=unit.layer.name,
        operator=found.match.place.name,
        folded=found.folded,
        error=found.fit.error,
        tolerance=found.fit.tolerance,
        scale_ratio=fold_ratio(found.match) if found.match.unit.number == unit.number else None,
        why=why,
        weights=found.weights,
        epsilon=found.epsilon,
        epsilon_known=next(iter(unit.epsilons), None),
        never_moved=unit.never_moved and found.folded == "stored",
    )


def _other_kernel(unit: Unit, place: KernelPlace) -> FoldedLayer:
    """The operator that stands in a layer's place holds other weights."""
    why = "the kernel differs: not these weights"
    held = next(place.read(), None)
    forms = [] if held is None else list(_kernels(unit, place))
    if held is not None and forms:
        near = max(_likeness(form, held.kernel) for form in forms)
        kind = (
            "another step of the same run, or weights that were changed since"
            if near > NEAR
            else "another run or model"
        )
        why = f"the kernel differs (correlation {near:.3f}): {kind}"
    return replace(_unmatched(unit, why), folded="other", operator=place.name, error=np.inf, weights="other")


NEAR = 0.5
"""Correlation of two kernels above which they come from one training run."""


def _kernels(unit: Unit, place: KernelPlace) -> Iterator[Array]:
    kernel = unit.weights[0].kernel
    if kernel is not None and kernel.tensor.unavailable is None:
        for form in kernel.forms(place.channels):
            if form.shape == (place.channels, place.fan_in):
                yield form.astype(np.float64)


def _likeness(one: Array, other: Array) -> float:
    """Mean over channels of the cosine between two kernels, signs left out, as a fold may turn them."""
    norms = np.sqrt((one * one).sum(axis=1) * (other * other).sum(axis=1))
    used = norms > 0
    return float(np.mean(np.abs((one * other).sum(axis=1))[used] / norms[used])) if used.any() else 0.0


def _unmatched(unit: Unit, why: str) -> FoldedLayer:
    return FoldedLayer(
        layer=unit.layer.name,
        operator="",
        folded="unmatched",
        error=np.nan,
        tolerance=np.nan,
        why=why,
        epsilon_known=next(iter(unit.epsilons), None),
    )


def _why_unmatched(state: _State, unit: Unit) -> str:
    size = size_of(unit)
    if state.lacking:
        return state.lacking
    if state.foreign:
        return "the file has none of this model's kernels: it was converted from another model"
    if size is None:
        if unit.linear is not None:
            return unit.linear.reason or "the kernel before it was not read"
        return "no layer is known before it, and no MUL and ADD of the file belong to it"
    same = [place for place in state.linear if (place.channels, place.fan_in) == size]
    unread = next((place.unreadable for place in same if place.unreadable), "")
    if unread:
        return f"an operator that may hold it cannot be read: {unread}"
    if not same:
        return f"no operator has a kernel of {size[0]} channels of {size[1]} weights: not converted, or channels pruned"
    return f"of {len(same)} operator{'s' if len(same) > 1 else ''} with a kernel of its shape none holds its kernel"
