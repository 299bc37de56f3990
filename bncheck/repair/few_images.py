"""Statistics where images are few or none: those of made-up pictures, or a mean of both.

Few images make noisy statistics, made-up pictures wrong ones that are not noisy. Each layer's mean and log variance are
averaged, the pictures counting as one image more (the pseudo-sample size of Schneider et al. 2020, arXiv 2006.16971).
Weights from the noise that the halves of the images show were tried: as good on digits, and on photographs, for whose
net the pictures are too far off, 51 % instead of 74 % from 16 images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.pictures import Images, clouds, dead_leaves, varied
from bncheck.compare.data.samples import InputSpec, ModelInput, image_size
from bncheck.compare.data.synthetic import DEFAULT_RANGE
from bncheck.facts.errors import BncheckError, UsageError
from bncheck.facts.inputs import RANGES
from bncheck.numerics.moments import Moments, from_batch
from bncheck.repair.population import Batch, TrainMode, population
from bncheck.settings.options import Options

FEW = 32
"""Images below which pictures help: from 32 on they changed nothing (docs/how-to/no-data.md)."""
SMALLEST = 8
"""Pixels of a side below which pictures are no pictures."""
_BATCH, _PICTURES, _VARIANTS = 32, 96, 64
_SEED = 0
_TINY = 1e-6
"""Added to variances before their logarithm."""
_PICTURES_COUNT_AS = 1
"""Images. With 1, 2 and 4 digits came to 89.0, 88.5 and 87.7 % from four images, to 80.5, 78.5 and 76.5 % from one."""


RESCUED = (
    "statistics of made-up pictures are a last resort: at best they save a part of the accuracy. Eight real images do "
    "far better (--data); docs/how-to/no-data.md has what was measured"
)


def of_pictures(model: TrainMode, size: tuple[int, int, int], low: float, high: float) -> Mapping[str, Moments]:
    """Moments of every layer for two kinds of made-up pictures (height, width, channels) in low..high, one of each.

    Raises BncheckError where the model does not take them.
    """
    random = np.random.default_rng(_SEED)
    kinds = []
    for make in (clouds, dead_leaves):
        pictures = low + (make(random, _PICTURES, size) + 1) / 2 * (high - low)
        kinds.append(population(model, _batches(pictures.astype(np.float32))).moments)
    one, other = kinds
    return {layer: _mean(one[layer], other[layer], 0.5, one[layer].count) for layer in one}


def picture_input(wanted: ModelInput, options: Options, where: str) -> tuple[tuple[int, int, int], float, float]:
    """((height, width, channels), lowest, highest number) of the images that a model takes.

    The range is `--preprocess`, else -1..1. Raises UsageError for an input that is no image, or of no known size.
    """
    shape = None if wanted.shape is None else wanted.shape[1:]
    spec = InputSpec(shape=shape, dtype=wanted.dtype, batch_size=_BATCH, size=options.size)
    if spec.channels_first or not np.issubdtype(wanted.dtype, np.floating):
        raise UsageError(f"{where}: pictures can be made up only for floating-point images, channels last")
    offset, scale = RANGES[options.preprocess or DEFAULT_RANGE]
    low, high = (float(np.mean((end - np.asarray(offset)) / np.asarray(scale))) for end in (0.0, 255.0))
    return image_size(spec, where), low, high


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What the moments of few images are mixed with."""

    model: TrainMode
    moments: Mapping[str, Moments]
    """Of made-up pictures in the range of the images."""

    def mixed(self, images: NDArray[np.generic], found: Mapping[str, Moments]) -> Mapping[str, Moments]:
        """`found`, the moments of `images` (count, height, width, channels), shrunk towards those of the pictures.

        The images are seen several times, varied. Raises BncheckError where the graph takes no such batches.
        """
        pixels: Images = images.astype(np.float32)
        times = max(2, -(-_VARIANTS // len(pixels)))
        more = population(self.model, _batches(varied(np.random.default_rng(_SEED), pixels, times))).moments
        weight = len(pixels) / (len(pixels) + _PICTURES_COUNT_AS)
        return {layer: _mean(more[layer], self.moments[layer], weight, of.count) for layer, of in found.items()}


def pictures_for(model: TrainMode, images: NDArray[np.generic]) -> Pictures | None:
    """What `images` (count, height, width, channels) are mixed with; None where they are no images, or not few.

    None too where the graph takes other batches than theirs.
    """
    if not _is_of_few_images(images):
        return None
    low, high = float(images.min()), float(images.max())
    try:
        return Pictures(model=model, moments=of_pictures(model, images.shape[1:], low, high))
    except BncheckError:
        return None


def _is_of_few_images(images: NDArray[np.generic]) -> bool:
    if images.ndim != 4 or not 0 < len(images) < FEW or not np.issubdtype(images.dtype, np.floating):
        return False
    height, width, channels = images.shape[1:]
    return channels in (1, 3, 4) and min(height, width) >= SMALLEST and float(images.min()) < float(images.max())


def _batches(images: Images) -> Iterator[Batch]:
    for start in range(0, len(images) - len(images) % _BATCH or len(images), _BATCH):
        yield images[start : start + _BATCH], None


def _mean(one: Moments, other: Moments, weight: float, count: int | NDArray[np.int64]) -> Moments:
    """Of means, and of log variances; `weight` is that of the first."""
    logarithm = weight * np.log(one.variance + _TINY) + (1 - weight) * np.log(other.variance + _TINY)
    variance = np.maximum(np.exp(logarithm) - _TINY, 0.0)
    return from_batch(count, weight * one.mean + (1 - weight) * other.mean, variance)
