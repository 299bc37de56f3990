"""One layer against one TFLite operator: which statistics, weights and epsilon give the numbers that it holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.fold_fit import (
    USUAL_EPSILONS,
    Bounds,
    Fit,
    Folded,
    bias_fits,
    bounds,
    common_addend,
    common_factor,
    epsilon_of,
    explains,
    measure,
    multiplied,
    scale_fits,
    shifted,
)
from bncheck.recognise.fold_lite import Held, Place
from bncheck.recognise.fold_source import Kernel, Statistics, Unit, Weights

Array = NDArray[np.float64]


class Candidate(NamedTuple):
    """What may have been folded."""

    weights: Weights
    statistics: Statistics
    epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """A layer's kernel that is an operator's, up to one factor a channel."""

    unit: Unit
    place: Place
    held: Held
    weights: Weights
    kernel: Array
    """(channels, fan-in), in the operator's form."""
    bounds: Bounds


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """What was folded, for a match."""

    match: Match
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
        scale = weights.gamma / np.sqrt(statistics.variance + epsilon)
        bias = weights.beta + (weights.bias - statistics.mean) * scale
        terms = np.abs(weights.beta) + (np.abs(weights.bias) + np.abs(statistics.mean)) * np.abs(scale)
    return Folded(scale=scale, bias=bias, terms=terms)


def matches(unit: Unit, place: Place, helds: tuple[Held, ...]) -> Iterator[Match]:
    """The ways in which an operator holds one of a layer's kernels; raises ReadError."""
    seen: set[str] = set()
    for weights in unit.weights:
        kernel = weights.kernel
        if kernel is None or kernel.tensor.name + weights.told in seen:
            continue
        seen.add(kernel.tensor.name + weights.told)
        for form in _forms(kernel, place):
            for held in helds:
                known = bounds(held, form)
                if known.fits:
                    yield Match(unit=unit, place=place, held=held, weights=weights, kernel=form, bounds=known)


def _forms(kernel: Kernel, place: Place) -> Iterator[Array]:
    if kernel.tensor.unavailable is not None:
        return
    if int(np.prod(kernel.tensor.shape, dtype=np.int64)) != place.channels * place.fan_in:
        return
    yield from (form for form in kernel.forms(place.channels) if form.shape == (place.channels, place.fan_in))


def explain(match: Match) -> Explanation | None:
    """The explanation that takes the fewest liberties; None where none of them gives the operator's numbers."""
    for rank, candidate in enumerate(_candidates(match)):
        folded = fold(candidate)
        if explains(match.held, match.bounds, folded):
            return _explanation(match, candidate, folded, rank)
    return _with_converter(match)


def _candidates(match: Match) -> Iterator[Candidate]:
    """Stored first, each with the model's epsilon; then with whatever epsilon the scale asks for."""
    unit = match.unit
    sets = sorted(unit.weights, key=lambda weights: weights.told != match.weights.told)
    for epsilon in unit.epsilons:
        for statistics in unit.statistics:
            yield from (Candidate(weights, statistics, epsilon) for weights in sets)
    for statistics in unit.statistics:
        for weights in sets:
            asked = epsilon_of(match.bounds, weights.gamma, statistics.variance)
            if asked is not None and asked not in unit.epsilons:
                yield Candidate(weights, statistics, asked)


def _explanation(match: Match, candidate: Candidate, folded: Folded, rank: int, why: str = "") -> Explanation:
    told, kernels = candidate.weights.told, match.weights.told
    return Explanation(
        match=match,
        folded=candidate.statistics.folded,
        fit=measure(match.held, match.bounds, match.kernel, folded),
        rank=rank,
        weights=told if told == kernels else f"{kernels} kernel, {told} gamma and beta",
        epsilon=candidate.epsilon,
        why=why,
    )


_TAKEN_IN = 100
"""Rank of explanations with arithmetic of the converter's."""


def _with_converter(match: Match) -> Explanation | None:
    """The stored statistics and a multiplication or addition of one number that the converter took in.

    Before the operator (an image scaled by 1 / 255, a hard swish's 1 / 6): the kernel times c, the bias plus k times
    the kernel's sum. Behind it: kernel and bias times c, the bias plus d.
    """
    for epsilon in match.unit.epsilons or USUAL_EPSILONS[:2]:
        candidate = Candidate(match.weights, match.unit.statistics[0], epsilon)
        folded = fold(candidate)
        fits = bool(np.all(scale_fits(match.bounds, folded.scale)))
        factor = 1.0 if fits else common_factor(match.bounds, folded.scale)
        for bias_factor in () if factor is None else dict.fromkeys((1.0, factor)):
            told = _bias_with(match, multiplied(folded, factor or 1.0, bias_factor), factor or 1.0)
            if told is not None:
                return _explanation(match, candidate, told[0], _TAKEN_IN, told[1])
    return None


def _bias_with(match: Match, folded: Folded, factor: float) -> tuple[Folded, str] | None:
    """(fold, words) with which the bias fits; None where it does not."""
    held = match.held
    times = "" if factor == 1.0 else f"times {factor:.6g}"
    if times and bool(np.all(bias_fits(held, folded))):
        return folded, f"{times}, a multiplication that the converter took in"
    for direction in (held.kernel.sum(axis=1), np.ones(held.bias.size)):
        addend = common_addend(held, folded, direction)
        if addend is not None:
            joined = f"{times} and " if times else ""
            words = f"{joined}shifted by one number, arithmetic that the converter took in"
            return shifted(folded, addend * direction), words
    return None
