"""Pictures made up to stand in for photographs, and photographs varied a little: where there are few, or none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
"""(count, height, width, channels)."""

_ALIKE = 0.95
"""How far the channels of a picture follow one another: colours differ far less than brightness (a guess)."""
_DISCS = 60
_STROKES = 6
_SHIFT = 16
"""The part of an image by which it is shifted at most: a sixteenth, to each side."""
_MIRRORED, _TURNED, _ENLARGED, _STRETCHED, _BRIGHTENED = 0.5, np.deg2rad(15), 0.25, 0.3, 0.1
"""Share of the copies; and at most: radians, logarithm of the size, share of the contrast, share of the range.

Without mirror and turn, and with half of the rest, four images came to 90.9 instead of 92.5 % (digits, 12 draws) and
59.1 instead of 61.2 % (photographs, 6 draws)."""


def clouds(random: np.random.Generator, count: int, size: tuple[int, int, int]) -> Images:
    """Noise whose power falls with the square of the frequency, as that of photographs does, in -1..1 (Field 1987).

    `size` is (height, width, channels). Brightness and contrast differ from picture to picture.
    """
    height, width, channels = size
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    frequency[0, 0] = 1 / max(height, width)

    def plane() -> NDArray[np.float64]:
        made: NDArray[np.float64] = np.real(np.fft.ifft2(np.fft.fft2(random.normal(size=(height, width))) / frequency))
        return made

    found = np.empty((count, *size), np.float32)
    for picture in found:
        shared = plane()
        own = np.stack([plane() for _ in range(channels)], axis=-1)
        mixed = _ALIKE * shared[..., None] + np.sqrt(1 - _ALIKE**2) * own
        scaled = (mixed - mixed.mean()) / max(float(mixed.std()), 1e-12)
        picture[...] = np.clip(random.uniform(0.4, 1.0) * scaled + random.normal(0, 0.3), -1, 1)
    return found


def dead_leaves(random: np.random.Generator, count: int, size: tuple[int, int, int]) -> Images:
    """Discs of one brightness that cover one another, few of them large, in -1..1 (Lee, Mumford and Huang 2001)."""
    height, width, channels = size
    down, across = np.mgrid[:height, :width]
    longest = max(height, width)
    found = np.zeros((count, *size), np.float32)
    for picture in found:
        for _ in range(_DISCS):
            radius = min(0.03 * (random.pareto(2) + 1), 0.5) * longest
            inside = (down - random.uniform(0, height)) ** 2 + (across - random.uniform(0, width)) ** 2 < radius**2
            picture[inside] = _colour(random, channels)
    return found


def strokes(random: np.random.Generator, count: int, size: tuple[int, int, int]) -> Images:
    """A few thick lines on a plain ground, as in writing, drawings and signs, in -1..1."""
    height, width, channels = size
    down, across = np.mgrid[:height, :width]
    found = np.empty((count, *size), np.float32)
    for picture in found:
        picture[...] = _colour(random, channels)
        for _ in range(random.integers(1, _STROKES + 1)):
            (top, left), (bottom, right) = random.uniform(0, (height, width), (2, 2))
            steps = (down - top) * (bottom - top) + (across - left) * (right - left)
            along = np.clip(steps / max((bottom - top) ** 2 + (right - left) ** 2, 1e-12), 0, 1)
            apart = np.hypot(down - top - along * (bottom - top), across - left - along * (right - left))
            picture[apart < random.uniform(0.02, 0.1) * max(height, width)] = _colour(random, channels)
    return found


def _colour(random: np.random.Generator, channels: int) -> NDArray[np.float64]:
    """A brightness in -1..1, and channels that differ from it by a little."""
    return np.clip(random.uniform(-1, 1) + random.normal(0, 0.2, channels), -1, 1)


def grey(images: Images) -> Images:
    """The same without colour."""
    return np.repeat(images.mean(axis=-1, keepdims=True), images.shape[-1], axis=-1)


def varied(random: np.random.Generator, images: Images, times: int) -> Images:
    """Each image, and `times - 1` copies of it a little shifted, turned, enlarged, brightened and stretched, half of
    them mirrored.

    What is to be learnt of them is how their pixels vary: a mirrored digit, which is none, stands in for another one.
    """
    low, high = float(images.min()), float(images.max())
    middle, copies = 0.5 * (low + high), np.tile(images, (times, 1, 1, 1))
    for copy in copies[len(images) :]:
        moved = _moved(random, copy[:, ::-1] if random.random() < _MIRRORED else copy)
        stretched = middle + random.uniform(1 - _STRETCHED, 1 + _STRETCHED) * (moved - middle)
        copy[...] = np.clip(stretched + random.uniform(-_BRIGHTENED, _BRIGHTENED) * (high - low), low, high)
    return copies


def _moved(random: np.random.Generator, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(height, width, channels) shifted, turned and made larger or smaller, each pixel that of the nearest place.

    Interpolated ones would vary less than those of the image, where it is noisy or sharp.
    """
    height, width, _ = image.shape
    angle, scale = random.uniform(-_TURNED, _TURNED), np.exp(random.uniform(-_ENLARGED, _ENLARGED))
    down, across = (np.arange(length) - (length - 1) / 2 for length in (height, width))
    rows = np.cos(angle) * down[:, None] - np.sin(angle) * across
    columns = np.sin(angle) * down[:, None] + np.cos(angle) * across
    places = (
        np.clip(np.rint(turned / scale + (length - 1) / 2 + random.uniform(-length, length) / _SHIFT), 0, length - 1)
        for turned, length in ((rows, height), (columns, width))
    )
    row, column = (place.astype(int) for place in places)
    found: NDArray[np.float32] = image[row, column]
    return found
