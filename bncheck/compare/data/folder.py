"""A folder of PNG, JPEG, GIF or BMP images, in subfolders or not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.decode import NO_IMAGE, Decoder
from bncheck.compare.data.preprocess import check_name, preprocessed
from bncheck.compare.data.samples import (
    Batch,
    InputSpec,
    Samples,
    image_size,
    index_batches,
    laid_out,
    named_shape,
    read_labels,
)
from bncheck.facts.errors import ReadError, UsageError
from bncheck.sources.files import read_whole, require_inside

SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp")
FOLDERS = "folders"
"""`--labels folders`: the class is the number of the subfolder among all, sorted by name."""
_THREADS = 2
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM")
_LOOKED_AT = 256
"""Images whose beginnings are looked at before TensorFlow is loaded."""
_LARGEST_IMAGE = 1 << 30
"""Bytes of one file."""


def open_folder(folder: Path, wanted: InputSpec) -> Samples:
    """Images of a folder, brought to the model's size. Raises UsageError, and ReadError for one that is no image."""
    files = _files(folder)
    check_name(wanted.preprocess)
    size = image_size(wanted, str(folder))
    labels = _labels(folder, files, wanted.labels)
    decoder = Decoder(*size)

    def decode(path: Path) -> NDArray[np.uint8]:
        return decoder.decode(read_whole(path, limit=_LARGEST_IMAGE), str(path))

    def batches(first: int) -> Iterator[Batch]:
        for chosen, images in _ahead(decode, files, index_batches(len(files), wanted.batch_size, first)):
            yield finished(images, wanted, str(folder)), None if labels is None else labels[chosen]

    finished(decode(files[0])[None], wanted, str(folder))
    return Samples(
        description=f"{folder.name or folder}, {len(files):,} images, resized to {named_shape(size)}"
        + (f", {wanted.preprocess}" if wanted.preprocess else ""),
        count=len(files),
        labelled=labels is not None,
        open=batches,
    )


def look_at_folder(folder: Path, wanted: InputSpec | None, labels: str | None) -> None:
    """Raises as `open_folder`, without decoding: it looks at the beginnings of the first images.

    `wanted` None: whatever the model takes.
    """
    files = _files(folder)
    if wanted is not None:
        image_size(wanted, str(folder))
    _labels(folder, files, labels)
    for file in files[:_LOOKED_AT]:
        with file.open("rb") as stream:
            if not stream.read(8).startswith(_BEGINNINGS):
                raise ReadError(file, NO_IMAGE)


def _files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UsageError(f"{folder}: holds no images ({', '.join(SUFFIXES)})")
    for file in files:
        require_inside(file, folder)
    return files


def finished(images: NDArray[np.uint8], wanted: InputSpec, where: str) -> NDArray[Any]:
    """Decoded images (batch, height, width, channels) as the model wants them."""
    return preprocessed(
        laid_out(images, wanted),
        wanted.preprocess,
        wanted.dtype,
        where,
        channels_first=wanted.channels_first,
        channel_order=wanted.channel_order,
    )


def _ahead(
    decode: Callable[[Path], NDArray[np.uint8]], files: Sequence[Path], batches: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Batches of decoded images, the next one being decoded while the model runs."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: deque[tuple[NDArray[np.int64], list[Future[NDArray[np.uint8]]]]] = deque()
        try:
            for chosen in batches:
                waiting.append((chosen, [pool.submit(decode, files[n]) for n in chosen]))
                if len(waiting) == 2:
                    yield _gathered(*waiting.popleft())
            while waiting:
                yield _gathered(*waiting.popleft())
        finally:
            for _, futures in waiting:
                for future in futures:
                    future.cancel()


def _gathered(
    chosen: NDArray[np.int64], futures: list[Future[NDArray[np.uint8]]]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return chosen, np.stack([future.result() for future in futures])


def _labels(folder: Path, files: list[Path], labels: str | None) -> NDArray[Any] | None:
    if labels is None:
        return None
    if labels != FOLDERS:
        path = Path(labels)
        if not path.is_file():
            raise UsageError(f"--labels {labels}: neither a file of integers nor the word {FOLDERS}")
        return read_labels(path, len(files))
    parts = [path.relative_to(folder).parts for path in files]
    if any(len(p) < 2 for p in parts):
        raise UsageError(f"{folder}: --labels {FOLDERS} needs every image in a subfolder named after its class")
    classes = sorted({p[0] for p in parts})
    return np.array([classes.index(p[0]) for p in parts], np.int64)
