"""Moving means held against what the weights before their layers predict, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from bncheck.facts.findings import Measurement
from bncheck.facts.layers import Layer
from bncheck.facts.wording import listing, many
from bncheck.numerics.agreement import HARM, HEALTHY, ROUGH, SIGMAS, Agreement, agreements
from bncheck.numerics.channels import median, names
from bncheck.numerics.variance_agreement import FLAT, variance_agreement
from bncheck.rules.shared.against_weights import SURE, AgainstWeights

FAR, TIMES = 0.75, 4.0
"""The same from which a layer is named whatever the correlation, which few channels do not tell, and times the median
error of all layers; guesses."""
USUAL = 0.95
"""Correlation below which most layers of a model lie if something is wrong; where most reach it, one of few channels
is held against it."""
SCATTERED = 0.7
"""Robust deviation of log stored against log predicted variances from which variances do harm; healthy: 0.3."""
SEVERAL = 5
"""Layers that tell what is usual in a model."""
STALE, MOST = 0.97, 10
"""Median correlation of so many layers or more, below which all statistics are of older weights."""
OLDER = 0.004
"""What that lacks to 1, times the median error, from which on they are so above that correlation too."""
LEAST = 0.095
"""Median error of all layers, in deviations, below which they are not: means that hardly differ from channel to channel
correlate badly, and do no harm. Of a hundred healthy nets, most after a few hundred steps, thirty are above it, with
correlations of 0.972 to 1 and products of 0.0002 to 0.0035; with statistics of 40 % of the steps, where these cost more
than 5 points, errors are 0.07 to 0.42 and products 0.001 to 0.09."""
LOW = 0.5
"""Correlation below which it is asked whether the vectors are another layer's; a guess."""


def means_against_weights(layers: Sequence[Layer], others: Sequence[Layer], settled: Sequence[Layer]) -> AgainstWeights:
    """Of layers in forward order: whose means are not the predicted ones.

    `others` are all of the model, whose vectors they may store; `settled` those that hold no initial value.
    """
    judged = [(layer, found) for layer, found in zip(layers, agreements(layers), strict=True) if found is not None]
    donors = {
        layer.name: donor for layer, found in judged if found.error > HARM and (donor := _donor(others, layer, found))
    }
    alone = _unlike(judged) | _far(judged, settled) | donors.keys()
    named = alone | _stale(judged)
    bad = [(layer, found) for layer, found in judged if layer.name in named]
    if not bad:
        return AgainstWeights()
    if not alone:
        return _all_older(bad)
    worst, seen = max(bad, key=lambda pair: pair[1].sigmas)
    layers_named = names(layer for layer, _ in bad)
    return AgainstWeights(
        bad=layers_named,
        message=f"The moving means of {many(len(bad), 'layer')} of {len(judged)} do not fit the weights before "
        f"{'it' if len(bad) == 1 else 'them'}: {listing(layers_named)}{_whose(donors)}. In {worst.name}, stored and "
        f"predicted means correlate by {seen.correlation:.2f} over {many(seen.channels, 'channel')} (healthy: at least "
        f"{HEALTHY}) and differ by {seen.error:.2g} standard deviations. {_origin(donors, seen.correlation)}",
        location=worst.mean.name,
        sure=seen.sigmas > SURE and seen.error > 2 * HARM,
        measurements=(
            Measurement(name="correlation of stored and predicted means", value=seen.correlation, limit=HEALTHY),
            Measurement(name="difference of the means", value=seen.error, limit=HARM, unit="deviations"),
        ),
    )


def _all_older(bad: Sequence[tuple[Layer, Agreement]]) -> AgainstWeights:
    """Of layers whose means are off, though none by itself beyond doubt."""
    correlation = median(np.array([found.correlation for _, found in bad]))
    error = median(np.array([found.error for _, found in bad]))
    return AgainstWeights(
        bad=names(layer for layer, _ in bad),
        message=f"The moving means of {many(len(bad), 'layer')} do not fit the weights before them, though none is "
        f"beyond doubt by itself: in the median stored and predicted means correlate by {correlation:.3f} (healthy: "
        f"0.98 and more) and differ by {error:.2g} standard deviations. Statistics of an earlier step of the training "
        "do so.",
        location=bad[0][0].mean.name,
        measurements=(
            Measurement(name="correlation of stored and predicted means", value=correlation, limit=STALE),
            Measurement(name="difference of the means", value=error, limit=LEAST, unit="deviations"),
        ),
    )


def _unlike(judged: Sequence[tuple[Layer, Agreement]]) -> set[str]:
    """Layers whose means do not correlate with the prediction, and do harm."""
    typical = median(np.array([found.correlation for _, found in judged])) if len(judged) >= SEVERAL else 0.0
    others = min(typical, USUAL)
    doubted = [(layer, found) for layer, found in judged if found.sigmas > SIGMAS]
    named = {layer.name for layer, found in doubted if found.error > HARM or _variances_differ(layer)}
    return named | {
        layer.name
        for layer, found in judged
        if not found.rough
        and found.error > HARM
        and found.correlation < min(LOW, others)
        and found.below(others) > SIGMAS
    }


def _far(judged: Sequence[tuple[Layer, Agreement]], settled: Sequence[Layer]) -> set[str]:
    """Layers whose means are far off, where those of others are not."""
    if len(judged) < SEVERAL:
        return set()
    least = max(FAR, TIMES * median(np.array([found.error for _, found in judged])))
    far = {layer.name: found for layer, found in judged if found.error > least and layer in settled}
    return {name for name, found in far.items() if not found.rough or found.correlation < ROUGH}


def _stale(judged: Sequence[tuple[Layer, Agreement]]) -> set[str]:
    """Layers whose means fit worse than those of healthy models do, where most do."""
    plain = [(layer, found.correlation) for layer, found in judged if not found.rough]
    if len(plain) < MOST:
        return set()
    lacking = 1 - median(np.array([correlation for _, correlation in plain]))
    error = median(np.array([found.error for _, found in judged]))
    if error < LEAST or (lacking <= 1 - STALE and lacking * error < OLDER):
        return set()
    return {layer.name for layer, correlation in plain if correlation < STALE}


def _variances_differ(layer: Layer) -> bool:
    """Whether the variances scatter around the predicted ones, or do not rise with them."""
    found = variance_agreement(layer)
    return found is not None and (found.spread > SCATTERED or found.slope + SIGMAS * found.slope_error < FLAT)


def _donor(layers: Sequence[Layer], layer: Layer, found: Agreement) -> str:
    """The layer whose weights predict the means that this one stores; empty where there is none."""
    if found.correlation > LOW:
        return ""
    means = layer.mean.values
    others = [other for other in layers if other is not layer and means is not None and _channels(other) == means.size]
    fits = zip(others, agreements(others, means), strict=True)
    return next((other.name for other, fit in fits if fit is not None and fit.sigmas < -SIGMAS), "")


def _channels(layer: Layer) -> int:
    return 0 if layer.predicted is None else layer.predicted.mean.size


def _whose(donors: Mapping[str, str]) -> str:
    """Which layer's weights the means of another one fit, as a clause; empty where there is none."""
    layer, donor = next(iter(donors.items()), ("", ""))
    return f"; those of {layer} fit the weights before {donor}" if donors else ""


def _origin(donors: Mapping[str, str], correlation: float) -> str:
    """What else is known of where the vectors come from, as a sentence."""
    if donors:
        return "The vectors of two layers were mixed up."
    if correlation > HEALTHY:
        return "They are of the right order, as those of other steps of the training are."
    return "Their channels are in another order, or they belong to other weights: the file does not tell which."
