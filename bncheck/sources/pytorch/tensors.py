"""Views of storages -> raw tensors, of which no more is read than they span."""

from __future__ import annotations

import math
import zlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BadChecksum, Malformed, TooLarge
from bncheck.sources.elements import LAYOUTS, decoded
from bncheck.sources.files import RangedFile
from bncheck.sources.pytorch.values import Strided
from bncheck.sources.raw import RawTensor

_MAX_BYTES = 1 << 32
_EXPANDED = 1 << 20
"""Elements that an expanded tensor may have beyond those of its storage."""


class StoredBytes(NamedTuple):
    """Where a storage lies in the file."""

    file: RangedFile
    start: int
    """First byte."""
    size: int
    """Bytes."""
    crc32: int | None = None
    """Of all its bytes, where the format records one."""
    big_endian: bool = False


def raw_tensor(name: str, tensor: Strided, place: StoredBytes) -> RawTensor:
    """The tensor, once it is known to lie within its storage. Raises Malformed, TooLarge."""
    path, layout = place.file.path, LAYOUTS.get(tensor.dtype)
    if layout is None:
        why = f"is of the type {tensor.dtype}, which bncheck does not read"
        return RawTensor(
            name=name, dtype=tensor.dtype, shape=tensor.shape, read=partial(_refuse, path, name), unavailable=why
        )
    width, first = int(layout[1:]), tensor.storage.start + tensor.offset
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
    volume = math.prod(tensor.shape)
    if volume and (first + span) * width > place.size:
        reason = f"{name} needs {(first + span) * width:,} bytes of a storage of {place.size:,}"
        raise Malformed(path, reason, offset=place.start)
    if span * width > _MAX_BYTES or volume > span + _EXPANDED:
        raise TooLarge(path, f"{name} has {volume:,} elements over {span * width:,} bytes", offset=place.start)
    read = partial(_read, name, tensor, place, first * width, span if volume else 0)
    return RawTensor(name=name, dtype=tensor.dtype, shape=tensor.shape, read=read)


def read_all(place: StoredBytes, name: str) -> bytes:
    """All bytes of a storage, held against their checksum. Raises Truncated, BadChecksum."""
    data = place.file.read(place.start, place.size, what=name)
    if place.crc32 is not None and zlib.crc32(data) != place.crc32:
        reason = f"{name} does not match its CRC-32"
        raise BadChecksum(place.file.path, reason, offset=place.start, hint="copy the file again")
    return data


def _refuse(path: Path, name: str) -> NDArray[Any]:
    raise Malformed(path, f"{name} is of a type that bncheck does not read")


def _read(name: str, tensor: Strided, place: StoredBytes, at: int, span: int) -> NDArray[Any]:
    layout = LAYOUTS[tensor.dtype]
    width = int(layout[1:])
    size = span * width
    whole = at == 0 and size == place.size
    data = read_all(place, name) if whole else place.file.read(place.start + at, size, what=name)
    flat: NDArray[Any] = np.frombuffer(data, (">" if place.big_endian else "<") + layout)
    steps = tuple(stride * width for stride in tensor.strides)
    return decoded(np.lib.stride_tricks.as_strided(flat, tensor.shape, steps, writeable=False).copy(), tensor.dtype)
