"""BN218 redundant-bias."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bncheck.facts.findings import Evidence, Measurement, Severity
from bncheck.facts.layers import Facts, Layer
from bncheck.facts.wording import many, quoted
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, wired, with_graph

NO_BIAS = """\
# TF-slim: leaves the bias out by itself
net = slim.conv2d(net, 64, 3, normalizer_fn=slim.batch_norm)
# tf.layers
net = tf.layers.conv2d(net, 64, 3, use_bias=False)
# Keras
x = tf.keras.layers.Conv2D(64, 3, use_bias=False)(x)"""


@rule("BN218", "redundant-bias", severity=Severity.INFO, needs=Needs.SITES, sees="E10")
def check(model: Facts) -> Iterator[Evidence]:
    """A bias right before batch norm has no effect.

    What it detects
    ---------------
    A convolution or dense layer with a bias whose output goes into batch norm without an activation between.

    Why it matters
    --------------
    Batch norm subtracts the mean, and the bias with it: its gradient is zero, its memory wasted, and its value only
    shifts the moving mean. Harmless, unless weights and statistics come from different places: then the moving mean
    lacks the bias, and every output is shifted.

    How it decides
    --------------
    By the op, or the configuration's `use_bias`, right before each site.

    Not detected
    ------------
    A bias before a concatenation or an addition that leads into batch norm.

    Fix
    ---
        {NO_BIAS}

    In a trained model nothing has to be done: folding adds the bias to the mean.

    References
    ----------
    alpha-zero-general#73; NeuraLint, rule "useless bias". Failure mode E10.
    """
    layers = [layer for layer in model.layers if any(site.bias for site in layer.sites)]
    if layers:
        biases = [site.bias for layer in layers for site in layer.sites if site.bias]
        yield Evidence(
            layers=tuple(layer.name for layer in layers),
            message=f"A bias right before {len(layers)} of {many(len(model.layers), 'layer')} has no effect: batch "
            f"norm subtracts it again: {quoted(biases)}.",
            location=biases[0],
            fix=fixes.training_code(in_framework(NO_BIAS, made_with(model, layers)), note="it only saves parameters"),
            measurements=(Measurement(name="redundant biases", value=len(set(biases)), limit=0, unit="variables"),),
        )


def clean() -> tuple[Facts, ...]:
    """No bias before batch norm."""
    return (with_graph(wired(batch_norm("bn"))),)


def broken() -> tuple[Facts, ...]:
    """A convolution with a bias; the same variable before two sites of one layer."""
    one = _biased(wired(batch_norm("bn")))
    return (with_graph(one), with_graph(replace(one, sites=(*one.sites, replace(one.sites[0], name="eval/bn")))))


def _biased(layer: Layer) -> Layer:
    return replace(layer, sites=tuple(replace(site, bias="conv/biases") for site in layer.sites))
