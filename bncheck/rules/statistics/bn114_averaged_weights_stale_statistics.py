"""BN114 averaged-weights-stale-statistics."""

from __future__ import annotations

from collections.abc import Iterator

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.layers import Facts, GraphFacts, Layer, Purpose, Role, Saver
from bncheck.facts.wording import listing, many, many_are
from bncheck.numerics.channels import names
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
    statistics have none; and layers whose statistics are averaged a second time.

    Why it matters
    --------------
    Statistics belong to the weights that produced them. With long averages (SWA), the averaged model can score near
    chance until its statistics are re-estimated. A second average of a moving average lags twice.

    How it decides
    --------------
    A checkpoint with raw and averaged weights side by side is normal in TensorFlow (Inception, EfficientNet), and
    averages over the last few thousand steps do no harm: a note. It is a warning where an inference graph restores
    the averaged weights with the raw statistics, as the keys of its Saver show.

    Not detected
    ------------
    Weights that were averaged outside TensorFlow and saved under their plain names.

    Fix
    ---
    Gather the statistics again with the averaged weights in place: `bncheck repair PATH -o OUT --data images/`, which
    repairs both copies where each has statistics of its own, and asks which is served (`--weights ema`) where they
    share them; or one pass over the training data in training mode with a learning rate of 0. In code, average the
    statistics with the weights, once:

        # not moving_average_variables(), which holds the statistics too
        ema.apply(tf.trainable_variables())

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


def _restores_averages(graph: GraphFacts | None, layer: Layer) -> bool:
    """Whether an inference graph's Saver maps the layer's variables to the keys of their averages."""
    if graph is None or graph.purpose is not Purpose.INFERENCE:
        return False
    return any(
        key in saver.keys and key not in graph.variables for saver in graph.savers for key in layer.averaged.values()
    )


_SHADOWS = {"gamma": "bn/gamma/ExponentialMovingAverage", "beta": "bn/beta/ExponentialMovingAverage"}


def clean() -> tuple[Facts, ...]:
    """No averaging."""
    return (facts(batch_norm("bn")),)


def broken() -> tuple[Facts, ...]:
    """Both kinds stored (a note); averaged weights restored with raw statistics; an average of the average (a note)."""
    saver = Saver(name="save", keys=frozenset(_SHADOWS.values()), variables=frozenset({"bn/gamma", "bn/beta"}))
    serving = GraphFacts(
        path="eval.meta", format=Format(FileKind.META_GRAPH), nodes=9, purpose=Purpose.INFERENCE, savers=(saver,)
    )
    shadow = vector(Role.MEAN, 0.4, name="bn/moving_mean/ExponentialMovingAverage")
    return (
        facts(batch_norm("bn", averaged=_SHADOWS)),
        facts(batch_norm("bn", averaged=_SHADOWS), graph=serving),
        facts(batch_norm("bn", averaged=_SHADOWS, shadow_statistics={"mean": shadow})),
    )
