"""The largest weight of each output channel, for every layout of kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bncheck.numerics.kernel_layouts import output_channels
from bncheck.recognise.kernel_sizes import kernel_sizes, linear_before
from bncheck.recognise.stored_vectors import per_channel
from bncheck.sources.raw import RawTensor


def tensor(values: Any, *, dtype: str | None = None, unavailable: str | None = None) -> RawTensor:
    """A stored tensor of these values."""
    array = np.asarray(values)
    return RawTensor(
        name="k", dtype=dtype or array.dtype.name, shape=array.shape, read=lambda: array, unavailable=unavailable
    )


KERNEL = np.random.default_rng(5).normal(size=(3, 2, 4, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        ("Conv2D", np.abs(KERNEL).max((0, 1, 2))),
        ("DepthwiseConv2dNative", np.abs(KERNEL).max((0, 1)).reshape(-1)),
        ("DepthwiseConv2D", np.abs(KERNEL).max((0, 1)).reshape(-1)),
        ("DepthwiseConvolution2D", np.abs(KERNEL).max((0, 1)).reshape(-1)),
        ("Conv2DBackpropInput", np.abs(KERNEL).max((0, 1, 3))),
        ("Conv2DTranspose", np.abs(KERNEL).max((0, 1, 3))),
        ("Convolution2DTranspose", np.abs(KERNEL).max((0, 1, 3))),
    ],
)
def test_layouts(op: str, expected: np.ndarray) -> None:
    """Each op has its output channels where TensorFlow lays them."""
    found = kernel_sizes(tensor(KERNEL), op).largest
    np.testing.assert_array_equal(found, expected.astype(np.float64))
    assert found.dtype == np.float64
    assert not found.flags.writeable
    assert output_channels(KERNEL.shape, op) == expected.size


def test_dense() -> None:
    """A dense kernel is [in, out]; a negative weight counts by its size."""
    assert kernel_sizes(tensor([[1.0, -5.0], [2.0, 3.0]]), "MatMul").largest.tolist() == [2.0, 5.0]


def test_no_weights_and_nan() -> None:
    """A channel without weights has 0; NaN stays NaN, in its own channel."""
    assert kernel_sizes(tensor(np.zeros((0, 2))), "MatMul").largest.tolist() == [0, 0]
    found = kernel_sizes(tensor([[np.nan, 1.0]]), "MatMul").largest
    assert np.isnan(found[0])
    assert found[1] == 1


def test_signalling_nan() -> None:
    """A NaN of any bits stays one without a warning, in a kernel and in a vector."""
    signalling = np.array([[0x7F800001, 0x3F800000]], np.uint32).view(np.float32)
    np.testing.assert_array_equal(kernel_sizes(tensor(signalling), "MatMul").largest, [np.nan, 1.0])
    np.testing.assert_array_equal(per_channel(tensor(signalling)), [np.nan, 1.0])


def test_no_kernel() -> None:
    """A vector is no kernel."""
    with pytest.raises(ValueError, match=r"k of shape \[2\] is not a kernel of Conv2D"):
        kernel_sizes(tensor([1.0, 2.0]), "Conv2D")


@pytest.mark.parametrize(
    ("kernel", "limit", "says"),
    [
        (tensor(np.ones((2, 2)), unavailable="its data file is absent"), 1 << 30, "its data file is absent"),
        (tensor(np.ones((2, 2), np.int8)), 1 << 30, "of type int8"),
        (tensor(np.ones(2)), 1 << 30, "shape [2]"),
        (tensor(np.broadcast_to(np.float32(1), (4096, 4097))), 1 << 30, "above the 64 MiB"),
        (tensor(np.ones((2, 2))), 8, "came before"),
    ],
)
def test_not_read(kernel: RawTensor, limit: int, says: str) -> None:
    """What is absent, too large or no float is not read, and says why."""
    linear = linear_before("conv", "Conv2D", kernel, limit=limit)
    assert linear.channel_max is None
    assert says in linear.reason


def test_read() -> None:
    """What is at hand is read, without a reason."""
    linear = linear_before("conv", "MatMul", tensor(np.ones((2, 3))))
    assert (linear.name, linear.op, linear.kernel, linear.reason) == ("conv", "MatMul", "k", "")
    assert linear.channel_max is not None
    assert linear.channel_max.tolist() == [1, 1, 1]


def test_typical_weights() -> None:
    """The root mean square of each channel, in every layout, of half precision too, and of weights beyond float32."""
    expected = np.sqrt(np.mean(KERNEL.astype(np.float64) ** 2, axis=(0, 1, 2)))
    np.testing.assert_allclose(kernel_sizes(tensor(KERNEL), "Conv2D").rms, expected, rtol=1e-6)
    transposed = np.sqrt(np.mean(KERNEL.astype(np.float64) ** 2, axis=(0, 1, 3)))
    np.testing.assert_allclose(kernel_sizes(tensor(KERNEL), "Conv2DTranspose").rms, transposed, rtol=1e-6)
    half = kernel_sizes(tensor((KERNEL * 300).astype(np.float16)), "Conv2D").rms
    np.testing.assert_allclose(half, 300 * expected, rtol=1e-2)
    assert kernel_sizes(tensor(np.full((2, 1), 1e30, np.float32)), "MatMul").rms.tolist() == [np.inf]
    assert kernel_sizes(tensor(np.zeros((0, 2))), "MatMul").rms.tolist() == [0, 0]
    means = kernel_sizes(tensor([[1.0, -5.0], [2.0, 3.0]]), "MatMul").mean
    assert means.tolist() == [1.5, 4.0]
