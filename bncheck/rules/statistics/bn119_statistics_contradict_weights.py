"""BN119 statistics-contradict-weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Mode, Purpose
from bncheck.facts.predicted import Predicted
from bncheck.facts.wording import many
from bncheck.numerics.channels import names
from bncheck.numerics.init_share import init_share
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared.fixes import indented, repair
from bncheck.rules.shared.means_against_weights import means_against_weights
from bncheck.rules.shared.variances_against_weights import variances_against_weights
from bncheck.testing import batch_norm, facts

AROUND = 2
"""Layers to each side by which one is judged that shows nothing by itself; a guess."""
LEFT = 1e-3
"""Init share that shows in variances: an input of small deviation has less."""


@rule(
    "BN119",
    "statistics-contradict-weights",
    severity=Severity.WARNING,
    confidence=Confidence.MEDIUM,
    needs=Needs.VALUES | Needs.PREDICTIONS,
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
    means of the living channels then correlate: by 0.99 in the median of 500 layers of thirteen healthy models. A layer
    is named where the correlation lies 3.3 standard errors (Fisher's z) below 0.7, or another layer's weights predict
    its means, and the means are off by a quarter of a deviation or the variances differ too. Layers of few channels are
    compared with the model's other layers. Where the median correlation of ten layers or more is below 0.97, or what it
    lacks to 1, times the median error, above 0.004, and that error is above 0.095 deviations, all layers below 0.97 are
    named: statistics of an earlier step of the training. Behind the images, whose means are unknown, these are fitted
    first; behind poolings and gates, and on maps hardly larger than the kernel, more is asked.

    Variances are predicted up to a factor, for how far channels vary together is not known. Logarithms of stored ones
    rise with those of the predicted ones by 0.9 or more, standard errors allowed for; a layer is named below 0.7, if
    another power or another order accounts for it and the model's layers together do follow (0.75). All are named where
    together they do not: below 0.65 within layers, or 0.75 in the mean of that and of their medians from layer to
    layer. Of the kind of images behind a first layer nothing is known: it is named only where it follows photographs or
    noise in all but the power. Where predictions hold within layers (0.75 to 1.33), a layer's factor lies between those
    of the four to each side whose kernels see one place, or several, as its own does, or beyond them by 2 at most; a
    layer is named from 2.7 on (3.7 in nets of fewer than 12, and 7.4 above the others for the last one, in which
    channels vary together most), and all layers where nine of ten have a factor above 7.4. Behind a kernel that fills
    its map the factor may be larger. Healthy nets trained on noise, masks, strokes, frames, spectrograms and on images
    of one colour set these limits as well as those trained on photographs.

    Where most layers contradict, those between them are named too. It is an ERROR where chance is out of the question:
    6 standard errors, and means off by half a deviation. Layers that never moved are BN101's and BN102's; layers frozen
    in eval mode, or not trainable, may well be right with statistics of other weights, and are left out. Once eval mode
    was run against train mode, what that measured counts instead.

    Not detected
    ------------
    Layers behind an unknown input that has more than a quarter of their channels, or a convolution in groups; layers
    with fewer than 4 living channels; all variances of a model off by the same factor, where a tenth of the layers stay
    below 7.4; errors that do no harm; variances in another order in a model whose layers do not follow their
    predictions. State dicts, which have no graph. In ONNX models first layers, kernels on maps of unknown size, and the
    level of variances behind sums.

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
    settled = [layer for layer in judged if _settled(model, layer)]
    means, variances = means_against_weights(judged, model.layers, settled), variances_against_weights(settled)
    contradict = {*means.bad, *variances.bad}
    if not contradict:
        return
    among = _among(names(judged), contradict)
    layers = names(layer for layer in judged if layer.name in contradict | among)
    told = [each for each in (means, variances) if each.bad]
    sure = any(each.sure for each in told)
    yield Evidence(
        layers=layers,
        message=" ".join([*(each.message for each in told), *_told_of(among)]),
        severity=Severity.ERROR if sure else Severity.WARNING,
        confidence=Confidence.HIGH if sure else Confidence.MEDIUM,
        location=told[0].location,
        fix=f"Restore the statistics from the file the weights came from, or re-estimate them:\n"
        f"{indented(repair(model))}",
        measurements=(
            *(measurement for each in told for measurement in each.measurements),
            Measurement(name="layers that contradict their weights", value=len(contradict), limit=0, unit="layers"),
            Measurement(name="layers judged", value=len(judged), unit="layers"),
        ),
    )


def _among(order: Sequence[str], contradict: set[str]) -> set[str]:
    """Layers that show nothing by themselves, where most layers contradict, and those around them."""
    if 2 * len(contradict) <= len(order):
        return set()
    found = set()
    for place, name in enumerate(order):
        near = [*order[max(0, place - AROUND) : place], *order[place + 1 : place + 1 + AROUND]]
        if name not in contradict and 2 * len(contradict.intersection(near)) > len(near):
            found.add(name)
    return found


def _told_of(among: set[str]) -> tuple[str, ...]:
    """How many show nothing, as a sentence; none without any."""
    alone = "shows nothing by itself" if len(among) == 1 else "show nothing by themselves"
    return (f"{many(len(among), 'layer')} among them {alone}.",) if among else ()


def _may_be_judged(model: Facts, layer: Layer) -> bool:
    """Whether the layer's statistics ought to be of its weights: they moved, and it is not frozen."""
    training = model.graph is not None and model.graph.purpose is Purpose.TRAINING
    frozen = training and all(site.mode is Mode.EVAL for site in layer.sites)
    return layer.mean.moved is True and layer.variance.moved is True and not frozen and layer.trainable is not False


def _settled(model: Facts, layer: Layer) -> bool:
    """Whether no initial value is left by the counters; what is left is BN103's."""
    return (init_share(layer, model.run.updates) or 0.0) < LEFT


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
