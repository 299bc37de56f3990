"""Made-up pictures have what photographs have: a range, a falling spectrum, channels that follow one another."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.compare.data.pictures import clouds, dead_leaves, varied


@pytest.mark.parametrize("make", [clouds, dead_leaves])
def test_pictures_look_like_photographs(make: object) -> None:
    """In -1..1, the same for a seed, neighbours alike, power falling with frequency."""
    assert callable(make)
    made = make(np.random.default_rng(0), 24, (32, 48, 3))
    assert made.shape == (24, 32, 48, 3)
    assert made.dtype == np.float32
    assert -1 <= made.min() < -0.5 < 0.5 < made.max() <= 1
    np.testing.assert_array_equal(made, make(np.random.default_rng(0), 24, (32, 48, 3)))
    gray = made.mean(axis=-1)
    neighbours = np.corrcoef(gray[:, :, 1:].ravel(), gray[:, :, :-1].ravel())[0, 1]
    assert neighbours > 0.65
    assert np.corrcoef(made[..., 0].ravel(), made[..., 2].ravel())[0, 1] > 0.7
    power = np.abs(np.fft.fft(gray - gray.mean(axis=2, keepdims=True), axis=2)) ** 2
    assert power[..., 1:4].mean() > 10 * power[..., 16:20].mean()


def test_variants_show_the_same() -> None:
    """The images themselves come first; copies are shifted by no more than a sixteenth and keep the range."""
    images = dead_leaves(np.random.default_rng(0), 3, (32, 32, 3))
    found = varied(np.random.default_rng(1), images, 5)
    assert found.shape == (15, 32, 32, 3)
    np.testing.assert_array_equal(found[:3], images)
    assert found.min() >= images.min()
    assert found.max() <= images.max()
    for copies in found[3:].reshape(4, 3, -1):
        distances = np.abs(copies[:, None] - images.reshape(1, 3, -1)).mean(axis=-1)
        np.testing.assert_array_equal(distances.argmin(axis=1), [0, 1, 2])
