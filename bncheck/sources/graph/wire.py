"""A strict walk over the protobuf wire format, for the two tiny messages of which a checkpoint has one a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bncheck.facts.errors import Malformed, Truncated

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field: `value` is the number of a varint or fixed field, the bytes of a length-delimited one."""

    number: int
    wire: int
    value: int
    content: bytes
    offset: int
    """Of the value, in the file."""


def varint(data: bytes, at: int, end: int, path: Path, base: int = 0, *, bits: int = 64) -> tuple[int, int]:
    """(value, position after it) of a base-128 varint of at most `bits` bits. Raises Truncated, Malformed."""
    value = shift = 0
    start = at
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            if value >> bits:
                raise Malformed(path, f"a varint holds more than {bits} bits", offset=base + start)
            return value, at
        shift += 7
        if shift >= 70:
            raise Malformed(path, "a varint runs over 10 bytes", offset=base + start)
    raise Truncated(path, "a varint is cut short", offset=base + at)


def fields(data: bytes, path: Path, base: int) -> Iterator[Field]:
    """The fields of a message in the order of its bytes; `base` is its offset in the file.

    Raises Truncated, Malformed (groups and wire types 6 and 7 included).
    """
    at, end = 0, len(data)
    while at < end:
        start = at
        tag = data[at]
        at += 1
        if tag > 127:  # nearly all numbers are of one byte, which needs no call
            tag, at = varint(data, start, end, path, base, bits=32)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed(path, "a message field is numbered 0", offset=base + start)
        offset = base + at
        if wire == VARINT:
            value, at = varint(data, at, end, path, base)
            yield Field(number, wire, value, b"", offset)
            continue
        if wire == LENGTH:
            if at < end and data[at] < 128:
                width, at = data[at], at + 1
            else:
                width, at = varint(data, at, end, path, base)
            offset = base + at
        elif wire in _WIDTH:
            width = _WIDTH[wire]
        else:
            raise Malformed(path, f"a message field has wire type {wire}", offset=base + start)
        if width > end - at:
            raise Truncated(path, f"a message field of {width:,} bytes runs over its message", offset=offset)
        content = data[at : at + width]
        at += width
        yield Field(number, wire, int.from_bytes(content, "little") if wire != LENGTH else 0, content, offset)


def of_wire(field: Field, wire: int, path: Path, what: str) -> Field:
    """The field itself where its wire type is the expected one. Raises Malformed."""
    if field.wire != wire:
        raise Malformed(path, f"{what} is stored with wire type {field.wire}, not {wire}", offset=field.offset)
    return field


def signed(value: int) -> int:
    """A varint as int32 or int64: negative numbers come as 64-bit two's complement."""
    return value - (1 << 64) if value >> 63 else value
