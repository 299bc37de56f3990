"""What else an operator with a layer's kernel may hold: a second scale behind it, or another layer's numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bncheck.foldproof.explain_layer import Candidate, Explained, Explanation, explained_by, fold
from bncheck.foldproof.fit import (
    USUAL_EPSILONS,
    Array,
    Folded,
    bias_fits,
    common_addend,
    explains,
    scale_fits,
    shifted,
)
from bncheck.foldproof.source_units import Source, Unit

_RANK = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class Together:
    """An explanation that takes a second layer in, which has no operator of its own."""

    explanation: Explanation
    second: Unit | None


def beyond(match: Explained, source: Source) -> Together | None:
    """The stored statistics with one more scale and shift of the model's behind them; None where none fits."""
    if not match.unit.beside.behind:
        return None
    units = [unit for unit in source.units if unit.channels == match.unit.channels and unit is not match.unit]
    for candidate in _stored(match):
        folded = fold(candidate)
        for unit in units:
            behind = next(_own(unit), None)
            if behind is None or unit.problem:
                continue
            joined = _then(folded, behind)
            if explains(match.held, match.bounds, joined):
                why = f"together with {unit.layer.name}, which follows it"
                return Together(explanation=explained_by(match, candidate, joined, _RANK, why), second=unit)
        further = _further_scale(match, folded, source)
        if further is not None:
            return Together(explanation=explained_by(match, candidate, *further), second=None)
    return None


def of_another(match: Explained, units: Sequence[Unit]) -> Explanation | None:
    """Another layer's statistics, with or without its gamma and beta, on this layer's kernel."""
    for unit in units:
        if unit is match.unit or unit.channels != match.unit.channels or unit.problem or not unit.statistics:
            continue
        swapped = replace(match.weights, gamma=unit.weights[0].gamma, beta=unit.weights[0].beta)
        for weights, whose in ((match.weights, "the statistics"), (swapped, "gamma, beta and statistics")):
            for epsilon in match.unit.epsilons or unit.epsilons or USUAL_EPSILONS[:2]:
                candidate = Candidate(weights, replace(unit.statistics[0], folded="other"), epsilon)
                folded = fold(candidate)
                if explains(match.held, match.bounds, folded):
                    return explained_by(match, candidate, folded, _RANK, f"{whose} of {unit.layer.name} fit")
    return None


def _stored(match: Explained) -> Iterator[Candidate]:
    for epsilon in match.unit.epsilons or USUAL_EPSILONS[:2]:
        yield Candidate(match.weights, match.unit.statistics[0], epsilon)


def _own(unit: Unit) -> Iterator[Folded]:
    """A layer's own scale and shift, no convolution before it."""
    if unit.statistics:
        weights = replace(unit.weights[0], bias=np.zeros(unit.channels))
        yield from (
            fold(Candidate(weights, unit.statistics[0], epsilon)) for epsilon in unit.epsilons or USUAL_EPSILONS[:2]
        )


def _then(first: Folded, second: Folded) -> Folded:
    return Folded(
        scale=first.scale * second.scale,
        bias=first.bias * second.scale + second.bias,
        terms=first.terms * np.abs(second.scale) + second.terms,
    )


def _further_scale(match: Explained, folded: Folded, source: Source) -> tuple[Folded, int, str] | None:
    """(fold, rank, words) with vectors that the model stores as scale and shift; None where no pair of them fits."""
    vectors = list(source.vectors(match.unit.channels))
    if bool(np.all(scale_fits(match.bounds, folded.scale))):
        shift = _further_shift(match, folded, vectors)
        return None if shift is None else (shift[0], _RANK + 1, f"{shift[1].strip()}, which the model holds besides")
    for name, scale in vectors:
        if not np.all(scale_fits(match.bounds, folded.scale * scale)):
            continue
        scaled = _then(folded, Folded(scale=scale, bias=np.zeros_like(scale), terms=np.zeros_like(scale)))
        found = _further_shift(match, scaled, vectors)
        if found is not None:
            return found[0], _RANK + 1, f"times {name}{found[1]}, which the model holds besides"
    return None


def _further_shift(match: Explained, folded: Folded, vectors: Sequence[tuple[str, Array]]) -> tuple[Folded, str] | None:
    if bool(np.all(bias_fits(match.held, folded))):
        return folded, ""
    for name, shift in vectors:
        moved = shifted(folded, shift)
        if bool(np.all(bias_fits(match.held, moved))):
            return moved, f" plus {name}"
    ones = np.ones(match.unit.channels)
    found = common_addend(match.held, folded, ones)
    return None if found is None else (shifted(folded, ones * (sum(found) / 2)), " plus one number")


def difference(match: Explained) -> tuple[Explanation, str]:
    """How far the stored fold is from an operator's numbers that nothing explains, and in words."""
    candidate = next(_stored(match))
    folded = fold(candidate)
    found = explained_by(
        match,
        Candidate(candidate.weights, replace(candidate.statistics, folded="other"), candidate.epsilon),
        folded,
        _RANK,
    )
    channels = match.unit.channels
    off, shift = found.fit.kernel_off, found.fit.bias_off
    if not off:
        return (
            found,
            f"the scale is that of the stored statistics, the bias differs in {shift} of {channels} channels",
        )
    with np.errstate(all="ignore"):
        ratio = match.bounds.best / folded.scale
    ratio = ratio[np.isfinite(ratio)]
    span = f" ({ratio.min():.4g} to {ratio.max():.4g} times that of the stored statistics)" if ratio.size else ""
    also = f", the bias in {shift}" if shift else ", while the bias fits"
    return found, f"the scale differs in {off} of {channels} channels{span}{also}"
