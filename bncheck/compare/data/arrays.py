"""`.npy` and `.npz`: images, and labels where there are any, read row by row where the file allows it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.samples import (
    Batch,
    InputSpec,
    ModelInput,
    Samples,
    are_classes,
    checked_labels,
    fitted,
    index_batches,
    named_shape,
    read_labels,
)
from bncheck.facts.errors import ReadError, UsageError
from bncheck.facts.wording import many
from bncheck.sources.arrays import MEMBER, read_member
from bncheck.sources.npy import npy_values, read_npy_header
from bncheck.sources.zips import member_start, opened_zip

IMAGES, LABELS = "images", "labels"


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDisk:
    """An array that lies in a file as it is in memory, row after row.

    Read, not mapped: pages of a mapped file count as the process's own, and grow to the size of the file.
    """

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Axes, the samples' among them."""
        return len(self.shape)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        numbers = np.arange(len(self))[rows]
        found = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        if not found.size:
            return found
        content = found.reshape(-1).view(np.uint8).data
        stride = len(content) // len(numbers)
        with self.path.open("rb") as stream:
            # in the file's order, which a disk can follow
            for place in np.argsort(numbers, kind="stable"):
                stream.seek(self.offset + int(numbers[place]) * stride)
                if stream.readinto(content[place * stride : (place + 1) * stride]) != stride:
                    raise ReadError(self.path, "ends before its last sample", offset=stream.tell())
        return found


Rows: TypeAlias = "NDArray[Any] | OnDisk"
"""(samples, ...)."""


def open_arrays(path: Path, wanted: InputSpec) -> Samples:
    """Samples of a file of arrays. Raises ReadError for what is no such file, UsageError for arrays that do not fit."""
    images, labels = _read(path, wanted.labels)
    count = len(images)
    targets = ""
    if labels is not None and wanted.labels is None and not are_classes(labels):
        labels, targets = None, f", {LABELS!r} ignored: they are targets, not classes"
    if labels is not None:
        labels = checked_labels(labels, count, str(path))
    elif wanted.labels is not None:
        labels = read_labels(_label_file(path, wanted.labels), count)
    fitted(images[:1], wanted, path, [0])
    floating = "" if wanted.preprocess is None or images.dtype.kind != "f" else ", floating-point, used unchanged"
    return Samples(
        description=f"{path.name}, {many(count, 'sample')} of {named_shape(images.shape[1:])}{floating}{targets}",
        count=count,
        labelled=labels is not None,
        open=lambda first: _batches(path, images, labels, wanted, first),
    )


def look_at_arrays(path: Path, labels: str | None) -> None:
    """Raises as `open_arrays` for what is wrong whatever the model takes."""
    try:
        images, found = _read(path, labels)
    except _NoImages:
        return  # may be an array for each of several inputs
    if not len(images):
        raise UsageError(f"{path}: holds no samples")
    if found is not None and (labels is not None or are_classes(found)):
        checked_labels(found, len(images), str(path))
    elif labels is not None:
        read_labels(_label_file(path, labels), len(images))


def open_named_arrays(path: Path, wanted: InputSpec, inputs: Sequence[ModelInput]) -> Samples:
    """Samples of a `.npz` with an array for each of several inputs; a batch has a field for each, in their order."""
    try:
        with opened_zip(path) as archive:
            held = _names(archive)
            keys = [next((name for name in entry.names if name in held), "") for entry in inputs]
            if not all(keys):
                missing = ", ".join(entry.names[0] for entry, key in zip(inputs, keys, strict=True) if not key)
                found = ", ".join(held[:8]) or "none"
                raise ReadError(path, f"has no array for the input {missing}; it has {found}")
            arrays: list[Rows] = [_rows(path, archive, key) for key in keys]
            named = wanted.labels if wanted.labels in held else LABELS
            labels = _whole(path, archive, named) if named in held and named not in keys else None
    except (OSError, ValueError) as error:
        raise ReadError(path, f"cannot be read as arrays: {error}") from None
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise ReadError(
            path, f"holds arrays of {', '.join(map(str, sorted(counts)))} samples: their numbers must be equal"
        )
    if labels is not None and (wanted.labels is not None or are_classes(labels)):
        labels = checked_labels(labels, len(arrays[0]), str(path))
    elif wanted.labels is not None:
        labels = read_labels(_label_file(path, wanted.labels), len(arrays[0]))
    else:
        labels = None
    each = [
        replace(wanted, shape=None if entry.shape is None else entry.shape[1:], dtype=entry.dtype) for entry in inputs
    ]
    for array, how in zip(arrays, each, strict=True):
        fitted(array[:1], how, path, [0])

    def batches(first: int) -> Iterator[Batch]:
        for chosen in index_batches(len(arrays[0]), wanted.batch_size, first):
            parts = [fitted(array[chosen], how, path, chosen) for array, how in zip(arrays, each, strict=True)]
            fields = [(key, part.dtype, part.shape[1:]) for key, part in zip(keys, parts, strict=True)]
            together = np.empty(len(chosen), fields)
            for key, part in zip(keys, parts, strict=True):
                together[key] = part
            yield together, None if labels is None else labels[chosen]

    told = ", ".join(f"{key} {named_shape(array.shape[1:])}" for key, array in zip(keys, arrays, strict=True))
    return Samples(
        description=f"{path.name}, {many(len(arrays[0]), 'sample')} of {told}",
        count=len(arrays[0]),
        labelled=labels is not None,
        open=batches,
    )


def array_shape(path: Path) -> tuple[int, ...] | None:
    """Shape of one sample of a file of arrays; None where each is for an input of its own. Raises ReadError."""
    try:
        return _read(path, None)[0].shape[1:]
    except _NoImages:
        return None


class _NoImages(ReadError):
    """Several arrays, none of which is called as images are."""


def _read(path: Path, named: str | None) -> tuple[Rows, NDArray[Any] | None]:
    labels: NDArray[Any] | None = None
    images: Rows
    try:
        if path.suffix.lower() == ".npy":
            images = _on_disk(path, 0)
        else:
            images, labels = _archive(path, named)
    except (OSError, ValueError) as error:
        raise ReadError(path, f"cannot be read as arrays: {error}") from None
    if images.ndim < 1 or not _numeric(images):
        raise ReadError(path, f"holds an array of type {images.dtype} and shape {list(images.shape)}, not samples")
    return images, labels


def _batches(path: Path, images: Rows, labels: NDArray[Any] | None, wanted: InputSpec, first: int) -> Iterator[Batch]:
    for chosen in index_batches(len(images), wanted.batch_size, first):
        yield fitted(images[chosen], wanted, path, chosen), None if labels is None else labels[chosen]


def _archive(path: Path, labels: str | None) -> tuple[Rows, NDArray[Any] | None]:
    if not zipfile.is_zipfile(path):
        raise ValueError("not a zip archive, as an .npz is: it may be truncated")
    with opened_zip(path) as archive:
        names = _names(archive)
        key = labels if labels in names else LABELS if labels is None and LABELS in names else None
        others = [name for name in names if name != key]
        if IMAGES not in names and len(others) != 1:
            found = ", ".join(names[:8]) or "none"
            raise _NoImages(path, f"has no array {IMAGES!r}, only {found}", hint=f"save the samples as {IMAGES!r}")
        chosen = IMAGES if IMAGES in names else others[0]
        return _rows(path, archive, chosen), None if key is None else _whole(path, archive, key)


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(MEMBER) for name in archive.namelist() if name.endswith(MEMBER)]


def _whole(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    return read_member(path, archive, f"{name}{MEMBER}")


def _rows(path: Path, archive: zipfile.ZipFile, name: str) -> Rows:
    """An array where it lies, as `np.savez` stores it, or, packed, in memory."""
    info = archive.getinfo(f"{name}{MEMBER}")
    if info.compress_type != zipfile.ZIP_STORED:
        return _whole(path, archive, name)
    with path.open("rb") as stream:
        return _on_disk(path, member_start(stream, info))


def _on_disk(path: Path, start: int) -> Rows:
    """The `.npy` that begins at `start`. Raises ValueError where it is none, or cannot be read without pickle."""
    with path.open("rb") as stream:
        stream.seek(start)
        header = read_npy_header(stream)
        if header.offset + header.size > path.stat().st_size:
            raise ValueError("it ends before its last sample")
        if (header.fortran and len(header.shape) > 1) or not header.shape:
            return npy_values(header, stream.read(header.size))
    return OnDisk(path=path, offset=header.offset, shape=header.shape, dtype=header.dtype)


def _numeric(array: Rows) -> bool:
    return np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_


def _label_file(path: Path, labels: str) -> Path:
    file = Path(labels)
    if not file.is_file():
        raise UsageError(f"--labels {labels}: neither a file nor an array in {path.name}")
    return file
