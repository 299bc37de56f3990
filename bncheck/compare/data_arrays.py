"""`.npy` and `.npz`: images, and labels where there are any, mapped into memory where the file allows it."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.samples import (
    Batch,
    Samples,
    Wanted,
    checked_labels,
    fitted,
    index_batches,
    named_shape,
    read_labels,
)
from bncheck.errors import ReadError, UsageError

IMAGES, LABELS = "images", "labels"
_LOCAL_HEADER = struct.Struct("<26xHH")


def open_arrays(path: Path, wanted: Wanted) -> Samples:
    """Samples of a file of arrays. Raises ReadError for what is no such file, UsageError for arrays that do not fit."""
    images, labels = _read(path, wanted.labels)
    count = len(images)
    if labels is not None:
        labels = checked_labels(labels, count, str(path))
    elif wanted.labels is not None:
        labels = read_labels(_label_file(path, wanted.labels), count)
    fitted(images[:1], wanted, path)
    floating = "" if wanted.preprocess is None or images.dtype.kind != "f" else ", floating-point, left as they are"
    return Samples(
        description=f"{path.name}, {count:,} samples of {named_shape(images.shape[1:])}{floating}",
        count=count,
        labelled=labels is not None,
        open=lambda: _batches(path, images, labels, wanted),
    )


def array_shape(path: Path) -> tuple[int, ...]:
    """Shape of one sample of a file of arrays. Raises ReadError."""
    return _read(path, None)[0].shape[1:]


def _read(path: Path, named: str | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    labels: NDArray[Any] | None = None
    try:
        if path.suffix.lower() == ".npy":
            images = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            images, labels = _archive(path, named)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ReadError(path, f"cannot be read as arrays: {error}") from None
    if images.ndim < 1 or not _numeric(images):
        raise ReadError(path, f"holds an array of type {images.dtype} and shape {list(images.shape)}, no samples")
    return images, labels


def _batches(path: Path, images: NDArray[Any], labels: NDArray[Any] | None, wanted: Wanted) -> Iterator[Batch]:
    for indices in index_batches(len(images), wanted.batch_size):
        # in the file's order, which a disk can follow; the order within a batch does not matter
        chosen = np.sort(indices)
        yield fitted(np.asarray(images[chosen]), wanted, path), None if labels is None else labels[chosen]


def _archive(path: Path, labels: str | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    # opened here: where the archive is damaged, numpy leaves its own handle open
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as held:
        names = list(held.files)
        if IMAGES in names:
            chosen = IMAGES
        elif len(names) == 1:
            chosen = names[0]
        else:
            raise ReadError(path, f"holds no array {IMAGES!r} but {', '.join(names[:8]) or 'none'}")
        key = labels if labels in names else LABELS if labels is None and LABELS in names else None
        return _mapped(path, chosen) if _stored(path, chosen) else held[chosen], None if key is None else held[key]


def _stored(path: Path, name: str) -> bool:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"{name}.npy").compress_type == zipfile.ZIP_STORED


def _mapped(path: Path, name: str) -> NDArray[Any]:
    """An array that `np.savez` stored uncompressed, mapped where it lies."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as stream:
        start = archive.getinfo(f"{name}.npy").header_offset
        stream.seek(start)
        name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
        stream.seek(start + _LOCAL_HEADER.size + name_length + extra_length)
        shape, fortran, dtype = _header(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", stream.tell(), shape, order)  # type: ignore[call-overload,no-any-return]  # order is a literal


def _header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _numeric(array: NDArray[Any]) -> bool:
    return np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_


def _label_file(path: Path, labels: str) -> Path:
    file = Path(labels)
    if not file.is_file():
        raise UsageError(f"--labels {labels}: neither a file nor an array in {path.name}")
    return file
