"""BN119 statistics-contradict-weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Purpose
from bncheck.facts.predicted import Predicted
from bncheck.facts.wording import listing, many
from bncheck.numerics.agreement import HARM, HEALTHY, SIGMAS, Agreement, agreement, agreements
from bncheck.numerics.channels import median, names
from bncheck.numerics.init_share import init_share
from bncheck.numerics.variance_agreement import variance_agreement
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.against_weights import AgainstWeights, variances_against_weights
from bncheck.rules.shared.fixes import indented, repair
from bncheck.testing import batch_norm, facts

SURE = 6.0
"""The same from which chance is out of the question."""
FAR, TIMES = 0.75, 4.0
"""The same from which a layer is named whatever the correlation, which few channels do not tell, and times the median
error of all layers; guesses."""
USUAL = 0.95
"""Correlation below which most layers of a model lie if something is wrong; where most reach it, one of few channels
is held against it."""
SCATTERED = 0.7
"""Robust deviation of log stored against log predicted variances from which variances do harm; healthy: 0.3."""
MANY, SEVERAL = 0.1, 5
"""Part of the layers that cannot all be harmless, though each is by itself; layers that tell what is usual."""
LEFT = 0.01
"""Init share that shows in variances: an input of small deviation has less."""
LOW = 0.5
"""Correlation below which it is asked whether the vectors are another layer's; a guess."""


@rule(
    "BN119",
    "statistics-contradict-weights",
    severity=Severity.WARNING,
    confidence=Confidence.MEDIUM,
    needs=Needs.VALUES,
    explained_by=("BN101", "BN102", "BN103", "BN104", "BN105", "BN106", "BN109", "BN113", "BN115"),
    sees_too="D05",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The moving means or variances are not those that the weights before the layer predict.

    What it detects
    ---------------
    Layers whose statistics do not follow from beta and gamma of the batch norm before, the activation and the kernel
    in between: channels in another order, vectors of another layer or another checkpoint, statistics that stayed
    behind while the weights moved on; standard deviations stored as variances, variances of another scale, initial
    value left in the variances alone.

    Why it matters
    --------------
    The file looks healthy: the statistics moved, and their sizes are plausible. In eval mode
    channels are shifted and scaled by statistics that are not theirs, which the next layer was not trained on.

    How it decides
    --------------
    A batch norm's output has mean beta and deviation gamma, whatever statistics it stores. Taken for normal, it goes
    through the activation, and its mean through the kernel, borders included; no data are needed. Stored and predicted
    means of the living channels then correlate: by 0.99 in the median of 200 layers of eight healthy models, and by
    0.85 or more in 199. A layer is named where the correlation lies 3.3 standard errors (Fisher's z) below 0.7, or
    another layer's weights predict its means, and the means are off by a quarter of a deviation or the variances
    scatter; or where this holds of a tenth of the layers, harmful each or not. Layers of few channels are held against
    the model's other layers. Behind the images, whose means are unknown, these are fitted first.

    Variances are predicted up to a factor, for how far channels vary together is not known. Logarithms of stored ones
    rise with those of the predicted ones by 0.8 or more, standard errors allowed for; a layer is named below 0.6. Its
    factor lies between those of the four layers to each side, or beyond them by 2.3 at most; a layer is named from 3.7
    on, and all layers where the factor of all is above 9.

    It is an ERROR where chance is out of the question: 6 standard errors, and means off by half a deviation. Layers
    that never moved are BN101's and BN102's; layers frozen in eval mode, or not trainable, may well be right with
    statistics of other weights, and are left out. Once eval mode was run against train mode, what that measured counts
    instead.

    Not detected
    ------------
    Layers behind an unknown input that has more than a quarter of their channels, or a convolution in groups; layers
    with fewer than 4 living channels; all variances of a model off by the same factor below 9; errors that do no harm.

    Fix
    ---
    Restore the statistics from the file that the weights came from, or re-estimate them:

        bncheck repair PATH -o OUT --data images/

    References
    ----------
    arXiv 1906.04721 (section 4.2.1, the expected output of a layer without data).
    """
    if model.comparison is not None:
        return
    judged = [layer for layer in model.layers if _may_be_judged(model, layer) and layer.predicted is not None]
    means = _means(model, judged)
    variances = variances_against_weights([layer for layer in judged if _settled(model, layer)])
    layers = names(layer for layer in judged if layer.name in means.bad or layer.name in variances.bad)
    if not layers:
        return
    told = [each for each in (means, variances) if each.bad]
    sure = any(each.sure for each in told)
    yield Evidence(
        layers=layers,
        message=" ".join(each.message for each in told),
        severity=Severity.ERROR if sure else Severity.WARNING,
        confidence=Confidence.HIGH if sure else Confidence.MEDIUM,
        location=told[0].location,
        fix=f"Restore the statistics from the file the weights came from, or re-estimate them:\n"
        f"{indented(repair(model))}",
        measurements=(
            *(measurement for each in told for measurement in each.measurements),
            Measurement(name="layers that contradict their weights", value=len(layers), limit=0, unit="layers"),
            Measurement(name="layers judged", value=len(judged), unit="layers"),
        ),
    )


def _means(model: Facts, layers: Sequence[Layer]) -> AgainstWeights:
    judged = [(layer, found) for layer, found in zip(layers, agreements(layers), strict=True) if found is not None]
    donors = {
        layer.name: donor for layer, found in judged if found.error > HARM and (donor := _donor(model, layer, found))
    }
    settled = [layer for layer in layers if _settled(model, layer)]
    named = _unlike(judged) | _far(judged, settled) | donors.keys()
    bad = [(layer, found) for layer, found in judged if layer.name in named]
    if not bad:
        return AgainstWeights()
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


def _unlike(judged: Sequence[tuple[Layer, Agreement]]) -> set[str]:
    """Layers whose means do not correlate with the prediction, and do harm or are many."""
    typical = median(np.array([found.correlation for _, found in judged])) if len(judged) >= SEVERAL else 0.0
    others = min(typical, USUAL)
    doubted = [(layer, found) for layer, found in judged if found.sigmas > SIGMAS]
    many_are = len(doubted) >= max(3, MANY * len(judged))
    named = {layer.name for layer, found in doubted if many_are or found.error > HARM or _scattered(layer)}
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
    return {layer.name for layer, found in judged if found.error > least and not found.rough and layer in settled}


def _scattered(layer: Layer) -> bool:
    found = variance_agreement(layer)
    return found is not None and found.spread > SCATTERED


def _may_be_judged(model: Facts, layer: Layer) -> bool:
    """Whether the layer's statistics ought to be of its weights: they moved, and it is not frozen."""
    training = model.graph is not None and model.graph.purpose is Purpose.TRAINING
    frozen = training and all(site.mode is Mode.EVAL for site in layer.sites)
    return layer.mean.moved is True and layer.variance.moved is True and not frozen and layer.trainable is not False


def _settled(model: Facts, layer: Layer) -> bool:
    """Whether no initial value is left by the counters; what is left is BN103's."""
    return (init_share(layer, model.run.updates) or 0.0) < LEFT


def _donor(model: Facts, layer: Layer, found: Agreement) -> str:
    """The layer whose weights predict the means that this one stores; empty where there is none."""
    if found.correlation > LOW:
        return ""
    others = (other for other in model.layers if other is not layer)
    fits = (other.name for other in others if (fit := agreement(other, layer.mean.values)) and fit.sigmas < -SIGMAS)
    return next(fits, "")


def _whose(donors: Mapping[str, str]) -> str:
    """Which layer's weights the means of another one fit, as a clause; empty where there is none."""
    layer, donor = next(iter(donors.items()), ("", ""))
    return f"; those of {layer} fit the weights before {donor}" if donors else ""


def _origin(donors: Mapping[str, str], correlation: float) -> str:
    """What else is known of where the vectors come from, as a sentence."""
    if donors:
        return "The vectors of two layers were mixed up."
    if correlation > HEALTHY:
        return "They are of the right order and of another size."
    return "Their channels are in another order, or they belong to other weights: the file does not tell which."


_WEIGHTS = np.linspace(-2.0, 2.0, 32)


def clean() -> tuple[Facts, ...]:
    """Means as predicted, and a tenth of a deviation beside; too few channels; no prediction."""
    predicted = Predicted(mean=_WEIGHTS, variance=np.ones(32))
    few = Predicted(mean=_WEIGHTS[:3], variance=np.ones(3))
    return (
        facts(batch_norm("bn", mean=_WEIGHTS, variance=1.1, channels=32, predicted=predicted)),
        facts(batch_norm("bn", mean=_WEIGHTS + 0.1, variance=1.1, channels=32, predicted=predicted)),
        facts(batch_norm("bn", mean=_WEIGHTS[:3][::-1], variance=1.1, channels=3, predicted=few)),
        facts(batch_norm("bn", mean=_WEIGHTS[::-1], variance=1.1, channels=32)),
    )


def broken() -> tuple[Facts, ...]:
    """Channels in the opposite order; means of no relation to the weights."""
    predicted = Predicted(mean=_WEIGHTS, variance=np.ones(32))
    strange = np.cos(np.arange(32) * 2.0)
    return (
        facts(batch_norm("bn", mean=_WEIGHTS[::-1], variance=1.1, channels=32, predicted=predicted)),
        facts(batch_norm("bn", mean=strange, variance=1.1, channels=32, predicted=predicted)),
    )
