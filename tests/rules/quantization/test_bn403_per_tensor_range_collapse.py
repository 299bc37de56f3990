"""BN403 per-tensor-range-collapse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bncheck.facts.findings import Confidence, Evidence
from bncheck.facts.layers import Facts, Layer, Linear
from bncheck.rules.quantization.bn403_per_tensor_range_collapse import check as spread
from bncheck.rules.quantization.bn404_dead_channel_fold_scale import check as dead
from bncheck.testing import batch_norm, facts, folded, lite
from bncheck.testing.quantized import operator_loss, quantized


def layer(channel_max: list[float], **facts_of_it: Any) -> Layer:
    """A layer after a convolution with these largest weights."""
    known = {"linear": Linear(name="c", op="Conv2D", kernel="c/w", channel_max=np.array(channel_max, np.float64))}
    return batch_norm("bn", channels=len(channel_max), **(known | facts_of_it))


def only(evidence: list[Evidence]) -> dict[str, object]:
    """Measurements of the one piece of evidence."""
    (found,) = evidence
    return {item.name: item.value for item in found.measurements}


def run_spread(model: Facts) -> list[Evidence]:
    """What BN403 yields."""
    return list(spread.check(model))


def run_dead(model: Facts) -> list[Evidence]:
    """What BN404 yields."""
    return list(dead.check(model))


@pytest.mark.parametrize(("largest", "speaks"), [(32.0, False), (32.1, True)])
def test_spread_limit(largest: float, speaks: bool) -> None:  # noqa: FBT001 - the table's second column
    """A spread of 32 leaves the median channel 4 levels of each sign and is borne; more is not."""
    found = run_spread(facts(layer([1, 1, 1, largest])))
    assert bool(found) is speaks
    if speaks:
        assert only(found)["levels left for the median channel"] == pytest.approx(128 / 32.1)


def test_spread_leaves_dead_and_empty_channels_out() -> None:
    """Dead channels are BN404's; channels whose weights are all zero have no range."""
    assert run_spread(facts(layer([1, 1, 1, 1], variance=[1e-30, 1.0, 1.0, 1.0], gamma=[9.0, 0.1, 0.1, 0.1]))) == []
    assert run_spread(facts(layer([0, 0, 0, 1]))) == []


def test_spread_in_a_tflite_file() -> None:
    """One scale for an integer kernel is fact; a scale for each channel, or float weights, are fine."""
    wide = np.array([0.01, 0.01, 0.01, 1.0])
    (found,) = run_spread(lite(folded("conv", channel_max=wide, weight_scales=0.01)))
    assert "In conv, channels differ 100-fold" in found.message
    assert run_spread(lite(folded(channel_max=wide, weight_scales=[1e-4, 1e-4, 1e-4, 1e-2]))) == []
    assert run_spread(lite(folded(channel_max=wide, weight_scales=None))) == []


@pytest.mark.parametrize(("per_channel", "speaks"), [(True, False), (None, False), (False, True)])
def test_measured_scales_decide(per_channel: bool | None, speaks: bool) -> None:  # noqa: FBT001 - the table's columns
    """Of a model that was quantized, only kernels that really have one scale are spoken of, and then for certain."""
    wide = layer([1, 1, 1, 100])
    lost = layer([1, 1, 1, 1], variance=[1e-8, 1.0, 1.0, 1.0])
    measured = quantized(operator_loss("bn", weight_per_channel=per_channel, local=0.3, rmse=3.0)).quantized
    found = [*run_spread(facts(wide, quantized=measured)), *run_dead(facts(lost, quantized=measured))]
    assert len(found) == (2 if speaks else 0)
    assert all(evidence.confidence is not Confidence.MEDIUM for evidence in found)
    assert all("only if" not in evidence.message for evidence in found)


def test_the_forecast_is_told() -> None:
    """Where the kernel was read: what one scale and what one a channel leave of the output."""
    kernel = np.random.default_rng(0).normal(size=(9, 16)) * np.array([100.0] + [1.0] * 15)
    read = Linear(
        name="c",
        op="DepthwiseConv2dNative",
        kernel="c/w",
        channel_max=np.abs(kernel).max(axis=0),
        channel_rms=np.sqrt(np.mean(kernel**2, axis=0)),
        channel_mean=np.mean(np.abs(kernel), axis=0),
    )
    (found,) = run_spread(facts(batch_norm("bn", channels=16, linear=read)))
    assert "with one scale, 0.00" in found.message
