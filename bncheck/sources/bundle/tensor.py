"""The bytes of a checkpoint's data shards -> arrays, checked against size and checksum."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BadChecksum, Malformed
from bncheck.sources.bundle.crc32c import crc32c, unmask
from bncheck.sources.bundle.entry import BundleEntry, Extents, window
from bncheck.sources.elements import decoded
from bncheck.sources.files import RangedFile
from bncheck.sources.graph.wire import varint


class StoredType(NamedTuple):
    """A DataType: numpy's name or TensorFlow's, and the layout of one element, "" where it is no plain number."""

    name: str
    layout: str = ""


STRING = 7
TYPES = {
    1: StoredType("float32", "f4"),
    2: StoredType("float64", "f8"),
    3: StoredType("int32", "i4"),
    4: StoredType("uint8", "u1"),
    5: StoredType("int16", "i2"),
    6: StoredType("int8", "i1"),
    STRING: StoredType("string"),
    8: StoredType("complex64", "c8"),
    9: StoredType("int64", "i8"),
    10: StoredType("bool", "u1"),
    11: StoredType("qint8", "i1"),
    12: StoredType("quint8", "u1"),
    13: StoredType("qint32", "i4"),
    14: StoredType("bfloat16", "u2"),
    15: StoredType("qint16", "i2"),
    16: StoredType("quint16", "u2"),
    17: StoredType("uint16", "u2"),
    18: StoredType("complex128", "c16"),
    19: StoredType("float16", "f2"),
    20: StoredType("resource"),
    21: StoredType("variant"),
    22: StoredType("uint32", "u4"),
    23: StoredType("uint64", "u8"),
    24: StoredType("float8_e5m2"),
    25: StoredType("float8_e4m3fn"),
    26: StoredType("float8_e4m3fnuz"),
    27: StoredType("float8_e4m3b11fnuz"),
    28: StoredType("float8_e5m2fnuz"),
    29: StoredType("int4"),
    30: StoredType("uint4"),
    31: StoredType("int2"),
    32: StoredType("uint2"),
    33: StoredType("float4_e2m1fn"),
}
"""By the numbers of tensorflow/core/framework/types.proto."""


WIDTHS = {number: int(stored.layout[1:]) if stored.layout else None for number, stored in TYPES.items()}
"""Bytes of one element, None where it is no plain number."""


class Part(NamedTuple):
    """One stored piece: an entry, the shard that holds it, and, of a partitioned variable, the place it fills."""

    entry: BundleEntry
    shard: Path
    open: Callable[[], RangedFile]
    """Opens the shard, or gives it as it was opened before."""
    extents: Extents = ()


def read_numbers(part: Part, *, name: str, big_endian: bool) -> NDArray[Any]:
    """A tensor of plain numbers, read-only; bfloat16 widened to float32. Raises Truncated, BadChecksum."""
    entry = part.entry
    data = part.open().read(entry.offset, entry.size, what=name)
    if crc32c(data) != entry.crc32c:
        raise BadChecksum(part.shard, f"{name} does not match its checksum", offset=entry.offset, hint=_HINT)
    return plain_numbers(data, entry.dtype, big_endian=big_endian).reshape(entry.shape)


def plain_numbers(data: bytes, dtype: int, *, big_endian: bool) -> NDArray[Any]:
    """The numbers of this DataType that bytes hold, read-only; bfloat16 widened to float32."""
    stored = TYPES[dtype]
    return decoded(np.frombuffer(data, (">" if big_endian else "<") + stored.layout), stored.name)


_HINT = "the file is damaged: copy it again"


def read_strings(part: Part, *, name: str, big_endian: bool) -> NDArray[Any]:
    """A string tensor as an object array of bytes: lengths as varints, their checksum, then the bytes of all.

    The entry's checksum covers the lengths as 32-bit numbers (64-bit above 4 GiB), the length checksum as stored, and
    the bytes: BundleReader's ReadStringTensor. Raises Truncated, BadChecksum, Malformed.
    """
    entry, path, base = part.entry, part.shard, part.entry.offset
    data = part.open().read(base, entry.size, what=name)
    if entry.elements > len(data):
        reason = f"{name} has {entry.elements:,} strings in {len(data):,} bytes"
        raise Malformed(path, reason, offset=base)
    order = ">" if big_endian else "<"
    lengths, at = [], 0
    for _ in range(entry.elements):
        length, at = varint(data, at, len(data), path, base)
        lengths.append(length)
    if sum(lengths) != len(data) - at - 4:
        raise Malformed(path, f"the strings of {name} do not fill its {len(data):,} bytes", offset=base)
    sizes = b"".join(struct.pack(order + ("I" if n < 1 << 32 else "Q"), n) for n in lengths)
    (stored,) = struct.unpack_from(order + "I", data, at)
    if crc32c(sizes) != unmask(stored) or crc32c(sizes + data[at:]) != entry.crc32c:
        raise BadChecksum(path, f"{name} does not match its checksum", offset=base, hint=_HINT)
    at += 4
    values = np.empty(entry.elements, dtype=object)
    for number, length in enumerate(lengths):
        values[number] = data[at : at + length]
        at += length
    shaped: NDArray[Any] = values.reshape(entry.shape)
    shaped.setflags(write=False)
    return shaped


def read_parts(whole: BundleEntry, parts: Sequence[Part], *, name: str, index: Path, big_endian: bool) -> NDArray[Any]:
    """A partitioned variable put together from its slices, read-only. Raises Malformed where they leave a hole."""
    volume = sum(math.prod(part.entry.shape) for part in parts)
    if volume < whole.elements:
        # before memory is taken for the whole
        raise _hole(index, whole, name)
    arrays = [read_numbers(part, name=f"a slice of {name}", big_endian=big_endian) for part in parts]
    values = np.empty(whole.shape, arrays[0].dtype)
    filled = np.zeros(whole.shape, bool)
    for part, array in zip(parts, arrays, strict=True):
        here = window(part.extents, whole.shape)
        values[here] = array
        filled[here] = True
    if not filled.all():
        raise _hole(index, whole, name)
    values.setflags(write=False)
    return values


def _hole(index: Path, whole: BundleEntry, name: str) -> Malformed:
    return Malformed(index, f"the slices of {name} do not cover its shape {list(whole.shape)}", offset=whole.at)
