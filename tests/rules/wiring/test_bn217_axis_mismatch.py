"""BN217 axis-mismatch."""

from __future__ import annotations

from dataclasses import replace

from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Linear
from bncheck.rules.wiring import (
    bn217_axis_mismatch,
)
from bncheck.rules.wiring.bn217_axis_mismatch import after
from bncheck.testing import (
    keras_file,
    with_graph,
)

AXIS = bn217_axis_mismatch.check


def test_axes_by_either_name_and_by_the_rank_of_the_convolution() -> None:
    """3 of 4 is -1; without the site's rank the convolution's own tells."""
    assert not list(AXIS.check(keras_file(after(axis=3, linear_axis=-1))))
    layer = after(axis=-1, linear_axis=1, channels=28)
    unranked = replace(layer, sites=tuple(replace(s, rank=None) for s in layer.sites))
    assert only(AXIS, keras_file(unranked)).severity is Severity.ERROR


def test_the_kernels_declared_shape_tells_its_filters() -> None:
    """A graph without values still knows that 28 channels are not 64 filters; depthwise counts in times multiplier."""
    layer = after(axis=-1, linear_axis=1, channels=28)
    linear = Linear(name="conv", op="Conv2D", kernel="conv/kernel")
    layer = replace(layer, sites=tuple(replace(s, linear=linear) for s in layer.sites))
    for op, shape, severity in (
        ("Conv2D", (3, 3, 8, 64), Severity.ERROR),
        ("Conv2D", (3, 3, 8, 28), Severity.INFO),
        ("DepthwiseConv2dNative", (3, 3, 14, 2), Severity.INFO),
        ("DepthwiseConv2dNative", (3, 3, 28, 2), Severity.ERROR),
        ("Conv2D", (3, 3, 8, -1), Severity.INFO),
    ):
        sites = tuple(replace(s, linear=replace(linear, op=op)) for s in layer.sites)
        model = with_graph(replace(layer, sites=sites), variables={"conv/kernel": shape})
        assert only(AXIS, model).severity is severity
