"""BN217 axis-mismatch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from bncheck.facts.findings import Confidence, Evidence, Meaning, Measurement, Severity
from bncheck.facts.layers import Facts, Layer, Linear, Mode, Origin, Site
from bncheck.facts.wording import many, quoted
from bncheck.numerics.kernel_layouts import output_channels
from bncheck.rules.rule import Needs, rule
from bncheck.rules.shared import fixes
from bncheck.rules.shared.frameworks import in_framework, made_with
from bncheck.testing import batch_norm, keras_file, site

SET = """\
# TF-slim
net = slim.batch_norm(net, data_format="NCHW")
# tf.layers, channels first
net = tf.layers.batch_normalization(net, axis=1)
# Keras, channels first; -1 is channels last
x = tf.keras.layers.BatchNormalization(axis=1)(x)"""

_RANKS = {
    "Conv1D": 3,
    "Conv2D": 4,
    "Conv2DBackpropInput": 4,
    "DepthwiseConv2dNative": 4,
    "Conv3D": 5,
    "Conv3DBackpropInputV2": 5,
}
"""Of a convolution's output, where the site's own rank is not known."""


@rule("BN217", "axis-mismatch", severity=Severity.ERROR, needs=Needs.SITES, meaning=Meaning.VALUES_FAULT, sees="E07")
def check(model: Facts) -> Iterator[Evidence]:
    """Batch norm normalises along another axis than the channels of the convolution before it.

    What it detects
    ---------------
    A convolution with channels first followed by batch norm on the last axis (the default), or the other way round.

    Why it matters
    --------------
    It then normalises rows or columns of the image instead of channels: the model is tied to one image size, filters
    keep their scales, and no converter can fold it.

    How it decides
    --------------
    Both axes, counted from the front by the rank. They differ and the number of batch norm channels is not the number
    of the convolution's filters: ERROR. They differ and the numbers agree, or one is unknown: INFO, for a transposition
    between the two is healthy and looks the same. Channels first with axis 1 is correct.

    Not detected
    ------------
    Batch norm after a dense layer or a reshape, whose axes mean something else; batch norm on the input.

    Fix
    ---
    Name the channel axis where channels come first, and train again (the variables change their length):

        {SET}

    References
    ----------
    keras#1921, keras#5328, DefogGAN#1, seld-dcase2021#8, dcase2018_baseline#18. Failure mode E07.
    """
    differing = [(layer, site) for layer in model.layers for site in layer.sites if _differ(site)]
    certain = [(layer, s) for layer, s in differing if _contradicts(model, layer, s)]
    possible = [(layer, s) for layer, s in differing if not _contradicts(model, layer, s)]
    if certain:
        yield _evidence(model, certain, Severity.ERROR, Confidence.HIGH)
    if possible:
        yield _evidence(model, possible, Severity.INFO, Confidence.LOW)


def _differ(site: Site) -> bool:
    """Whether both axes are known, comparable and different."""
    if site.linear is None or "Conv" not in site.linear.op or site.axis is None or site.linear_axis is None:
        return False
    rank = site.rank or _RANKS.get(site.linear.op)
    if rank is None:
        return (site.axis < 0) == (site.linear_axis < 0) and site.axis != site.linear_axis
    return site.axis % rank != site.linear_axis % rank


def _filters(model: Facts, site: Site) -> int | None:
    """Output channels of the convolution, from its kernel's values, else from the shape that the graph declares."""
    if site.linear is None:
        return None
    if site.linear.channel_max is not None:
        return int(site.linear.channel_max.size)
    shape = model.graph.variables.get(site.linear.kernel) if model.graph is not None else None
    if not shape or min(shape) <= 0:
        return None
    return output_channels(tuple(shape), site.linear.op) if site.linear.op in _RANKS else None


def _contradicts(model: Facts, layer: Layer, site: Site) -> bool:
    filters = _filters(model, site)
    return filters is not None and layer.channels is not None and filters != layer.channels


def _evidence(
    model: Facts, found: Sequence[tuple[Layer, Site]], severity: Severity, confidence: Confidence
) -> Evidence:
    layer, site = found[0]
    layers = tuple(dict.fromkeys(x.name for x, _ in found))
    operator = site.linear.name if site.linear is not None else ""
    filters = _filters(model, site)
    counts = (
        f"`{layer.name}` has {layer.channels} channels and {quoted([operator])} {filters} filters"
        if severity is Severity.ERROR
        else "the channel counts fit, so there may be a transposition between them"
    )
    return Evidence(
        layers=layers,
        message=f"{many(len(layers), 'layer')} {'normalises' if len(layers) == 1 else 'normalise'} along axis "
        f"{site.axis}, after a convolution with its channels on axis {site.linear_axis}: {counts}.",
        severity=severity,
        confidence=confidence,
        location=site.name,
        fix=fixes.training_code(in_framework(SET, made_with(model, [x for x, _ in found]))),
        measurements=(
            Measurement(name="axis", value=site.axis or 0),
            Measurement(name="channel axis of the convolution", value=site.linear_axis or 0),
            Measurement(name="channels", value=layer.channels or 0, limit=filters, unit="channels"),
        ),
    )


def clean() -> tuple[Facts, ...]:
    """Last and last, by either name; channels first with axis 1; after a dense layer; no convolution before."""
    return (
        keras_file(after(axis=-1, linear_axis=-1)),
        keras_file(after(axis=3, linear_axis=-1)),
        keras_file(after(axis=1, linear_axis=1)),
        keras_file(after(axis=1, linear_axis=-1, filters=64, op="Dense")),
        keras_file(batch_norm("bn", sites=(site(axis=1),))),
    )


def broken() -> tuple[Facts, ...]:
    """Channels first, default axis, 28 columns and 64 filters; the same where the counts agree (a note)."""
    return (
        keras_file(after(axis=-1, linear_axis=1, channels=28, filters=64)),
        keras_file(after(axis=-1, linear_axis=1, channels=64, filters=64)),
    )


def after(*, axis: int, linear_axis: int, channels: int = 64, filters: int = 64, op: str = "Conv2D") -> Layer:
    """A layer right after a convolution (or another op) of so many filters."""
    linear = Linear(name="conv", op=op, kernel="conv/kernel", channel_max=np.ones(filters))
    layer = batch_norm("bn", channels=channels, origin=Origin.CONFIG, linear=linear)
    applied = site("bn", Mode.SWITCHED, axis=axis, linear=linear, linear_axis=linear_axis)
    return replace(layer, sites=(applied,))
