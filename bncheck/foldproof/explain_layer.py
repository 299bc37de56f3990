"""One layer against one TFLite operator: which statistics, weights and epsilon give the numbers that it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.foldproof.fit import (
    USUAL_EPSILONS,
    Bounds,
    Fit,
    Folded,
    Interval,
    Line,
    bounds,
    common_addend,
    common_factor,
    epsilons_of,
    explains,
    may_fit,
    measure,
    multiplied,
    scale_fits,
    shifted,
    slope,
)
from bncheck.foldproof.kernel_places import Held, KernelPlace
from bncheck.foldproof.source_units import Kernel, Statistics, Unit, Weights
from bncheck.numerics.fold import folded

Array = NDArray[np.float64]


class Candidate(NamedTuple):
    """What may have been folded."""

    weights: Weights
    statistics: Statistics
    epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Explained:
    """A layer's kernel that is an operator's, up to one factor a channel."""

    unit: Unit
    place: KernelPlace
    held: Held
    weights: Weights
    kernel: Array
    """(channels, fan-in), in the operator's form."""
    bounds: Bounds


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What was folded, for a match."""

    match: Explained
    folded: str
    """As in `FoldedLayer.folded`."""
    fit: Fit
    rank: int
    """The fewer liberties an explanation takes, the lower."""
    weights: str = "stored"
    epsilon: float | None = None
    why: str = ""


def fold(candidate: Candidate) -> Folded:
    """The scale gamma / sqrt(variance + epsilon) and the bias beta + (convolution bias - mean) * scale, in float64."""
    weights, statistics, epsilon = candidate
    with np.errstate(all="ignore"):
        mean = statistics.mean - weights.bias
        scale, bias = folded(weights.gamma, weights.beta, mean, statistics.variance, epsilon)
        magnitude = np.abs(weights.bias) if weights.bias_terms is None else weights.bias_terms
        terms = np.abs(weights.beta) + (magnitude + np.abs(statistics.mean)) * np.abs(scale)
    return Folded(scale=scale, bias=bias, terms=terms)


def matches(unit: Unit, place: KernelPlace, helds: Sequence[Held], forms: Forms) -> Iterator[Explained]:
    """The ways in which an operator holds one of a layer's kernels; raises ReadError."""
    seen: set[str] = set()
    for weights in unit.weights:
        kernel = weights.kernel
        if kernel is None or kernel.tensor.name + weights.told in seen:
            continue
        seen.add(kernel.tensor.name + weights.told)
        for form in forms(kernel, place):
            if not helds or not may_fit(helds[0], form):
                continue
            exact = form.astype(np.float64)
            for held in helds:
                known = bounds(held, exact)
                if known.fits:
                    yield Explained(unit=unit, place=place, held=held, weights=weights, kernel=exact, bounds=known)


Forms = Callable[[Kernel, KernelPlace], Sequence[NDArray[Any]]]
"""The forms of a kernel that have an operator's shape."""


def forms_once() -> Forms:
    """Reads each kernel once, as long as the function lives."""
    known: dict[tuple[Kernel, int, int], list[NDArray[Any]]] = {}  # two files may hold a kernel of one name

    def forms(kernel: Kernel, place: KernelPlace) -> Sequence[NDArray[Any]]:
        key = (kernel, place.channels, place.fan_in)
        if key not in known:
            known[key] = list(_forms(kernel, place))
        return known[key]

    return forms


def alone(unit: Unit, place: KernelPlace, helds: Sequence[Held]) -> Iterator[Explained]:
    """A layer as a chain of affine operators by itself, with the bias of a convolution before it and without."""
    bare = tuple(replace(w, bias=np.zeros(unit.channels)) for w in unit.weights)
    kernel = np.ones((unit.channels, 1))
    for weights in (bare, unit.weights) if any(w.bias.any() for w in unit.weights) else (bare,):
        for held in helds:
            known = bounds(held, kernel)
            yield Explained(
                unit=replace(unit, weights=weights),
                place=place,
                held=held,
                weights=weights[0],
                kernel=kernel,
                bounds=known,
            )


def fold_ratio(match: Explained) -> Array | None:
    """(channels,): the operator's factor over that of the stored statistics; None where it is another layer's."""
    stored = next((s for s in match.unit.statistics if s.folded == "stored"), None)
    if stored is None or stored.mean.size != match.bounds.best.size or match.weights not in match.unit.weights:
        return None
    epsilon = next(iter(match.unit.epsilons), USUAL_EPSILONS[0])
    with np.errstate(all="ignore"):
        ratio: Array = match.bounds.best / fold(Candidate(match.weights, stored, epsilon)).scale
    ratio.setflags(write=False)
    return ratio


def _forms(kernel: Kernel, place: KernelPlace) -> Iterator[NDArray[Any]]:
    if kernel.tensor.unavailable is not None:
        return
    if int(np.prod(kernel.tensor.shape, dtype=np.int64)) != place.channels * place.fan_in:
        return
    yield from (form for form in kernel.forms(place.channels) if form.shape == (place.channels, place.fan_in))


def explain(match: Explained) -> Explanation | None:
    """The explanation that takes the fewest liberties; None where none of them gives the operator's numbers."""
    for rank, candidate in enumerate(_candidates(match)):
        folded = fold(candidate)
        if explains(match.held, match.bounds, folded):
            return explained_by(match, candidate, folded, rank)
    return _with_converter(match)


def _candidates(match: Explained) -> Iterator[Candidate]:
    """Stored first, each with the model's epsilon; then with whatever epsilon the scale asks for."""
    unit = match.unit
    sets = sorted(unit.weights, key=lambda weights: weights.told != match.weights.told)
    for epsilon in unit.epsilons:
        for statistics in unit.statistics:
            yield from (Candidate(weights, statistics, epsilon) for weights in sets)
    for statistics in unit.statistics:
        for weights in sets:
            line = Line(
                gamma=weights.gamma,
                variance=statistics.variance,
                beta=weights.beta,
                shift=weights.bias - statistics.mean,
                terms=fold(Candidate(weights, statistics, USUAL_EPSILONS[0])).terms,
            )
            # an odd number where the model has another epsilon is a variance that was moved
            taken = unit.epsilons
            found = epsilons_of(match.bounds, match.held, line)
            asked = [e for e in found if e not in taken and (not taken or e in USUAL_EPSILONS)]
            yield from (Candidate(weights, statistics, epsilon) for epsilon in asked)


def explained_by(match: Explained, candidate: Candidate, folded: Folded, rank: int, why: str = "") -> Explanation:
    """The explanation by a candidate whose fold, with whatever came on top, is `folded`."""
    told, kernels, kind = candidate.weights.told, match.weights.told, candidate.statistics.folded
    if told != kernels:
        mixed = f"the {kernels} kernel with the {told} gamma and beta and the {kind} statistics"
        kind, why = "other", "; ".join(filter(None, (mixed, why)))
    elif told == "reference" and kind == "stored":
        kind, why = "other", "; ".join(filter(None, ("the reference's weights with the stored statistics", why)))
    return Explanation(
        match=match,
        folded=kind,
        fit=measure(match.held, match.bounds, match.kernel, folded),
        rank=rank,
        weights=kernels,
        epsilon=candidate.epsilon,
        why=why,
    )


def without_kernels(found: Explanation) -> Explanation:
    """The same without the two kernels that it was found by: a model's would take twice its size to keep."""
    nothing = np.empty((0, 0))
    held = replace(found.match.held, kernel=nothing, saturated=None)
    return replace(found, match=replace(found.match, kernel=nothing, held=held))


TAKEN_IN = 100
"""Rank of explanations with arithmetic of the converter's."""


def _with_converter(match: Explained) -> Explanation | None:
    """The stored statistics and a multiplication or addition of one number that the converter took in.

    Before the operator (an image scaled by 1 / 255, a hard swish's 1 / 6): the kernel times c, the bias plus k times
    the kernel's sum. Behind it: kernel and bias times c, the bias plus d.
    """
    for epsilon in match.unit.epsilons or USUAL_EPSILONS[:2]:
        candidate = Candidate(match.weights, match.unit.statistics[0], epsilon)
        folded = fold(candidate)
        fits = bool(np.all(scale_fits(match.bounds, folded.scale)))
        factor = (1.0, 1.0) if fits else common_factor(match.bounds, folded.scale)
        for found, words in () if factor is None else _taken_in(match, folded, factor):
            if explains(match.held, match.bounds, found):
                return explained_by(match, candidate, found, TAKEN_IN, words)
    return None


def _taken_in(match: Explained, folded: Folded, factor: Interval) -> Iterator[tuple[Folded, str]]:
    """(fold, words) of each form of arithmetic by one number, the simplest first; none is yet held against the file."""
    held, nothing = match.held, np.zeros(folded.bias.size)
    middle = sum(factor) / 2
    if match.unit.beside.before:
        scaled = replace(folded, scale=folded.scale * middle)
        if middle != 1.0:
            yield scaled, _words(middle)
        sums = scaled.scale * match.kernel.sum(axis=1)
        found = common_addend(held, scaled, sums)
        if found is not None:
            yield shifted(scaled, sums * (sum(found) / 2)), _words(middle)
    if match.unit.beside.behind:
        along = common_addend(held, replace(folded, bias=nothing), folded.bias)
        nearest = slope(held, folded)
        by = [] if along is None else [min(max(sum(along) / 2, factor[0]), factor[1])]
        by += [middle] if nearest is None else [min(max(nearest, factor[0]), factor[1]), middle]
        for times in by:
            scaled = multiplied(folded, times)
            yield scaled, _words(times)
            found = common_addend(held, scaled, nothing + 1)
            if found is not None:
                yield shifted(scaled, nothing + sum(found) / 2), _words(times)


def _words(times: float) -> str:
    what = "shifted" if times == 1.0 else f"times {times:.6g}"
    return f"{what}: arithmetic by one number that the converter took in"
