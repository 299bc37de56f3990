"""TFRecord files of tf.Example: encoded images or lists of numbers, read record by record, checksums checked."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.data.decode import Decoder
from bncheck.compare.data.folder import finished
from bncheck.compare.data.samples import SEED, Batch, InputSpec, Samples, fitted, image_size, named_shape
from bncheck.compare.twins.libraries import load_tensorflow
from bncheck.facts.errors import BadChecksum, Malformed, NotFound, ReadError, Truncated, UsageError
from bncheck.sources.bundle.crc32c import crc32c, unmask
from bncheck.sources.files import opened

IMAGE_KEYS = ("image/encoded", "image", "image_raw", "images", "image/image", "x", "features", "input")
LABEL_KEYS = ("image/class/label", "label", "labels", "y", "target")
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_LARGEST = 1 << 30
_HELD, _HELD_BYTES = 1024, 1 << 24
"""Records held to shuffle among: enough to mix a sorted file a little, little enough to hold."""


def is_records(path: Path) -> bool:
    """Whether a file begins as a TFRecord: a length with its own checksum."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER.size)
    except OSError:
        return False
    return len(head) == _HEADER.size and crc32c(head[:8]) == unmask(_HEADER.unpack(head)[1])


def first_record(paths: Sequence[Path], where: str) -> bytes:
    """The first of all. Raises NotFound where there are no files, UsageError where they hold none."""
    if not paths:
        raise NotFound(where, "no such files")
    first = next(records(paths[0]), None)
    if first is None:
        raise UsageError(f"{where}: holds no records")
    return first


def open_records(paths: Sequence[Path], where: str, wanted: InputSpec) -> Samples:
    """Samples of TFRecord files. Raises ReadError with the offset, UsageError for features that do not fit."""
    first = first_record(paths, where)
    example = load_tensorflow().train.Example
    features = _features(example, first, where)
    image = _key(features, IMAGE_KEYS, where)
    if wanted.labels is not None and wanted.labels not in features:
        raise UsageError(
            f"--labels {wanted.labels}: {where} has no such feature, only {', '.join(sorted(features)[:8])}"
        )
    label = wanted.labels or next((key for key in LABEL_KEYS if key in features), None)
    encoded = features[image].WhichOneof("kind") == "bytes_list"
    decoder = Decoder(*image_size(wanted, where)) if encoded else None

    def sample(record: bytes) -> tuple[NDArray[Any], int]:
        found = _features(example, record, where)
        for key in (image, *([label] if label else [])):
            if key not in found:
                raise ReadError(where, f"a record lacks the feature {key!r} that others have")
        values = _image(found[image], decoder, wanted, where)
        return values, _label(found[label], label, where) if label else 0

    def batches(first: int) -> Iterator[Batch]:
        held: list[tuple[NDArray[Any], int]] = []
        numbers: list[int] = []
        for number, record in islice(_mixed(paths), first * wanted.batch_size, None):
            held.append(sample(record))
            numbers.append(number)
            if len(held) == wanted.batch_size:
                yield ready(held, numbers)
                held, numbers = [], []
        if held:
            yield ready(held, numbers)

    def ready(held: Sequence[tuple[NDArray[Any], int]], numbers: Sequence[int]) -> Batch:
        images = np.stack([image for image, _ in held])
        made = finished(images, wanted, where) if encoded else fitted(images, wanted, where, numbers)
        return made, None if label is None else np.array([each for _, each in held], np.int64)

    ready([sample(first)], [0])
    names = paths[0].name if len(paths) == 1 else f"{len(paths)} files {Path(where).name}"
    return Samples(
        description=f"{names}, feature {image}"
        + (f", resized to {named_shape(image_size(wanted, where))}" if encoded else ""),
        count=None,
        labelled=label is not None,
        open=batches,
    )


def records(path: Path) -> Iterator[bytes]:
    """The records of one file: length, masked CRC-32C of the length, data, masked CRC-32C of the data.

    Raises Truncated, BadChecksum, Malformed.
    """
    with opened(path) as (stream, _):
        offset = 0
        while head := stream.read(_HEADER.size):
            if len(head) < _HEADER.size:
                raise Truncated(path, "ends within a record", offset=offset)
            length, checksum = _HEADER.unpack(head)
            if crc32c(head[:8]) != unmask(checksum):
                raise BadChecksum(path, "not a TFRecord, or damaged", offset=offset)
            if length > _LARGEST:
                raise Malformed(path, f"a record of {length:,} bytes", offset=offset)
            data, tail = stream.read(length), stream.read(_CRC.size)
            if len(data) < length or len(tail) < _CRC.size:
                raise Truncated(path, "ends within a record", offset=offset)
            if crc32c(data) != unmask(_CRC.unpack(tail)[0]):
                raise BadChecksum(path, "a record is damaged", offset=offset)
            yield data
            offset = stream.tell()


def _mixed(paths: Sequence[Path]) -> Iterator[tuple[int, bytes]]:
    """All records with their numbers, each taken at random from those of the next `_HELD` that fit in `_HELD_BYTES`."""
    random = np.random.default_rng(SEED)
    held: list[tuple[int, bytes]] = []
    room = _HELD_BYTES
    for number, record in enumerate(each for path in paths for each in records(path)):
        if len(held) < _HELD and room >= len(record):
            held.append((number, record))
            room -= len(record)
            continue
        place = int(random.integers(len(held) + 1))
        if place == len(held):
            yield number, record
        else:
            room += len(held[place][1]) - len(record)
            yield held[place]
            held[place] = number, record
    yield from (held[place] for place in random.permutation(len(held)))


def _features(example: Any, record: bytes, where: str) -> Mapping[str, Any]:
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - comes with TensorFlow

    try:
        features: Mapping[str, Any] = example.FromString(record).features.feature
    except DecodeError:
        raise ReadError(where, "its records are not tf.Example") from None
    return features


def _key(features: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    for name in names:
        if name in features:
            return name
    raise UsageError(
        f"{where}: none of its features ({', '.join(sorted(features)[:8]) or 'none'}) is an image: "
        f"bncheck looks for {', '.join(names[:4])}"
    )


def _image(feature: Any, decoder: Decoder | None, wanted: InputSpec, where: str) -> NDArray[Any]:
    kind = feature.WhichOneof("kind")
    if decoder is not None and kind == "bytes_list" and feature.bytes_list.value:
        return decoder.decode(feature.bytes_list.value[0], where)
    if decoder is not None or kind is None:
        raise ReadError(where, "a record lacks the image that others have")
    values = np.array(getattr(feature, kind).value, np.float32 if kind == "float_list" else np.int64)
    shape = wanted.shape
    if shape is None or None in shape:
        raise UsageError(f"{where}: holds lists of numbers, but the model does not tell their shape")
    if values.size != np.prod([s or 0 for s in shape]):
        raise UsageError(f"{where}: a record holds {values.size:,} numbers, the model takes {named_shape(shape)}")
    return values.reshape([s or 0 for s in shape])


def _label(feature: Any, key: str, where: str) -> int:
    values = feature.int64_list.value
    if len(values) != 1:
        raise ReadError(where, f"feature {key!r} is not one integer a record")
    return int(values[0])
