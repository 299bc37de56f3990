"""What all sources of samples have in common: what the model wants, what they give, and the order they give it in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.preprocess import preprocessed
from bncheck.facts.errors import ReadError, UsageError
from bncheck.sources.arrays import read_member
from bncheck.sources.files import require_file
from bncheck.sources.npy import npy_values, read_npy_header
from bncheck.sources.zips import opened_zip

Batch: TypeAlias = tuple[NDArray[Any], "NDArray[Any] | None"]
"""Images (batch, ...) as the model wants them, labels (batch,) of integers or None."""

SEED = 0


@dataclass(frozen=True, kw_only=True)
class ModelInput:
    """One input of a model."""

    shape: tuple[int | None, ...] | None
    """Batch axis first, None what is open; None where the rank is."""
    dtype: np.dtype[Any]
    names: tuple[str, ...] = ("images",)
    """All that it goes by, the best known first."""


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """What a model takes, and how the user wants it filled."""

    shape: tuple[int | None, ...] | None
    """Of one sample."""
    dtype: np.dtype[Any]
    batch_size: int
    preprocess: str | None = None
    labels: str | None = None
    channel_order: str = "rgb"
    size: tuple[int, int] | None = None

    @property
    def channels_first(self) -> bool:
        """Whether images are wanted as (channels, height, width)."""
        shape = self.shape
        return shape is not None and len(shape) == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3)

    @property
    def channels(self) -> int:
        """1, 3 or 4 of images; 3 where the model does not say."""
        shape = self.shape
        if shape is None or len(shape) != 3:
            return 3
        return (shape[0] if self.channels_first else shape[2]) or 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """One opened source."""

    description: str
    """Name, number and shape, for people."""
    count: int | None
    """None where only reading tells."""
    labelled: bool
    open: Callable[[int], Iterator[Batch]]
    """Goes through it from a batch on, the first being 0; the last batch may be smaller."""
    synthetic: bool = False


def shuffled(count: int) -> NDArray[np.int64]:
    """The numbers below `count` in an order that is the same at every call."""
    return np.random.default_rng(SEED).permutation(count)


def index_batches(count: int, size: int, first: int = 0) -> Iterator[NDArray[np.int64]]:
    """The shuffled numbers in batches, from the batch `first` on."""
    order = shuffled(count)
    for start in range(first * size, count, size):
        yield order[start : start + size]


def image_size(wanted: InputSpec, where: str) -> tuple[int, int, int]:
    """(height, width, channels) to bring decoded images to. Raises UsageError where the model takes no images."""
    shape = wanted.shape
    if shape is not None and len(shape) != 3:
        raise UsageError(f"{where}: holds images, but the model takes samples of shape {named_shape(shape)}: give .npy")
    declared = (None, None) if shape is None else shape[1:] if wanted.channels_first else shape[:2]
    height, width = (s or d for s, d in zip(wanted.size or declared, declared, strict=True))
    if wanted.channels not in (1, 3, 4):
        raise UsageError(f"{where}: the model takes images of {wanted.channels} channels, which no image file holds")
    if not height or not width:
        raise UsageError(f"{where}: the model takes images of any size: choose one with --size HEIGHTxWIDTH")
    return height, width, wanted.channels


def fitted(
    images: NDArray[Any], wanted: InputSpec, where: str | Path, numbers: Sequence[int] | NDArray[np.int64]
) -> NDArray[Any]:
    """A batch of arrays as the model wants it: range and type; the shape must be right, and every value finite.

    `numbers` (batch,) are the samples' own in their source, from 0. Raises UsageError.
    """
    if not _fits(images.shape[1:], wanted.shape):
        raise UsageError(
            f"{where}: its samples are of shape {named_shape(images.shape[1:])}, the model takes "
            f"{named_shape(wanted.shape or ())}{_shape_hint(images.shape[1:], wanted.shape)}"
        )
    ready = preprocessed(images, wanted.preprocess, wanted.dtype, str(where), channels_first=wanted.channels_first)
    _refuse_non_finite(ready, numbers, where)
    return ready


def _refuse_non_finite(images: NDArray[Any], numbers: Sequence[int] | NDArray[np.int64], where: str | Path) -> None:
    """One NaN makes every moment of its batch NaN, which would look like a broken model. Raises UsageError."""
    if images.dtype.kind in "biu":
        return
    spoilt = [int(n) for n, one in zip(numbers, np.isfinite(images), strict=False) if not np.all(one)]
    if spoilt:
        others = f", like {len(spoilt) - 1} more of its batch" if len(spoilt) > 1 else ""
        raise UsageError(
            f"{where}: sample {min(spoilt)}, counted from 0, holds NaN or infinity as {images.dtype}{others}: "
            "fix or remove such samples"
        )


def laid_out(images: NDArray[Any], wanted: InputSpec) -> NDArray[Any]:
    """Decoded images (batch, height, width, channels; red first) in the model's order of axes and channels."""
    if wanted.channel_order == "bgr" and images.shape[-1] == 3:
        images = images[..., ::-1]
    return np.moveaxis(images, -1, 1) if wanted.channels_first else images


def read_labels(path: Path, count: int | None) -> NDArray[Any]:
    """Integers of a .npy, .npz or text file, one a sample. Raises ReadError."""
    require_file(path)
    try:
        if path.suffix == ".npz":
            with opened_zip(path) as archive:
                held = archive.namelist()
                labels = read_member(path, archive, "labels.npy" if "labels.npy" in held else held[0])
        elif path.suffix == ".npy":
            with path.open("rb") as stream:
                header = read_npy_header(stream)
                labels = npy_values(header, stream.read(min(header.size, path.stat().st_size)))
        else:
            labels = np.array([int(word) for word in path.read_text(encoding="utf-8").split()])
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise ReadError(path, f"holds no labels: {error}", hint="integers, one a sample") from None
    return checked_labels(labels, count, str(path))


def checked_labels(labels: NDArray[Any], count: int | None, where: str) -> NDArray[Any]:
    """Labels as (count,) integers; one-hot rows become their class. Raises ReadError."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)
    labels = labels.reshape(-1) if labels.ndim == 2 else labels
    if labels.ndim != 1 or not (labels.dtype.kind in "biu" or _whole_numbers(labels)):
        raise ReadError(
            where, f"labels of shape {labels.shape} and type {labels.dtype}: expected one integer per sample"
        )
    if count is not None and len(labels) != count:
        raise ReadError(where, f"holds {len(labels):,} labels for {count:,} samples")
    return labels.astype(np.int64)


def are_classes(labels: NDArray[Any]) -> bool:
    """Whether an array may hold classes: an integer a sample or one-hot rows, no masks, boxes or amounts."""
    integers = np.issubdtype(labels.dtype, np.integer) or labels.dtype == np.bool_ or _whole_numbers(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        return integers and bool(np.all(np.sort(labels, axis=1)[:, :-1] == 0))
    return integers and labels.ndim in (1, 2)


def _whole_numbers(labels: NDArray[Any]) -> bool:
    return np.issubdtype(labels.dtype, np.floating) and bool(np.all(labels == np.round(labels)))


def named_shape(shape: tuple[int | None, ...]) -> str:
    """`64x64x3`, with `?` for what is open; `()` where a sample is a single number."""
    return "x".join("?" if size is None else str(size) for size in shape) or "()"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> bool:
    if wanted is None:
        return True
    return len(shape) == len(wanted) and all(w in (None, s) for s, w in zip(shape, wanted, strict=True))


def _shape_hint(shape: tuple[int, ...], wanted: tuple[int | None, ...] | None) -> str:
    if wanted is not None and len(shape) == len(wanted) == 3:
        if _fits((shape[2], shape[0], shape[1]), wanted) or _fits((shape[1], shape[2], shape[0]), wanted):
            return ": its channels are on another axis: transpose them"
        if _fits(shape[:2], wanted[:2]):
            return f": it needs {wanted[2]} channel{'s' if wanted[2] != 1 else ''} per pixel"
        return ": resize them, or give a folder of images, which bncheck resizes"
    return ""
