"""One line of a checkpoint's index: BundleEntryProto, and the keys of a partitioned variable's slices."""

from __future__ import annotations

import math
import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

from bncheck.facts.errors import Malformed, ReadError
from bncheck.sources.bundle.crc32c import unmask
from bncheck.sources.graph.wire import FIXED32, LENGTH, VARINT, Field, fields, of_wire, signed

Extents: TypeAlias = tuple[tuple[int, int], ...]
"""(start, length) of a slice in every dimension; length -1: all of it."""

_MAX_RANK = 254
"""TensorShape's own limit."""
_MAX_ELEMENTS = 1 << 58
"""Of any array, counting empty dimensions as 1, so that numpy can form the shape."""


class BundleEntry(NamedTuple):
    """Where one tensor lies and what it is."""

    dtype: int
    """Number of the DataType."""
    shape: tuple[int, ...]
    elements: int
    shard: int
    offset: int
    size: int
    """Bytes in the shard."""
    crc32c: int
    """Unmasked."""
    slices: tuple[Extents, ...]
    """Of a partitioned variable, whose data stand under keys of their own; else empty."""
    at: int
    """Offset of the entry in the index."""


def split_checksum(value: bytes) -> tuple[bytes, bytes]:
    """A serialized entry without the checksum that ends it, and that field; the field is empty where none ends it."""
    return (value[:-5], value[-5:]) if value[-5:-4] == _CHECKSUM else (value, b"")


def decode_entry(path: Path, value: bytes, at: int, *, shards: int) -> BundleEntry:
    """A serialized BundleEntryProto that starts at byte `at` of the index. Raises Malformed, Truncated."""
    return _usual(value, at, shards) or _any(path, value, at, shards)


_CHECKSUM = b"\x35"
"""Tag of the field."""
CHECKSUM_BYTES = 4
_VARINT = rb"[\x80-\xff]{0,7}[\x00-\x7f]"
_USUAL = re.compile(
    rb"\x08([\x01-\x7f])\x12([\x00-\x7f])((?:\x12.\x08" + _VARINT + rb")*)"
    rb"(?:\x18(" + _VARINT + rb"))?(?:\x20(" + _VARINT + rb"))?(?:\x28(" + _VARINT + rb"))?(?:\x35(....))?",
    re.DOTALL,
)
"""Type, length of the shape, dimensions, shard, offset, size and checksum, as TensorFlow writes nearly all entries."""


def _usual(value: bytes, at: int, shards: int) -> BundleEntry | None:
    """An entry of the usual form, in a tenth of the time; None for any other, damaged ones among them."""
    match = _USUAL.fullmatch(value)
    if match is None:
        return None
    dtype, length, dimensions, shard, offset, size, checksum = match.groups(b"")
    found = _usual_shape(dimensions) if length[0] == len(dimensions) else None
    if found is None or _number(shard) >= shards:
        return None
    crc = unmask(int.from_bytes(checksum, "little"))
    return BundleEntry(dtype[0], *found, _number(shard), _number(offset), _number(size), crc, (), at)


def _number(varint: bytes) -> int:
    """0 for one that is not there."""
    found = 0
    for byte in varint[::-1]:
        found = found << 7 | byte & 127
    return found


@lru_cache(maxsize=4096)
def _usual_shape(content: bytes) -> tuple[tuple[int, ...], int] | None:
    """(shape, elements) of a serialized TensorShapeProto, of which a checkpoint has few; None where it is damaged."""
    try:
        shape = shape_of(Path(), Field(2, LENGTH, 0, content, 0))
    except ReadError:
        return None
    return (shape, math.prod(shape)) if possible(shape) else None


def _any(path: Path, value: bytes, at: int, shards: int) -> BundleEntry:
    """Any entry, field by field."""
    numbers = {1: 0, 3: 0, 4: 0, 5: 0}
    shape: tuple[int, ...] = ()
    stored = 0
    slices: list[Extents] = []
    for field in fields(value, path, at):
        if field.number in numbers:
            numbers[field.number] = signed(of_wire(field, VARINT, path, "a number of an entry").value)
        elif field.number == 2:
            shape = shape_of(path, of_wire(field, LENGTH, path, "a shape"))
        elif field.number == 6:
            stored = of_wire(field, FIXED32, path, "a checksum").value
        elif field.number == 7:
            slices.append(extents_of(path, of_wire(field, LENGTH, path, "a slice")))
    dtype, shard, offset, size = numbers.values()
    if not 0 <= shard < shards:
        raise Malformed(path, f"an entry lies in data file {shard} of {shards}", offset=at)
    if offset < 0 or size < 0:
        raise Malformed(path, f"an entry lies at byte {offset:,} and has {size:,} bytes", offset=at)
    if not possible(shape):
        raise Malformed(path, f"an entry has the impossible shape {list(shape)}", offset=at)
    for extents in slices:
        check_extents(path, shape, extents, at)
    return BundleEntry(dtype, shape, math.prod(shape), shard, offset, size, unmask(stored), tuple(slices), at)


def possible(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can exist, were there memory for it."""
    volume = 1
    for dimension in shape:
        volume *= max(dimension, 1)
        if dimension < 0 or volume > _MAX_ELEMENTS:
            return False
    return True


def shape_of(path: Path, field: Field) -> tuple[int, ...]:
    """A serialized TensorShapeProto of known rank. Raises Malformed, Truncated."""
    dimensions = []
    for part in fields(field.content, path, field.offset):
        if part.number == 3 and part.value:
            raise Malformed(path, "an entry has a shape of unknown rank", offset=part.offset)
        if part.number != 2:
            continue
        size = 0
        for number in fields(of_wire(part, LENGTH, path, "a dimension").content, path, part.offset):
            if number.number == 1:
                size = signed(of_wire(number, VARINT, path, "the size of a dimension").value)
        if size < 0:
            raise Malformed(path, f"an entry has a dimension of {size}", offset=part.offset)
        dimensions.append(size)
    if len(dimensions) > _MAX_RANK:
        raise Malformed(path, f"an entry has {len(dimensions)} dimensions", offset=field.offset)
    return tuple(dimensions)


def extents_of(path: Path, field: Field) -> Extents:
    """A serialized TensorSliceProto. Raises Malformed, Truncated."""
    extents = []
    for part in fields(field.content, path, field.offset):
        if part.number != 1:
            continue
        start, length = 0, -1
        for number in fields(of_wire(part, LENGTH, path, "an extent").content, path, part.offset):
            if number.number == 1:
                start = signed(of_wire(number, VARINT, path, "the start of a slice").value)
            elif number.number == 2:
                length = signed(of_wire(number, VARINT, path, "the length of a slice").value)
        extents.append((start, length))
    return tuple(extents)


def check_extents(path: Path, shape: tuple[int, ...], extents: Extents, at: int) -> None:
    """Raises Malformed unless a slice lies within the shape."""
    inside = len(extents) == len(shape) and all(
        (start == 0 if length == -1 else start >= 0 and 0 <= length <= size - start)
        for (start, length), size in zip(extents, shape, strict=True)
    )
    if not inside:
        raise Malformed(path, f"a slice {list(extents)} lies outside of the shape {list(shape)}", offset=at)


def window(extents: Extents, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of the whole tensor that a slice fills."""
    return tuple(
        slice(0, size) if length == -1 else slice(start, start + length)
        for (start, length), size in zip(extents, shape, strict=True)
    )


def slice_key(name: str, extents: Extents) -> bytes:
    """The key of one slice: OrderedCode of 0, name, rank, then start and length of each dimension.

    EncodeTensorNameSlice in tensorflow/core/util/saved_tensor_slice_util.cc.
    """
    rank = len(extents)
    code = b"\0" + _ordered_string(name.encode("utf-8", "surrogateescape"))
    code += bytes([1, rank]) if rank else b"\0"
    return code + b"".join(_ordered_signed(start) + _ordered_signed(length) for start, length in extents)


def _ordered_string(text: bytes) -> bytes:
    """OrderedCode::WriteString: 0 becomes 0 255, 255 becomes 255 0, and 0 1 ends it."""
    return b"".join({0: b"\0\xff", 255: b"\xff\0"}.get(byte, bytes([byte])) for byte in text) + b"\0\1"


def _ordered_signed(number: int) -> bytes:
    """OrderedCode::WriteSignedNumIncreasing: n bytes hold 7n - 1 bits after n ones (negative: zeros)."""
    magnitude = ~number if number < 0 else number
    length = magnitude.bit_length() // 7 + 1
    header = ((1 << length) - 1) << (8 * length - length)
    return ((number & ((1 << 8 * length) - 1)) ^ header).to_bytes(length, "big")
