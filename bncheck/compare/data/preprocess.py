"""Bytes of images -> the range of numbers that a model was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import UsageError
from bncheck.facts.inputs import RANGES


def check_name(name: str | None) -> None:
    """Raises UsageError for a name that is not in RANGES."""
    if name is not None and name not in RANGES:
        raise UsageError(f"--preprocess {name!r} does not exist: choose one of {', '.join(RANGES)}")


def preprocessed(
    images: NDArray[Any],
    name: str | None,
    dtype: np.dtype[Any],
    where: str,
    *,
    channels_first: bool = False,
    channel_order: str = "rgb",
) -> NDArray[Any]:
    """Images in the model's type: bytes scaled as `name` says, floating-point ones as they are.

    Raises UsageError where bytes meet a floating-point input and nobody says which range it was trained on: a wrong
    guess would look like a broken model.
    """
    if np.issubdtype(dtype, np.floating) and np.issubdtype(images.dtype, np.integer):
        check_name(name)
        if name is None:
            raise UsageError(
                f"{where}: holds bytes, and bncheck cannot know the range that the model was trained on: "
                f"--preprocess {' | '.join(RANGES)}"
            )
        offset, scale = (_per_channel(v, channel_order, first=channels_first) for v in RANGES[name])
        images = (images.astype(np.float32) - offset) / scale
    elif not np.can_cast(images.dtype, dtype, "same_kind") and np.issubdtype(images.dtype, np.floating):
        raise UsageError(f"{where}: holds {images.dtype} numbers, but the model takes {dtype}")
    with np.errstate(over="ignore"):  # what becomes infinite is refused with its number, by those who know it
        return images.astype(dtype, copy=False)


def _per_channel(values: tuple[float, ...], order: str, *, first: bool) -> NDArray[np.float32]:
    array = np.array(values[::-1] if order == "bgr" else values, np.float32)
    return array.reshape(-1, 1, 1) if first and array.size > 1 else array
