"""What Savers keep, and how layers are configured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from one_evidence import only

from bncheck.facts.findings import Severity
from bncheck.facts.layers import Facts, Linear, Mode
from bncheck.rules.wiring import (
    bn209_saver_omits_statistics,
    bn210_statistics_trained_or_regularised,
    bn211_decay_suspicious,
    bn212_epsilon_mismatch,
    bn217_axis_mismatch,
    bn218_redundant_bias,
    bn219_dropout_before_batch_norm,
    bn220_always_batch_statistics,
)
from bncheck.rules.wiring.bn211_decay_suspicious import configured
from bncheck.rules.wiring.bn217_axis_mismatch import after
from bncheck.testing import (
    batch_norm,
    keras_file,
    saver,
    served,
    serving,
    site,
    unread,
    unwired,
    wired,
    with_graph,
)

SAVER = bn209_saver_omits_statistics.check
WEIGHTS = bn210_statistics_trained_or_regularised.check
DECAY = bn211_decay_suspicious.check
EPSILON = bn212_epsilon_mismatch.check
AXIS = bn217_axis_mismatch.check
BIAS = bn218_redundant_bias.check
DROPOUT = bn219_dropout_before_batch_norm.check
BATCH_ONLY = bn220_always_batch_statistics.check


def test_a_checkpoint_that_holds_them_speaks_for_another_saver() -> None:
    """The graph's Saver omits the statistics and the checkpoint has them: a warning that says so."""
    layer = wired(batch_norm("bn"))
    savers = (saver(layer, without=("moving_mean", "moving_variance")),)
    found = only(SAVER, with_graph(layer, savers=savers))
    assert found.severity is Severity.WARNING
    assert "another Saver wrote it" in found.message
    assert only(SAVER, with_graph(unread(layer), savers=savers)).severity is Severity.ERROR


def test_two_savers_cover_together() -> None:
    """Weights in one Saver and statistics in another: nothing is lost."""
    layer = wired(batch_norm("bn"))
    weights = saver(layer, without=("moving_mean", "moving_variance"))
    statistics = saver(layer, without=("gamma", "beta"), name="save_1/SaveV2")
    assert not list(SAVER.check(with_graph(unread(layer), savers=(weights, statistics))))


def test_a_layer_without_gamma_and_beta_is_known_by_its_kernel() -> None:
    """With scale=False and center=False the kernel before it tells that the layer is meant to be kept."""
    linear = Linear(name="conv", op="Conv2D", kernel="conv/weights")
    layer = unread(replace(wired(batch_norm("bn", gamma=None, beta=None)), linear=linear))
    kernels = replace(saver(), keys=frozenset({"conv/weights"}), variables=frozenset({"conv/weights"}))
    assert only(SAVER, with_graph(layer, savers=(kernels,))).layers == ("bn",)


OPTIMISED = {"bn/moving_variance": ("Adam/update_bn/moving_variance/ApplyAdam",)}
DECAYED = {"bn/moving_variance": ("L2Loss",)}


@pytest.mark.parametrize(
    ("mode", "graph", "severity"),
    [
        (Mode.EVAL, {"optimized": OPTIMISED}, Severity.ERROR),
        (Mode.TRAIN, {"optimized": OPTIMISED}, Severity.ERROR),
        (Mode.SWITCHED, {"optimized": OPTIMISED}, Severity.WARNING),
        (Mode.SWITCHED, {"optimized": OPTIMISED, "regularised": DECAYED}, Severity.ERROR),
        (Mode.TRAIN, {"regularised": DECAYED}, Severity.WARNING),
        (Mode.TRAIN, {"trainable": frozenset(DECAYED)}, Severity.INFO),
        (Mode.TRAIN, {"regularised": {"bn/gamma": ("L2Loss",)}}, Severity.INFO),
    ],
)
def test_statistics_as_weights_are_weighed(mode: Mode, graph: dict[str, Any], severity: Severity) -> None:
    """Written by an optimizer is worst, unless its gradient is zero in training; listed only is a note (facenet)."""
    assert only(WEIGHTS, with_graph(wired(batch_norm("bn"), mode=mode), **graph)).severity is severity


@pytest.mark.parametrize(
    ("decay", "severity"),
    [
        (-0.1, Severity.ERROR),
        (0.0, Severity.WARNING),
        (0.1, Severity.WARNING),
        (0.499, Severity.WARNING),
        (0.5, None),
        (0.9997, None),
        (0.9999, None),
        (0.99995, Severity.INFO),
        (1.0, Severity.WARNING),
        (1.01, Severity.ERROR),
    ],
)
def test_decays(decay: float, severity: Severity | None) -> None:
    """Boundaries, on a layer whose statistics moved; 1 is then a converter's mapping, not a fault of training."""
    found = list(DECAY.check(with_graph(wired(batch_norm("bn"), decay=decay))))
    assert [e.severity for e in found] == ([severity] if severity else [])


def test_a_decay_of_one_that_never_moved_is_an_error() -> None:
    """Nothing explains statistics at their initial values better than an update that keeps everything."""
    assert only(DECAY, keras_file(configured(1.0, mean=0.0, variance=1.0))).severity is Severity.ERROR
    assert only(DECAY, keras_file(configured(1.0))).severity is Severity.WARNING


def test_pytorchs_momentum_is_translated() -> None:
    """0.1 from PyTorch is 0.9 here; the message names Keras' word and where the number stands."""
    message = only(DECAY, keras_file(configured(0.1))).message
    assert message.startswith("The momentum of 1 layer is 0.1 (configuration)")
    assert "would be 0.9 here" in message


def test_a_float32_decay_is_not_suspicious() -> None:
    """0.9999 in a graph is 1 - 1.00016594e-4 or so."""
    assert not list(DECAY.check(with_graph(wired(batch_norm("bn"), decay=0.99990001))))


def two_epsilons(first: float, second: float, **vectors: Any) -> Facts:
    """A layer whose training and evaluation sites differ in epsilon."""
    sites = (site("a", epsilon=first, train_ops=("Adam",)), site("b", Mode.EVAL, epsilon=second))
    return with_graph(replace(wired(batch_norm("bn", **vectors)), sites=sites))


@pytest.mark.parametrize(
    ("variance", "ratio", "severity"),
    [
        (1e-4, 3.162, Severity.ERROR),
        (1e-3, 1.407, Severity.ERROR),
        (1e-2, 1.048, Severity.WARNING),
        (1.0, 1.0005, Severity.INFO),
    ],
)
def test_epsilon_is_weighed_by_the_smallest_variance(variance: float, ratio: float, severity: Severity) -> None:
    """The published ratios of 1e-3 against 1e-5 (P15), on the channel where they matter most."""
    found = only(EPSILON, two_epsilons(1e-3, 1e-5, variance=[variance, 5.0, 7.0, 9.0]))
    assert found.severity is severity
    assert found.measurements[2].value == pytest.approx(ratio, rel=1e-3)


def test_a_dead_channel_does_not_decide_the_epsilon() -> None:
    """Its input is constant: a scale that differs has nothing to act on."""
    found = only(EPSILON, two_epsilons(1e-3, 1e-5, variance=[1e-36, 5.0, 7.0, 9.0]))
    assert found.severity is Severity.INFO


def test_the_fused_minimum_is_recognised() -> None:
    """1e-5 asked for and 1.001e-5 in the op: a note that says who raised it; float noise is nothing at all."""
    found = only(EPSILON, two_epsilons(1.001e-5, 1e-5))
    assert found.severity is Severity.INFO
    assert "minimum" in found.message
    assert not list(EPSILON.check(two_epsilons(1e-3, float(np.float32(1e-3)))))


def test_the_configuration_counts_as_a_site() -> None:
    """A graph applied with another epsilon than its Keras configuration says."""
    layer = replace(wired(batch_norm("bn", variance=1e-3)), config={"epsilon": 1e-5})
    assert only(EPSILON, with_graph(layer)).severity is Severity.ERROR


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


def test_one_bias_before_two_sites_is_one() -> None:
    """Training and evaluation site share the variable."""
    layer = wired(batch_norm("bn"))
    sites = tuple(replace(s, bias="conv/biases") for s in (*layer.sites, site("eval/bn", Mode.EVAL)))
    found = only(BIAS, with_graph(replace(layer, sites=sites)))
    assert found.measurements[0].value == 1


def test_dropout_is_a_note_that_names_it() -> None:
    """EEGNet does it and is correct, so it is never more than a note."""
    layer = wired(batch_norm("bn"))
    layer = replace(layer, sites=tuple(replace(s, dropout="dropout/mul") for s in layer.sites))
    found = only(DROPOUT, with_graph(layer, wired(batch_norm("other"))))
    assert (found.severity or DROPOUT.severity) is Severity.INFO
    assert "`dropout/mul`" in found.message
    assert found.layers == ("bn",)


def test_batch_statistics_only_weigh_more_when_served() -> None:
    """Pix2pix trains that way by design: a note; served it is a warning, unless no output depends on it."""
    bare = batch_norm("bn", mean=None, variance=None)
    assert only(BATCH_ONLY, with_graph(replace(unwired(bare), updates=()))).severity is Severity.INFO
    assert only(BATCH_ONLY, serving(served(bare, Mode.TRAIN))).severity is Severity.WARNING
    assert not list(BATCH_ONLY.check(serving(served(bare, Mode.TRAIN, outputs=()))))
