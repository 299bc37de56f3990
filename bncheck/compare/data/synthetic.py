"""Samples made up: smooth coloured noise, which exercises a model but says nothing of how it does on its task."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.preprocess import preprocessed
from bncheck.compare.data.samples import SEED, Batch, InputSpec, Samples, image_size, laid_out, named_shape
from bncheck.facts.errors import UsageError
from bncheck.facts.wording import many

DEFAULT_RANGE = "-1..1"


def check_labels(labels: str | None) -> None:
    """Raises UsageError for labels of data that are made up."""
    if labels is not None:
        raise UsageError(f"--labels {labels}: synthetic data have no labels")


def open_synthetic(wanted: InputSpec, batches: int) -> Samples:
    """Seeded noise: of images, blurred at several scales as photographs are; of anything else, normal numbers.

    Raises UsageError where the model does not say what it takes, or takes what cannot be made up.
    """
    shape = wanted.shape
    check_labels(wanted.labels)
    if shape is not None and len(shape) != 3 and None in shape:
        raise UsageError(f"the model takes samples of shape {named_shape(shape)}: synthetic data need all sizes known")
    images = shape is None or len(shape) == 3
    if not images and not np.issubdtype(wanted.dtype, np.floating):
        raise UsageError(f"the model takes {wanted.dtype} values, which cannot be made up: give real data")
    size = image_size(wanted, "synthetic") if images else tuple(s or 0 for s in shape or ())

    def batch(random: np.random.Generator) -> NDArray[Any]:
        if not images:
            return random.normal(size=(wanted.batch_size, *size)).astype(wanted.dtype)
        made = laid_out(_noise(random, wanted.batch_size, size), wanted)
        name = wanted.preprocess or DEFAULT_RANGE
        return preprocessed(made, name, wanted.dtype, "synthetic", channels_first=wanted.channels_first)

    def generate(first: int) -> Iterator[Batch]:
        random = np.random.default_rng(SEED)
        made = (batch(random) for _ in range(batches))
        return ((images, None) for images in islice(made, first, None))

    ranged = f" in {wanted.preprocess or DEFAULT_RANGE}" if images and wanted.dtype.kind == "f" else ""
    return Samples(
        description=f"synthetic noise, {many(batches * wanted.batch_size, 'sample')} of {named_shape(size)}{ranged}",
        count=batches * wanted.batch_size,
        labelled=False,
        open=generate,
        synthetic=True,
    )


def _noise(random: np.random.Generator, count: int, size: tuple[int, ...]) -> NDArray[np.uint8]:
    """(count, height, width, channels) bytes: uniform noise at 1, 2, 4, ... cells, each octave half as strong."""
    height, width, channels = size
    total = np.zeros((count, height, width, channels), np.float32)
    cells, strength = 1, 1.0
    while cells <= max(height, width):
        coarse = random.uniform(-1, 1, (count, min(cells, height), min(cells, width), channels)).astype(np.float32)
        total += strength * coarse[:, _stretched(coarse.shape[1], height)][:, :, _stretched(coarse.shape[2], width)]
        cells, strength = cells * 2, strength / 2
    noise: NDArray[np.uint8] = np.clip(127.5 + 90 * total, 0, 255).astype(np.uint8)
    return noise


def _stretched(cells: int, length: int) -> NDArray[np.int64]:
    return np.arange(length) * cells // length
