"""BN119 statistics-contradict-weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Purpose
from bncheck.facts.predicted import Predicted
from bncheck.facts.wording import listing, many
from bncheck.numerics.agreement import HARM, HEALTHY, SIGMAS, Agreement, agreement
from bncheck.numerics.channels import names
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import indented, repair
from bncheck.testing import batch_norm, facts

SURE = 6.0
"""The same from which chance is out of the question."""
LOW = 0.5
"""Correlation below which it is asked whether the vectors are another layer's; a guess."""


@rule(
    "BN119",
    "statistics-contradict-weights",
    severity=Severity.WARNING,
    confidence=Confidence.MEDIUM,
    needs=Needs.VALUES,
    explained_by=("BN101", "BN102", "BN105", "BN109", "BN115"),
    sees_too="D05",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The moving means are not those that the weights before the layer predict.

    What it detects
    ---------------
    Layers whose moving means do not follow from beta and gamma of the batch norm before, the activation and the kernel
    in between: channels in another order, vectors of another layer or another checkpoint, statistics that stayed
    behind while the weights moved on.

    Why it matters
    --------------
    The file looks healthy: the statistics moved, and their sizes are plausible. In eval mode
    channels are shifted by means that are not theirs, which the next layer was not trained on.

    How it decides
    --------------
    A batch norm's output has mean beta and deviation gamma, whatever statistics it stores. Taken for normal, it goes
    through the activation, and its mean through the kernel, borders included; no data are needed. Stored and predicted
    means of the living channels then correlate: by 0.99 in the median of 152 layers of seven healthy models, and by
    0.85 or more in 151. A layer is named where the correlation lies 3.3 standard errors (Fisher's z) below 0.7, or
    another layer's weights predict its means, and the means are off by a quarter of a deviation. It is an ERROR where
    the correlation is 6 standard errors too low and the means are off by half a deviation. Layers that never moved are
    BN101's and BN102's; layers frozen in eval mode, or not trainable, may well be right with statistics of other
    weights, and are left out. Once eval mode was run against train mode, what that measured counts instead.

    Not detected
    ------------
    Layers behind the input, a max pooling, a gate, a convolution with an activation of its own or in groups; layers
    with fewer than 8 living channels; variances, which depend on how channels vary together; errors of the means that
    do no harm.

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
    judged = [(layer, found) for layer in model.layers if _may_be_judged(model, layer) and (found := agreement(layer))]
    donors = {
        layer.name: donor for layer, found in judged if found.error > HARM and (donor := _donor(model, layer, found))
    }
    bad = [
        (layer, found)
        for layer, found in judged
        if found.error > HARM and (found.sigmas > SIGMAS or layer.name in donors)
    ]
    if not bad:
        return
    worst, seen = max(bad, key=lambda pair: pair[1].sigmas)
    sure = seen.sigmas > SURE and seen.error > 2 * HARM
    layers = names(layer for layer, _ in bad)
    yield Evidence(
        layers=layers,
        message=f"The moving means of {many(len(bad), 'layer')} of {len(judged)} do not fit the weights before "
        f"{'it' if len(bad) == 1 else 'them'}: {listing(layers)}{_whose(donors)}. In {worst.name}, stored and "
        f"predicted means correlate by {seen.correlation:.2f} over {many(seen.channels, 'channel')} (healthy: at least "
        f"{HEALTHY}) and differ by {seen.error:.2g} standard deviations. {_origin(donors)}",
        severity=Severity.ERROR if sure else Severity.WARNING,
        confidence=Confidence.HIGH if sure else Confidence.MEDIUM,
        location=worst.mean.name,
        fix=f"Restore the statistics from the file the weights came from, or re-estimate them:\n"
        f"{indented(repair(model))}",
        measurements=(
            Measurement(name="correlation of stored and predicted means", value=seen.correlation, limit=HEALTHY),
            Measurement(name="difference of the means", value=seen.error, limit=HARM, unit="deviations"),
            Measurement(name="layers that contradict their weights", value=len(bad), limit=0, unit="layers"),
            Measurement(name="layers judged", value=len(judged), unit="layers"),
        ),
    )


def _may_be_judged(model: Facts, layer: Layer) -> bool:
    """Whether the layer's statistics ought to be of its weights: they moved, and it is not frozen."""
    training = model.graph is not None and model.graph.purpose is Purpose.TRAINING
    frozen = training and all(site.mode is Mode.EVAL for site in layer.sites)
    return layer.mean.moved is True and layer.variance.moved is True and not frozen and layer.trainable is not False


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


def _origin(donors: Mapping[str, str]) -> str:
    """What else is known of where the vectors come from, as a sentence."""
    if donors:
        return "The vectors of two layers were mixed up."
    return "Their channels are in another order, or they belong to other weights: the file does not tell which."


_WEIGHTS = np.linspace(-2.0, 2.0, 32)


def clean() -> tuple[Facts, ...]:
    """Means as predicted, and a tenth of a deviation beside; too few channels; no prediction."""
    predicted = Predicted(mean=_WEIGHTS, variance=np.ones(32))
    few = Predicted(mean=_WEIGHTS[:4], variance=np.ones(4))
    return (
        facts(batch_norm("bn", mean=_WEIGHTS, variance=1.1, channels=32, predicted=predicted)),
        facts(batch_norm("bn", mean=_WEIGHTS + 0.1, variance=1.1, channels=32, predicted=predicted)),
        facts(batch_norm("bn", mean=_WEIGHTS[:4][::-1], variance=1.1, channels=4, predicted=few)),
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
