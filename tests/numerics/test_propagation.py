"""Moments carried from weights alone: closed forms, Monte Carlo, and TensorFlow's own padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bncheck.numerics.propagation import (
    FUNCTIONS,
    KernelAxis,
    Signal,
    applied,
    averaged,
    gated,
    joined,
    largest,
    normal,
    of_images,
    summed,
    through_kernel,
)

MEANS = np.array([-3.0, -0.7, 0.0, 0.4, 2.0, 7.0])
DEVIATIONS = np.array([1.0, 0.5, 1.0, 2.0, 3.0, 0.1])


def _density(x: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


def _below(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in x]))


def test_a_normal_channel_keeps_its_moments() -> None:
    """The points carry the first two moments."""
    found = normal(MEANS, DEVIATIONS, of="a")
    np.testing.assert_allclose(found.mean, MEANS, atol=1e-9)
    np.testing.assert_allclose(np.sqrt(found.variance), DEVIATIONS, rtol=1e-3)


def test_rectified_as_the_closed_form() -> None:
    """E relu(x) = m P(m / s) + s p(m / s), and the second moment (m^2 + s^2) P + m s p."""
    found = applied(FUNCTIONS["relu"], normal(MEANS, DEVIATIONS, of="a"))
    assert found is not None
    z = MEANS / DEVIATIONS
    mean = MEANS * _below(z) + DEVIATIONS * _density(z)
    second = (MEANS**2 + DEVIATIONS**2) * _below(z) + MEANS * DEVIATIONS * _density(z)
    np.testing.assert_allclose(found.mean, mean, atol=1e-3)
    np.testing.assert_allclose(found.variance, second - mean**2, atol=5e-3)


def test_clipped_as_the_closed_form() -> None:
    """E relu6(x) is E relu(x) - E relu(x - 6)."""
    found = applied(FUNCTIONS["relu6"], normal(MEANS, DEVIATIONS, of="a"))
    assert found is not None
    parts = []
    for shift in (0.0, 6.0):
        z = (MEANS - shift) / DEVIATIONS
        parts.append((MEANS - shift) * _below(z) + DEVIATIONS * _density(z))
    np.testing.assert_allclose(found.mean, parts[0] - parts[1], atol=2e-3)


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"exp"}))
def test_functions_against_monte_carlo(name: str) -> None:
    """Mean and deviation of every function, within the noise of a million samples."""
    mean, deviation = np.array([0.3]), np.array([1.4])
    samples = np.random.default_rng(1).normal(mean, deviation, 1_000_000)
    found = applied(FUNCTIONS[name], normal(mean, deviation, of="a"))
    assert found is not None
    made = FUNCTIONS[name](samples)
    assert found.mean[0] == pytest.approx(made.mean(), abs=5e-3 * max(1, made.std()))
    assert np.sqrt(found.variance[0]) == pytest.approx(made.std(), rel=1e-2)


def test_sums_of_the_same_and_of_other_variables() -> None:
    """Twice x has four times the variance, x + y twice that of x; what is not known makes the sum unknown."""
    x, y = (normal(np.zeros(2), np.ones(2), of=name) for name in "xy")
    same, other = summed([x, x], of="s"), summed([x, y], of="s")
    assert same is not None
    assert other is not None
    np.testing.assert_allclose(same.variance, 4.0, rtol=1e-3)
    np.testing.assert_allclose(other.variance, 2.0, rtol=1e-3)
    assert summed([x, None], of="s") is None
    assert summed([x, normal(np.zeros(3), np.ones(3), of="z")], of="s") is None


def test_behind_a_pooling_the_mean_stays_and_the_spread_is_a_guess() -> None:
    """So that the mean of a function of it is one too; what is joined to it shares the doubt."""
    pooled = averaged(normal(np.ones(2), np.ones(2), of="x"), 4, of="p")
    assert pooled is not None
    np.testing.assert_allclose(pooled.mean, 1.0)
    assert 1 / 4 < pooled.variance[0] < 1
    assert pooled.mean_known
    assert not pooled.spread_known
    behind = applied(FUNCTIONS["relu"], pooled)
    assert behind is not None
    assert not behind.mean_known
    beside = joined([pooled, normal(np.zeros(1), np.ones(1), of="y")], of="j")
    assert beside is not None
    assert beside.values.shape[1] == 3
    assert not beside.spread_known
    assert beside.mean_known


def test_the_largest_against_monte_carlo() -> None:
    """Of four places with correlations of 0.7, as of neighbours in a map: means to a tenth of a deviation."""
    random, mean, deviation = np.random.default_rng(4), np.array([-1.0, 0.0, 2.0]), np.array([0.5, 1.0, 2.0])
    places = np.sqrt(0.7) * random.normal(size=(100_000, 1)) + np.sqrt(0.3) * random.normal(size=(100_000, 4))
    made = np.maximum(places[..., None] * deviation + mean, 0).max(axis=1)
    found = largest(applied(FUNCTIONS["relu"], normal(mean, deviation, of="x")), 4, of="p")
    assert found is not None
    np.testing.assert_allclose(found.mean, made.mean(axis=0), atol=0.1 * deviation.max())
    np.testing.assert_allclose(np.sqrt(found.variance), made.std(axis=0), rtol=0.2)
    assert not found.mean_known
    assert largest(found, 1, of="same") is found


def test_a_gate_scales_what_it_lets_through() -> None:
    """By its mean, where it varies less; of the same variables the product is exact: x^2 has mean 1 and variance 2."""
    x = normal(np.array([1.0, 2.0]), np.array([1.0, 3.0]), of="x")
    gate = normal(np.array([0.5, 0.2]), np.array([0.01, 0.01]), of="g")
    let_through = gated(x, gate, of="xg")
    assert let_through is not None
    np.testing.assert_allclose(let_through.mean, [0.5, 0.4], atol=1e-9)
    assert not let_through.mean_known
    one = normal(np.zeros(1), np.ones(1), of="z")
    square = gated(one, one, of="zz")
    assert square is not None
    assert square.mean[0] == pytest.approx(1, rel=1e-2)
    assert square.variance[0] == pytest.approx(2, rel=2e-2)
    assert square.mean_known
    assert gated(x, one, of="other") is None


def test_means_behind_images() -> None:
    """Three unknown means explain 24 channels, whatever they are, and none in another order; not 8 of 3."""
    random = np.random.default_rng(5)
    kernel = random.normal(size=(3, 3, 3, 24))
    windows = [KernelAxis(size=32, kernel=3, padding=None)] * 2
    images = normal(np.array([0.3, -0.2, 0.7]), np.ones(3), of="x")
    true = through_kernel(images, kernel, windows)
    assert true is not None
    found = of_images(true.mean, true.variance, kernel, windows)
    assert found is not None
    np.testing.assert_allclose(found.mean, true.mean, atol=1e-9)
    assert found.fitted == 3
    other = of_images(random.permutation(true.mean), true.variance, kernel, windows)
    assert other is not None
    assert np.abs(other.mean - true.mean).max() > 1
    assert of_images(true.mean[:8], true.variance[:8], kernel[..., :8], windows) is None
    assert of_images(true.mean, true.variance, kernel, [KernelAxis(size=4, kernel=3, padding=None)] * 2) is None


@pytest.mark.parametrize("kind", ["photograph", "noise", "coloured noise", "unlike colours"])
def test_variances_behind_images_of_any_kind(kind: str) -> None:
    """Of 24 random kernels, from smooth ones to edges, over real and made images: in proportion; shuffled ones not."""
    random = np.random.default_rng(6)
    smooth = random.normal(size=(1, 1, 3, 24)) * np.linspace(0, 1, 24)
    kernel = smooth + random.normal(size=(3, 3, 3, 24)) * np.linspace(1, 0, 24)
    image = pytest.importorskip("sklearn.datasets").load_sample_images().images[0] / 127.5 - 1
    height, width, _ = image.shape
    if kind == "noise":
        image = random.normal(size=image.shape)
    elif kind == "coloured noise":
        image = random.normal(size=(height, width, 1)) + 0.3 * random.normal(size=image.shape)
    elif kind == "unlike colours":
        image = np.stack([image[..., 0], image[::-1, :, 1], image[:, ::-1, 2]], axis=-1)
    made = sum(image[y : height - 2 + y, x : width - 2 + x] @ kernel[y, x] for y in range(3) for x in range(3))
    variance = np.asarray(made).var(axis=(0, 1))
    windows = [KernelAxis(size=64, kernel=3)] * 2
    found = of_images(np.zeros(24), variance, kernel, windows)
    assert found is not None
    assert np.corrcoef(np.log(found.variance), np.log(variance))[0, 1] > 0.9
    shuffled = random.permutation(variance)
    other = of_images(np.zeros(24), shuffled, kernel, windows)
    assert other is not None
    assert np.corrcoef(np.log(other.variance), np.log(shuffled))[0, 1] < 0.6


@given(
    size=st.integers(1, 20),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    same=st.booleans(),
)
def test_windows_meet_the_input_where_a_loop_says(
    size: int,
    kernel: int,
    stride: int,
    dilation: int,
    same: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    """Every output place and tap counted one by one; SAME gives ceil(size / stride) places (tf.nn.convolution)."""
    reach = dilation * (kernel - 1) + 1
    if not same and size < reach:
        return
    window = KernelAxis(size=size, kernel=kernel, stride=stride, padding=None if same else (0, 0), dilation=dilation)
    assert window.output == (-(-size // stride) if same else -(-(size - reach + 1) // stride))
    before = window.zeros[0]
    places = range(window.output or 0)
    for tap in range(kernel):
        met = [0 <= place * stride + tap * dilation - before < size for place in places]
        assert window.met[tap] == pytest.approx(sum(met) / len(met))


def test_a_convolution_against_monte_carlo() -> None:
    """3x3 over 4x4 places with zeros around: a third of what the kernel meets is border."""
    random = np.random.default_rng(2)
    mean, deviation = random.normal(size=5), random.uniform(0.5, 1.5, 5)
    kernel = random.normal(size=(3, 3, 5, 7))
    images = random.normal(mean, deviation, (4000, 4, 4, 5))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    made = sum(
        np.einsum("nhwi,io->nhwo", padded[:, y : y + 4, x : x + 4], kernel[y, x]) for y in range(3) for x in range(3)
    )
    windows = [KernelAxis(size=4, kernel=3, padding=None)] * 2
    found = through_kernel(normal(mean, deviation, of="x"), kernel, windows)
    assert found is not None
    np.testing.assert_allclose(found.mean, made.mean(axis=(0, 1, 2)), atol=0.05)
    one = through_kernel(normal(mean, deviation, of="x"), kernel[:, :, :, :1], windows, depthwise=True)
    assert one is not None
    by_channel = [
        sum(padded[:, y : y + 4, x : x + 4, c] * kernel[y, x, c, 0] for y in range(3) for x in range(3)).mean()
        for c in range(5)
    ]
    np.testing.assert_allclose(one.mean, by_channel, atol=0.05)


def test_a_map_that_the_kernel_fills() -> None:
    """Behind 3x3 over 2x2 places, and 1x1 over one, the variance may be larger; not depthwise, nor over 32x32."""
    arriving = normal(np.zeros(4), np.ones(4), of="x")
    for size, depthwise, least in ((2, False, True), (2, True, False), (32, False, False)):
        windows = [KernelAxis(size=size, kernel=3, padding=None)] * 2
        kernel = np.ones((3, 3, 4, 1 if depthwise else 5))
        found = through_kernel(arriving, kernel, windows, depthwise=depthwise)
        assert found is not None
        assert (found.least, found.rough) == (least, size == 2)
    one_place = through_kernel(arriving, np.ones((1, 1, 4, 5)), [KernelAxis(size=1, kernel=1)] * 2)
    assert one_place is not None
    assert (one_place.least, one_place.rough) == (True, False)


def test_a_dense_layer_over_flattened_places() -> None:
    """(4 places * 3 channels, 2): each place has the same means; of another size nothing is said."""
    arriving = normal(np.array([1.0, 2.0, 3.0]), np.ones(3), of="x")
    kernel = np.random.default_rng(3).normal(size=(12, 2))
    found = through_kernel(arriving, kernel)
    assert found is not None
    np.testing.assert_allclose(found.mean, np.tile([1.0, 2.0, 3.0], 4) @ kernel)
    assert through_kernel(arriving, kernel[:11]) is None
    assert through_kernel(None, kernel) is None
    assert through_kernel(arriving, np.ones((3, 3, 2, 4)), [KernelAxis(size=None, kernel=3)] * 2) is None


def test_values_name_their_variables() -> None:
    """A function of a signal is of the same variables, so that x * sigmoid(x) is told from x * sigmoid(y)."""
    x = normal(np.zeros(1), np.ones(1), of="x")
    made = applied(FUNCTIONS["sigmoid"], x)
    assert isinstance(made, Signal)
    assert made.of == x.of
