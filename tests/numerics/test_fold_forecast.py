"""What 8 bits leave of a folded kernel, held against kernels that are really rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bncheck.facts.layers import Layer, Linear
from bncheck.facts.ratios import sqnr_db
from bncheck.numerics.fold import fold_scale
from bncheck.numerics.fold_forecast import LARGEST, Forecast, forecast, forecasts
from bncheck.testing import batch_norm, unread

RANDOM = np.random.default_rng(3)


def layer(kernel: NDArray[np.float64], **parts: Any) -> Layer:
    """A batch norm behind a convolution with this kernel (weights a channel, channels)."""
    linear = Linear(
        name="conv",
        op="Conv2D",
        kernel="conv/weights",
        channel_max=np.abs(kernel).max(axis=0),
        channel_rms=np.sqrt(np.mean(kernel**2, axis=0)),
        channel_mean=np.mean(np.abs(kernel), axis=0),
    )
    return batch_norm("bn", linear=linear, channels=kernel.shape[1], **parts)


def rounded(folded: NDArray[np.float64], *, per_channel: bool) -> float:
    """NMSE of a kernel that is rounded as the converter does it."""
    largest = np.abs(folded).max(axis=0) if per_channel else np.abs(folded).max()
    step = np.where(np.asarray(largest) > 0, largest, 1.0) / LARGEST
    return float(np.sum((np.round(folded / step) * step - folded) ** 2) / np.sum(folded**2))


@pytest.mark.parametrize("spread", [1.0, 3.0, 10.0, 40.0, 200.0])
def test_the_kernels_own_error(spread: float) -> None:
    """Within 1.5 dB of really rounding, from even channels to one that is 200 times the others."""
    kernel = RANDOM.normal(size=(72, 16))
    gamma = np.ones(16)
    gamma[3] = spread
    model = layer(kernel, gamma=gamma, variance=np.linspace(0.5, 2.0, 16))
    found, scale = forecast(model), fold_scale(model)
    assert found is not None
    assert scale is not None
    folded = kernel * scale
    for told, per_channel in ((found.kernel_per_tensor, False), (found.kernel_per_channel, True)):
        assert sqnr_db(told) == pytest.approx(sqnr_db(rounded(folded, per_channel=per_channel)), abs=1.5)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.02])
def test_a_kernel_of_many_zeros(share: float) -> None:
    """Weights that read dead channels are zero and cost nothing."""
    kernel = RANDOM.normal(size=(1024, 16)) * (RANDOM.random(size=(1024, 16)) < share)
    model = layer(kernel, variance=np.linspace(0.5, 2.0, 16))
    found, scale = forecast(model), fold_scale(model)
    assert found is not None
    assert scale is not None
    expected = rounded(kernel * scale, per_channel=False)
    assert sqnr_db(found.kernel_per_tensor) == pytest.approx(sqnr_db(expected), abs=0.7)


@pytest.mark.parametrize("spread", [1.0, 10.0, 40.0])
def test_the_outputs_error(spread: float) -> None:
    """Within 2 dB of what rounded weights do to the output of a dense layer whose input is noise."""
    kernel, inputs = RANDOM.normal(size=(64, 16)), RANDOM.normal(size=(4000, 64))
    gamma = np.ones(16)
    gamma[3] = spread
    before = inputs @ kernel
    model = layer(kernel, mean=before.mean(axis=0), variance=before.var(axis=0), gamma=gamma, beta=0.5, epsilon=1e-3)
    found, scale = forecast(model), fold_scale(model)
    assert found is not None
    assert scale is not None
    folded, steps = kernel * scale, np.abs(kernel * scale).max() / LARGEST
    noise = inputs @ (np.round(folded / steps) * steps - folded)
    output = (before - before.mean(axis=0)) * scale + 0.5
    measured = float(np.sum(noise**2) / np.sum(output**2))
    assert sqnr_db(found.per_tensor) == pytest.approx(sqnr_db(measured), abs=2.0)
    assert found.per_channel < found.per_tensor


def test_a_dead_channel_ruins_the_others() -> None:
    """Variance 1e-8 beside 1 at epsilon 1e-5, a ratio of 316: one scale leaves nothing, one a channel everything."""
    variance = np.ones(16)
    variance[0] = 1e-8
    found = forecast(layer(RANDOM.normal(size=(288, 16)), variance=variance, mean=0.0, epsilon=1e-5))
    assert found is not None
    assert sqnr_db(found.per_tensor) < 5
    assert sqnr_db(found.per_channel) > 35


def test_nothing_without_kernel_or_numbers() -> None:
    """No kernel, no batch norm, no energy, no number: no forecast."""
    kernel = RANDOM.normal(size=(9, 4))
    three = np.ones(3)
    other = Linear(name="c", op="Conv2D", kernel="k", channel_max=three, channel_rms=three, channel_mean=three)
    cases = (
        batch_norm("bn"),
        unread(layer(kernel)),
        layer(kernel, epsilon=None),
        layer(kernel * 0),
        layer(kernel * np.nan),
        layer(kernel, gamma=0.0),
        layer(kernel, variance=float("inf")),
        batch_norm("bn", linear=other),
    )
    assert [forecast(case) for case in cases] == [None] * len(cases)
    assert isinstance(forecast(layer(kernel)), Forecast)


def test_one_number_for_all_channels_and_a_table() -> None:
    """A mean or beta of one number stands for every channel; a row for each class has no one forecast."""
    kernel = RANDOM.normal(size=(32, 8))
    filled = layer(kernel, beta=np.full(8, 0.5), mean=np.full(8, 0.25))
    assert forecast(layer(kernel, beta=np.array([0.5]), mean=np.array([0.25]))) == forecast(filled)
    assert forecast(layer(kernel, beta=np.ones(27 * 8))) is None
    assert None not in forecasts([filled, filled])
    assert forecasts([layer(kernel, beta=np.ones(216)), filled]) == [None, forecast(filled)]
