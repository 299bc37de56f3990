"""Pictures made up to stand in for photographs, and photographs varied a little: where there are few, or none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
"""(count, height, width, channels)."""

_ALIKE = 0.95
"""How far the channels of a picture follow one another: colours differ far less than brightness (a guess)."""
_DISCS = 60
_SHIFT = 16
"""The part of an image by which it is shifted at most: a sixteenth, to each side."""


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
            picture[inside] = np.clip(random.uniform(-1, 1) + random.normal(0, 0.2, channels), -1, 1)
    return found


def grey(images: Images) -> Images:
    """The same without colour."""
    return np.repeat(images.mean(axis=-1, keepdims=True), images.shape[-1], axis=-1)


def varied(random: np.random.Generator, images: Images, times: int) -> Images:
    """Each image, and `times - 1` copies of it shifted, brightened and stretched by a little: what it shows stays."""
    count, height, width, _ = images.shape
    low, high = float(images.min()), float(images.max())
    down, across = height // _SHIFT, width // _SHIFT
    found = [images]
    padded = np.pad(images, ((0, 0), (down, down), (across, across), (0, 0)), mode="edge")
    for _ in range(times - 1):
        copy = np.empty_like(images)
        for number in range(count):
            top, left = random.integers(2 * down + 1), random.integers(2 * across + 1)
            part = padded[number, top : top + height, left : left + width]
            middle = 0.5 * (low + high)
            stretched = middle + random.uniform(0.85, 1.15) * (part - middle)
            copy[number] = np.clip(stretched + random.uniform(-0.05, 0.05) * (high - low), low, high)
        found.append(copy)
    return np.concatenate(found)
