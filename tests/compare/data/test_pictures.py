"""Made-up pictures have what photographs have: a range, a falling spectrum, channels that follow one another."""

from __future__ import annotations

import numpy as np
import pytest

from bncheck.compare.data.pictures import clouds, dead_leaves, strokes, varied


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


def test_strokes_are_lines_on_a_plain_ground() -> None:
    """In -1..1, the same for a seed; most of a picture is of one colour, and no more than seven colours are in it."""
    made = strokes(np.random.default_rng(0), 24, (32, 48, 3))
    assert made.dtype == np.float32
    assert -1 <= made.min() < -0.5 < 0.5 < made.max() <= 1
    np.testing.assert_array_equal(made, strokes(np.random.default_rng(0), 24, (32, 48, 3)))
    counts = [np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)[1] for picture in made]
    assert {len(each) for each in counts} <= set(range(1, 8))
    assert np.median([each.max() for each in counts]) > 0.5 * 32 * 48


def test_variants_show_the_same() -> None:
    """The images themselves come first; copies, half of them mirrored, are shifted by no more than a sixteenth."""
    images = dead_leaves(np.random.default_rng(0), 3, (32, 32, 3))
    found = varied(np.random.default_rng(1), images, 9)
    assert found.shape == (27, 32, 32, 3)
    np.testing.assert_array_equal(found[:3], images)
    assert found.min() >= images.min()
    assert found.max() <= images.max()
    known = np.concatenate([images, images[:, :, ::-1]]).reshape(1, 6, -1)
    nearest = np.array([np.abs(copy.reshape(1, 1, -1) - known).mean(axis=-1).argmin() for copy in found])
    np.testing.assert_array_equal(nearest % 3, np.tile([0, 1, 2], 9))
    assert 6 < np.count_nonzero(nearest > 2) < 18
