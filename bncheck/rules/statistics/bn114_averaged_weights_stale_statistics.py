"""BN114 averaged-weights-stale-statistics."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bncheck.facts.copies import Copied
from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, GraphFacts, Layer, Purpose, Role, Saver
from bncheck.facts.remedies import AVERAGE_BUFFERS, UPDATE_BN
from bncheck.facts.wording import listing, many, many_are, percent
from bncheck.numerics.channels import DEAD_VARIANCE, median, names, values_of
from bncheck.rules.rule import Needs, rule
from bncheck.testing import batch_norm, facts, vector


@rule(
    "BN114",
    "averaged-weights-stale-statistics",
    severity=Severity.INFO,
    needs=Needs.NOTHING,
    confidence=Confidence.MEDIUM,
    meaning=Meaning.VALUES_FAULT,
    sees="C13 C14",
)
def check(model: Facts) -> Iterator[Evidence]:
    """The checkpoint holds averaged weights with statistics of the raw ones.

    What it detects
    ---------------
    Layers whose kernel, gamma or beta has a weight-averaging shadow (`ExponentialMovingAverage`), while their
    statistics have none; and layers whose statistics are averaged a second time. PyTorch files with an average beside
    the model (`ema`, `state_dict_ema`) whose buffers stayed behind while its weights moved on.

    Why it matters
    --------------
    Statistics belong to the weights that produced them. With long averages (SWA), the averaged model can score near
    chance until its statistics are re-estimated. A second average of a moving average lags twice.

    How it decides
    --------------
    A checkpoint with raw and averaged weights side by side is normal in TensorFlow (Inception, EfficientNet), and
    averages over the last few thousand steps do no harm: a note. It is a warning where an inference graph restores
    the averaged weights with the raw statistics, as the keys of its Saver show.

    In PyTorch files buffers have stayed behind where the average's kernels lie within 5 % of the model's in the median,
    and its variances ten times as far from the model's, by a factor of 1.2 at least: averages of both move together. A
    warning; buffers that never moved are BN102's.

    Not detected
    ------------
    Weights that were averaged outside the file and saved under their plain names; buffers that stayed behind weights
    that are themselves far from the model's.

    Fix
    ---
    Gather the statistics again with the averaged weights in place: `bncheck repair PATH -o OUT --data images/`, which
    repairs both copies where each has statistics of its own, and asks which is served (`--weights ema`) where they
    share them; or one pass over the training data in training mode with a learning rate of 0. In code, average the
    statistics with the weights, once:

        # not moving_average_variables(), which holds the statistics too
        ema.apply(tf.trainable_variables())

        # PyTorch
        {AVERAGE_BUFFERS}
        {UPDATE_BN}

    References
    ----------
    keras-swa#2, tensorflow/addons#2497, mosaicml/composer#624, tensorpack#880, tensorflow#3684.
    Failure modes C13, C14.
    """
    raw = [layer for layer in model.layers if layer.averaged and not layer.shadow_statistics]
    served = [layer for layer in raw if _restores_averages(model.graph, layer)]
    for layers, severity, reading in (
        (
            served,
            Severity.WARNING,
            "and the inference graph combines the averaged ones with statistics of the raw ones",
        ),
        (
            [x for x in raw if x not in served],
            Severity.INFO,
            "but statistics of the raw ones only: serve the raw ones, or re-estimate",
        ),
    ):
        if layers:
            yield Evidence(
                layers=names(layers),
                message=(
                    f"{many_are(len(layers), 'layer')} stored with averaged and with raw weights, {reading}: "
                    f"{listing(names(layers))}."
                ),
                severity=severity,
                location=next(iter(layers[0].averaged.values())),
                measurements=(Measurement(name="layers with averaged weights", value=len(layers), unit="layers"),),
            )
    yield from _stayed_behind(model)
    twice = [layer for layer in model.layers if layer.shadow_statistics]
    if twice:
        yield Evidence(
            layers=names(twice),
            message=(
                f"The moving statistics of {many(len(twice), 'layer')} are averaged a second time, so that copy "
                f"lags twice: {listing(names(twice))}. Restore the statistics under their raw names."
            ),
            severity=Severity.INFO,
            location=next(iter(twice[0].shadow_statistics.values())).name,
            measurements=(Measurement(name="layers averaged twice", value=len(twice), unit="layers"),),
        )


def _stayed_behind(model: Facts) -> Iterator[Evidence]:
    """Copies of layers whose kernels are the source's but for little, and whose variances are not."""
    by_name = {layer.name: layer for layer in model.layers}
    copies = [
        (layer, layer.copied)
        for layer in model.layers
        if layer.copied is not None and layer.copied.averaged and not layer.copied.statistics and layer.variance.moved
    ]
    known = {layer.name: _variances_apart(layer, by_name[copied.source]) for layer, copied in copies}
    kernels = [copied.kernel_apart for _, copied in copies if copied.kernel_apart is not None]
    distances = {name: apart for name, apart in known.items() if apart is not None}
    if len(kernels) < FEWEST_KERNELS or not distances:
        return
    of_kernels, of_variances = median(np.array(kernels)), median(np.array(list(distances.values())))
    limit = max(BEHIND, AHEAD * of_kernels)
    if not 0 < of_kernels <= NEAR or of_variances < limit:
        return
    layers = [layer for layer, _ in copies if distances.get(layer.name, 0.0) >= limit / 2]
    yield Evidence(
        layers=names(layers),
        message=(
            f"The averaged weights lie within {percent(of_kernels)} of the model's, but their variances by a factor "
            f"of {math.exp(of_variances):.2g}: the buffers of {many(len(layers), 'layer')} stayed behind."
        ),
        severity=Severity.WARNING,
        location=layers[0].variance.name,
        fix=f"Average the buffers too, or gather new ones:\n    {AVERAGE_BUFFERS}\n    {UPDATE_BN}",
        measurements=(
            Measurement(name="logarithms of variances apart", value=of_variances, limit=limit),
            Measurement(name="kernels apart, over their norm", value=of_kernels, limit=NEAR),
        ),
    )


def _variances_apart(one: Layer, other: Layer) -> float | None:
    """Root mean square of the natural logarithm of their ratio, over living channels; None where they were not read."""
    first, second = values_of(one.variance), values_of(other.variance)
    if first is None or second is None or first.shape != second.shape:
        return None
    living = (np.minimum(first, second) > DEAD_VARIANCE) & np.isfinite(first + second)
    return float(np.sqrt(np.mean(np.log(first[living] / second[living]) ** 2))) if living.any() else None


def _restores_averages(graph: GraphFacts | None, layer: Layer) -> bool:
    """Whether an inference graph's Saver maps the layer's variables to the keys of their averages."""
    if graph is None or graph.purpose is not Purpose.INFERENCE:
        return False
    return any(
        key in saver.keys and key not in graph.variables for saver in graph.savers for key in layer.averaged.values()
    )


NEAR, AHEAD, BEHIND = 0.05, 10.0, 0.2
"""Kernels at most so far apart, and variances at least so many times as far, and by so much. In eight nets of timm and
torchvision, averages of both have kernels within 0.04 and variances within 0.09, 2 to 7 times as far; those whose
buffers stayed at a quarter of the run 0.19 to 0.8, 15 to 60 times."""
FEWEST_KERNELS = 3
"""Pairs of kernels by which an average is judged; a guess."""
_SHADOWS = {"gamma": "bn/gamma/ExponentialMovingAverage", "beta": "bn/beta/ExponentialMovingAverage"}


def clean() -> tuple[Facts, ...]:
    """No averaging."""
    return (facts(batch_norm("bn")),)


def broken() -> tuple[Facts, ...]:
    """Buffers that stayed behind; both kinds stored (a note), one restored with the other; an average of averages."""
    saver = Saver(name="save", keys=frozenset(_SHADOWS.values()), variables=frozenset({"bn/gamma", "bn/beta"}))
    serving = GraphFacts(
        path="eval.meta", format=Format(FileKind.META_GRAPH), nodes=9, purpose=Purpose.INFERENCE, savers=(saver,)
    )
    shadow = vector(Role.MEAN, 0.4, name="bn/moving_mean/ExponentialMovingAverage")
    pairs = [
        one
        for n in range(FEWEST_KERNELS)
        for one in (
            batch_norm(f"model/bn{n}", variance=[0.5, 1.0, 2.0, 0.3]),
            batch_norm(
                f"ema/bn{n}",
                variance=[0.3, 1.8, 1.1, 0.6],
                copied=Copied(source=f"model/bn{n}", averaged=True, statistics=False, kernel_apart=0.01),
            ),
        )
    ]
    return (
        facts(*pairs),
        facts(batch_norm("bn", averaged=_SHADOWS)),
        facts(batch_norm("bn", averaged=_SHADOWS), graph=serving),
        facts(batch_norm("bn", averaged=_SHADOWS, shadow_statistics={"mean": shadow})),
    )
