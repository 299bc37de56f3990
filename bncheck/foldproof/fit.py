"""Which scales explain a folded kernel, and whether given ones do.

A folded kernel is the layer's own times one number a channel, so each weight of a channel bounds that number from both
sides, by what rounding to the file's type may have done. Where the bounds of all weights have a number in common, the
kernel is this layer's, whatever statistics were folded; that number is then held against each set of statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bncheck.foldproof.kernel_places import TINY, Held

Array = NDArray[np.float64]

FLOAT32 = 1e-6
"""What the half dozen float32 operations of a fold may lose, relative to the largest of the numbers they join."""

USUAL_EPSILONS = (1e-3, 1e-5, 1e-4, 1.001e-5, 1e-6, 2e-5, 1e-2, 1e-7, 1e-8, 1e-12, 0.0)
_LARGEST_EPSILON = 0.1
_TRIED = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Bounds:
    """Per channel, between which numbers the factor lies that leads from a layer's kernel to the operator's."""

    low: Array
    high: Array
    best: Array
    """Least squares; 0 where nothing of a channel is left after rounding, NaN where the kernel is zero."""
    broken: NDArray[np.bool_]
    """Channels of the operator that hold NaN or infinity."""
    fits: bool
    """Whether every channel has such a number: the kernel is the operator's, whatever was folded into it."""
    telling: int
    """Weights that could have contradicted and did not: those beyond the first of each channel that rounding left."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folded:
    """What a fold gives, (channels,) each: the factor of the kernel, and the bias."""

    scale: Array
    bias: Array
    terms: Array
    """Sum of the magnitudes that `bias` is the difference of: beta, mean * scale, convolution bias * scale."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """What a fold is made of but epsilon, (channels,) each: its bias is beta + shift * scale."""

    gamma: Array
    variance: Array
    beta: Array
    shift: Array
    """Convolution bias - mean."""
    terms: Array
    """Sum of the magnitudes that the bias is the difference of, at some usual epsilon."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """How a computed fold compares with an operator, at the number that has least to spare."""

    error: float
    tolerance: float
    kernel_off: int
    """Channels whose kernel differs by more than its tolerance."""
    bias_off: int

    @property
    def good(self) -> bool:
        """Whether nothing differs by more than rounding explains."""
        return not self.kernel_off and not self.bias_off


def bounds(held: Held, kernel: Array) -> Bounds:
    """Of an operator and a layer's kernel in the same form, (channels, fan-in)."""
    strict = _bounds(held, kernel, cut_off=None)
    if strict.fits or held.saturated is None:
        return strict
    return _bounds(held, kernel, cut_off=held.saturated)


def may_fit(held: Held, kernel: Array) -> bool:
    """Whether the operator's largest channels are the kernel's up to a factor each: a tenth of the work, or less.

    `kernel` may be of any float type.
    """
    with np.errstate(invalid="ignore"):
        largest = np.argsort(-np.abs(held.kernel).max(axis=1))[:_TRIED]
    some = replace(
        held,
        kernel=held.kernel[largest],
        kernel_half=held.kernel_half[largest],
        saturated=None if held.saturated is None else held.saturated[largest],
    )
    return bounds(some, kernel[largest].astype(np.float64)).fits


def _bounds(held: Held, kernel: Array, cut_off: NDArray[np.bool_] | None) -> Bounds:
    found = held.kernel
    with np.errstate(all="ignore"):
        broken = ~np.isfinite(found).all(axis=1) | ~np.isfinite(kernel).all(axis=1)
        largest = np.abs(found).max(axis=1)
        half = (held.kernel_half + FLOAT32 * largest + TINY)[:, None]
        below, above = found - half, found + half
        if cut_off is not None:  # the true weight lies at the end of the range or beyond it
            above = np.where(cut_off & (found > 0), np.inf, above)
            below = np.where(cut_off & (found < 0), -np.inf, below)
        one, other = below / kernel, above / kernel
        low = np.where(kernel > 0, one, np.where(kernel < 0, other, -np.inf)).max(axis=1)
        high = np.where(kernel > 0, other, np.where(kernel < 0, one, np.inf)).min(axis=1)
        stray = ((kernel == 0) & (np.abs(found) > half)).any(axis=1)
        energy = (kernel * kernel).sum(axis=1)
        best = (found * kernel).sum(axis=1) / energy
    misfit = (~(low <= high) | stray) & ~broken
    used = (kernel != 0) & ((low > 0) | (high < 0))[:, None]
    return Bounds(
        low=np.where(broken, -np.inf, low),
        high=np.where(broken, np.inf, high),
        best=best,
        broken=np.asarray(broken),
        fits=not misfit.any(),
        telling=int(np.maximum(used.sum(axis=1) - 1, 0).sum()),
    )


def explains(held: Held, known: Bounds, folded: Folded) -> bool:
    """Whether scale and bias are the operator's within rounding; cheap, as no kernel is touched."""
    return bool(np.all(scale_fits(known, folded.scale))) and bool(np.all(bias_fits(held, folded)))


def scale_fits(known: Bounds, scale: Array) -> NDArray[np.bool_]:
    """(channels,): whether a scale lies within the bounds; not a number fits where the operator's is none either."""
    with np.errstate(invalid="ignore"):
        inside = (known.low <= scale) & (scale <= known.high)
    return np.where(known.broken, ~np.isfinite(scale), inside)


def bias_fits(held: Held, folded: Folded) -> NDArray[np.bool_]:
    """(channels,): whether a bias is the operator's within rounding."""
    with np.errstate(invalid="ignore", over="ignore"):
        near = np.abs(held.bias - folded.bias) <= held.bias_half + FLOAT32 * folded.terms + TINY
    return np.where(np.isfinite(held.bias), near, ~np.isfinite(folded.bias))


def measure(held: Held, known: Bounds, kernel: Array, folded: Folded) -> Fit:
    """The largest difference of folded kernel and bias over their largest value, with the tolerance there."""
    with np.errstate(all="ignore"):
        weights = kernel * folded.scale[:, None]
        largest = np.abs(weights).max(axis=1)
        off = np.abs(weights - held.kernel)
        if held.saturated is not None:
            off = np.where(held.saturated & (np.abs(weights) > np.abs(held.kernel)), 0.0, off)
        parts = (
            (off.max(axis=1), held.kernel_half + FLOAT32 * largest + TINY, largest),
            (np.abs(held.bias - folded.bias), held.bias_half + FLOAT32 * folded.terms + TINY, folded.terms),
        )
    best = (0.0, 0.0, FLOAT32)
    for differences, allowed, sizes in parts:
        whole = float(np.max(sizes[np.isfinite(sizes)], initial=0.0))
        usable = np.isfinite(differences) & np.isfinite(allowed)
        if not usable.any() or whole == 0.0:
            continue
        ratio = np.where(usable, differences / allowed, 0.0)
        worst = int(np.argmax(ratio))
        if ratio[worst] >= best[0]:
            best = float(ratio[worst]), float(differences[worst] / whole), float(allowed[worst] / whole)
    return Fit(
        error=best[1],
        tolerance=best[2],
        kernel_off=int((~scale_fits(known, folded.scale)).sum()),
        bias_off=int((~bias_fits(held, folded)).sum()),
    )


def epsilons_of(known: Bounds, held: Held, line: Line) -> Iterator[float]:
    """Epsilons with which gamma / sqrt(variance + epsilon) fits all bounds and gives the bias: usual ones, else one.

    Each channel bounds it twice: by its scale, epsilon = (gamma / scale)**2 - variance, and by its bias, for which the
    scale is (bias - beta) / (convolution bias - mean).
    """
    with np.errstate(all="ignore"):
        allowed = held.bias_half + FLOAT32 * line.terms + TINY
        ends = np.stack([held.bias - line.beta - allowed, held.bias - line.beta + allowed]) / line.shift
    by_bias = np.sort(ends, axis=0)
    least, most = 0.0, _LARGEST_EPSILON
    for low, high in ((known.low, known.high), (by_bias[0], by_bias[1])):
        usable = ~known.broken & np.isfinite(line.gamma) & np.isfinite(line.variance) & ~np.isnan(low) & ~np.isnan(high)
        found = _epsilon_between(low[usable], high[usable], line.gamma[usable], line.variance[usable])
        least, most = max(least, found[0]), min(most, found[1])
    if not least <= most:
        return
    usual = [epsilon for epsilon in USUAL_EPSILONS if least <= epsilon <= most]
    yield from usual or [_round(least, most)]


def _epsilon_between(low: Array, high: Array, gamma: Array, variance: Array) -> tuple[float, float]:
    """Between which numbers epsilon lies, given those between which each channel's scale lies; reversed: nowhere."""
    with np.errstate(all="ignore"):
        sizes = np.sort(np.abs(np.stack([low, high])), axis=0)
        crossing = low * high <= 0
        wrong = ~crossing & (low * gamma < 0)
        nearest = np.where(crossing, 0.0, sizes[0])
        least = np.where(gamma == 0, -np.inf, (gamma / sizes[1]) ** 2 - variance)
        most = np.where((gamma == 0) | (nearest == 0), np.inf, (gamma / nearest) ** 2 - variance)
    if wrong.any():
        return np.inf, -np.inf
    return float(np.max(least, initial=-np.inf)), float(np.min(most, initial=np.inf))


def _round(least: float, most: float) -> float:
    """The number of fewest digits between two."""
    middle = (least + most) / 2
    rounded = (float(f"{middle:.{digits}e}") for digits in range(8))
    return next((number for number in rounded if least <= number <= most), middle)


Interval = tuple[float, float]


def common_factor(known: Bounds, scale: Array) -> Interval | None:
    """Between which numbers the one lies by which `scale` must be multiplied to fit all bounds; None: nowhere.

    The converter takes a multiplication by one number into the linear operator behind or before it.
    """
    with np.errstate(all="ignore"):
        ends = np.sort(np.stack([known.low / scale, known.high / scale]), axis=0)
    usable = ~known.broken & np.isfinite(scale) & (scale != 0) & np.isfinite(ends).all(axis=0)
    found = _common(ends[:, usable], fewest=2)
    if found is None or found[0] * found[1] <= 0:
        return None
    return found if bool(np.all(scale_fits(known, scale * sum(found) / 2) | ~usable)) else None


def common_addend(held: Held, folded: Folded, direction: Array) -> Interval | None:
    """Between which numbers the k lies with which the fold's bias + k * direction is the operator's; None: nowhere."""
    with np.errstate(all="ignore"):
        allowed = held.bias_half + FLOAT32 * folded.terms + TINY
        off = held.bias - folded.bias
        ends = np.sort(np.stack([(off - allowed) / direction, (off + allowed) / direction]), axis=0)
    return _common(ends[:, np.isfinite(ends).all(axis=0)], fewest=3)


def slope(held: Held, folded: Folded) -> float | None:
    """The c of the line c * bias + d that comes nearest to the operator's biases; None where they tell none."""
    with np.errstate(all="ignore"):
        weight = 1 / (held.bias_half + FLOAT32 * folded.terms + TINY)
    usable = np.isfinite(weight) & np.isfinite(held.bias) & np.isfinite(folded.bias)
    if int(usable.sum()) < 4:
        return None
    weight = weight[usable] / weight[usable].max()
    given, wanted = folded.bias[usable], held.bias[usable]
    given, wanted = given - np.average(given, weights=weight), wanted - np.average(wanted, weights=weight)
    energy = float((weight * given * given).sum())
    return float((weight * given * wanted).sum()) / energy if energy > 0 else None


def _common(ends: Array, *, fewest: int) -> Interval | None:
    """What intervals, (2, number), have in common, of which there must be some."""
    if ends.shape[1] < fewest:
        return None
    low, high = float(ends[0].max()), float(ends[1].min())
    return (low, high) if low <= high else None


def shifted(folded: Folded, by: Array) -> Folded:
    """The same with something added to the bias."""
    return Folded(scale=folded.scale, bias=folded.bias + by, terms=folded.terms + np.abs(by))


def multiplied(folded: Folded, by: float) -> Folded:
    """The same times one number."""
    return Folded(scale=folded.scale * by, bias=folded.bias * by, terms=folded.terms * abs(by))
