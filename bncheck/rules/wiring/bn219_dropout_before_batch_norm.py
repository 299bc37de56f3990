"""BN219 dropout-before-batch-norm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Confidence, Evidence, Measurement, Severity
from bncheck.facts.layers import Facts
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, wired, with_graph

AFTER = """\
# TF-slim: dropout after the last batch norm
net = slim.batch_norm(slim.conv2d(net, 64, 3), is_training=True)
net = slim.dropout(net, keep_prob=0.8, is_training=True)
# tf.layers: the same order
net = tf.layers.batch_normalization(tf.layers.conv2d(net, 64, 3), training=True)
net = tf.layers.dropout(net, rate=0.2, training=True)
# Keras
x = tf.keras.layers.Dropout(0.2)(tf.keras.layers.BatchNormalization()(x))"""


@rule(
    "BN219",
    "dropout-before-batch-norm",
    severity=Severity.INFO,
    confidence=Confidence.MEDIUM,
    needs=Needs.SITES,
    sees="B14",
)
def check(model: Facts) -> Iterator[Evidence]:
    """Dropout precedes batch norm, with only linear ops between them.

    What it detects
    ---------------
    A dropout whose output reaches batch norm through convolutions, dense layers, biases and pooling only.

    Why it matters
    --------------
    Dropout raises the variance in training but not in inference. The moving variance includes it, so in inference each
    such layer's output is too small: the "variance shift" of arXiv 1801.05134.

    How it decides
    --------------
    Walks back from each site's input. A note, since good models do it (EEGNet) and the shift is small for small rates;
    `bncheck compare train-vs-eval` measures it.

    Not detected
    ------------
    Dropout with a non-linear op between, which shifts the variance too, if less.

    Fix
    ---
    Dropout after the last batch norm, or spatial dropout, which keeps most of the variance:

        {AFTER}

    A trained model: `bncheck repair PATH -o OUT --data images/` re-estimates the statistics with dropout off.

    References
    ----------
    arXiv 1801.05134; NeuraLint, rule "batch norm before the dropout". Failure mode B14.
    """
    layers = [layer for layer in model.layers if any(site.dropout for site in layer.sites)]
    if layers:
        dropouts = [site.dropout for layer in layers for site in layer.sites if site.dropout]
        yield Evidence(
            layers=tuple(layer.name for layer in layers),
            message=f"Dropout precedes {len(layers)} of {many(len(model.layers), 'layer')}, with only linear ops "
            "between "
            f"({quoted(dropouts)}): the moving variance includes its noise, inference does not.",
            location=dropouts[0],
            fix=fixes.training_code(in_framework(AFTER, made_with(model, layers))),
            measurements=(Measurement(name="layers after dropout", value=len(layers), limit=0, unit="layers"),),
        )


def clean() -> tuple[Facts, ...]:
    """No dropout before batch norm."""
    return (with_graph(wired(batch_norm("bn"))),)


def broken() -> tuple[Facts, ...]:
    """Dropout, then a dense layer, then batch norm; one of two layers only."""
    after = wired(batch_norm("bn"))
    after = replace(after, sites=tuple(replace(site, dropout="dropout/mul") for site in after.sites))
    return (with_graph(after), with_graph(wired(batch_norm("first")), after))
