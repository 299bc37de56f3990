"""Statistics where images are few or none: those of made-up pictures, or of both in one batch.

Few images make noisy statistics, made-up pictures wrong ones that are not noisy. Pictures join the images in every
batch, where they count as one image more (the pseudo-sample size of Schneider et al. 2020, arXiv 2006.16971): so each
layer sees what the layers before it make of the mixture. A mean of the statistics of both, each made by itself, is what
no input makes in deep layers: digits came to 83.9 % so from two images, and to 85.3 % in one batch. Weights from the
noise that the halves of the images show were tried: as good on digits, and on photographs, for whose net the pictures
are too far off, 51 % instead of 74 % from 16 images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.pictures import Images, clouds, dead_leaves, grey, strokes, varied
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
_BATCH, _BATCHES, _PICTURES = 32, 6, 32
"""Images of a batch, batches of a mixture, and pictures of each of six kinds."""
_KINDS = (clouds, dead_leaves, strokes)
"""Each in colour and grey. Without strokes digits came to 75 % instead of 80 from none, and two nets of photographs to
39 and 42 instead of 49 and 45."""
_SEED = 0
_PICTURES_COUNT_AS = 1
"""Images. With half of one, one and two digits came to 83.7, 85.3 and 85.7 % from two images."""


RESCUED = (
    "statistics of made-up pictures are a last resort: at best they save a part of the accuracy. Eight real images do "
    "far better (--data); docs/how-to/no-data.md has what was measured"
)


def of_pictures(model: TrainMode, size: tuple[int, int, int], low: float, high: float) -> Mapping[str, Moments]:
    """Moments of every layer for made-up pictures (height, width, channels) in low..high, of all kinds in each batch.

    In batches of their own kinds make every layer see less variety than training showed it. Raises BncheckError where
    the model does not take them.
    """
    return population(model, _batches(_made(size, low, high)), tolerance=0).moments


def _made(size: tuple[int, int, int], low: float, high: float) -> Images:
    """Made-up pictures of all kinds in any order."""
    random = np.random.default_rng(_SEED)
    coloured = np.concatenate([make(random, _PICTURES, size) for make in _KINDS])
    without = grey(np.concatenate([make(random, _PICTURES, size) for make in _KINDS]))
    pictures = random.permutation(np.concatenate([coloured, without]))
    return (low + (pictures + 1) / 2 * (high - low)).astype(np.float32)


def picture_input(wanted: ModelInput, options: Options, where: str) -> tuple[tuple[int, int, int], float, float]:
    """((height, width, channels), lowest, highest number) of the images that a model takes.

    The range is `--preprocess`, else -1..1. Raises UsageError for an input that is no image, or of no known size.
    """
    shape = None if wanted.shape is None else wanted.shape[1:]
    spec = InputSpec(shape=shape, dtype=wanted.dtype, batch_size=_BATCH, size=options.size)
    if spec.channels_first or not np.issubdtype(wanted.dtype, np.floating):
        raise UsageError(f"{where}: pictures can be made up for floating-point images with channels last only")
    offset, scale = RANGES[options.preprocess or DEFAULT_RANGE]
    low, high = (float(np.mean((end - np.asarray(offset)) / np.asarray(scale))) for end in (0.0, 255.0))
    return image_size(spec, where), low, high


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """What the moments of few images are mixed with."""

    model: TrainMode
    images: Images
    """Made-up pictures in the range of the images."""

    def mixed(self, images: NDArray[np.generic], found: Mapping[str, Moments]) -> Mapping[str, Moments]:
        """`found`, the moments of `images` (count, height, width, channels), in batches that hold pictures too.

        The images are seen several times, varied. Raises BncheckError where the graph takes no such batches.
        """
        pixels: Images = images.astype(np.float32)
        made = max(1, round(_BATCH * _PICTURES_COUNT_AS / (len(pixels) + _PICTURES_COUNT_AS)))
        shown = _BATCH - made
        seen = varied(np.random.default_rng(_SEED), pixels, -(-_BATCHES * shown // len(pixels)))
        batches = [
            (np.concatenate([seen[at * shown :][:shown], self.images[at * made :][:made]]), None)
            for at in range(_BATCHES)
        ]
        more = population(self.model, batches, tolerance=0).moments
        return {layer: from_batch(of.count, more[layer].mean, more[layer].variance) for layer, of in found.items()}


def pictures_for(model: TrainMode, images: NDArray[np.generic]) -> Pictures | None:
    """What `images` (count, height, width, channels) are mixed with; None where they are no images, or not few.

    None too where the graph takes other batches than theirs.
    """
    if not _is_of_few_images(images):
        return None
    pictures = _made(images.shape[1:], float(images.min()), float(images.max()))
    try:
        model.run(pictures[:_BATCH])
    except BncheckError:
        return None
    return Pictures(model=model, images=pictures)


def _is_of_few_images(images: NDArray[np.generic]) -> bool:
    if images.ndim != 4 or not 0 < len(images) < FEW or not np.issubdtype(images.dtype, np.floating):
        return False
    height, width, channels = images.shape[1:]
    return channels in (1, 3, 4) and min(height, width) >= SMALLEST and float(images.min()) < float(images.max())


def _batches(images: Images) -> Iterator[Batch]:
    for start in range(0, len(images) - len(images) % _BATCH or len(images), _BATCH):
        yield images[start : start + _BATCH], None
