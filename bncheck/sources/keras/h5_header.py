"""Texts in HDF5 attributes, read past the HDF5 library.

The library takes the 32-bit length of a text at its word, so that one flipped bit makes it clear gigabytes, and walks a
damaged global heap for ever. Both were met while fuzzing (HDF5 1.14.6). The layout is that of the HDF5 File Format
Specification 3.0, sections IV.A.1 (object headers), IV.A.2.m (attribute message) and III.E (global heap).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from bncheck.sources.content import Content

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10
_VARIABLE_LENGTH = 9
_MAX_CHUNKS = 10_000
_REFERENCE = struct.Struct("<IQI")
"""Length of the text, address of its heap, index in it."""
_HEAP_OBJECT = struct.Struct("<HHIQ")
"""Index, reference count, reserved, size; the data follow, padded to 8 bytes."""
_HEAP_HEADER = 16


Heaps = dict[int, dict[int, memoryview]]
"""Address -> objects by index, of the heaps read so far."""


def stored_texts(content: Content, address: int, name: str, heaps: Heaps) -> list[bytes] | None:
    """The variable-length texts of attribute `name` of the object whose header is at `address`.

    None where the header does not hold it: another type, or dense storage, which Keras never uses. Raises ValueError
    where the bytes contradict the format.
    """
    try:
        for message in _messages(content, address):
            references = _references(message, name.encode())
            if references is not None:
                return [_text(content, heaps, *reference) for reference in references]
    except (struct.error, IndexError) as error:
        raise ValueError(f"the header at byte {address:,} ends early") from error
    return None


def _messages(content: Content, address: int) -> Iterator[memoryview]:
    """Bodies of the attribute messages of a header, its continuations followed."""
    second = content[address : address + 4] == b"OHDR"
    ordered = 0
    if second:
        flags = content[address + 5 : address + 6][0]
        ordered = 2 if flags & 4 else 0
        start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(content[start : start + width], "little")
        chunks = [(start + width, size)]
    else:
        (size,) = struct.unpack("<I", content[address + 8 : address + 12])
        chunks = [(address + 16, size)]
    for position, (start, size) in enumerate(chunks):
        if position >= _MAX_CHUNKS:
            return
        offset, end = start, min(start + size, len(content))
        while offset + (4 if second else 8) <= end:
            if second:
                kind, length = struct.unpack("<BH", content[offset : offset + 3])
                offset += 4 + ordered
            else:
                kind, length = struct.unpack("<HH", content[offset : offset + 4])
                offset += 8
            body = memoryview(content[offset : offset + length])
            if kind == _ATTRIBUTE:
                yield body
            elif kind == _CONTINUATION:
                at, length_there = struct.unpack_from("<QQ", body)
                # a chunk of the second version has a signature before and a checksum behind its messages
                chunks.append((at + 4, length_there - 8) if second else (at, length_there))
            offset += length


def _references(message: memoryview, name: bytes) -> list[tuple[int, int, int]] | None:
    """(length, heap, index) of each text of an attribute message of this name; None for another name or type."""
    version = message[0]
    name_size, type_size, space_size = struct.unpack_from("<HHH", message, 2)
    offset = 9 if version == 3 else 8

    def padded(size: int) -> int:
        return (size + 7) // 8 * 8 if version == 1 else size

    if bytes(message[offset : offset + name_size]).rstrip(b"\0") != name:
        return None
    offset += padded(name_size)
    if message[offset] & 0x0F != _VARIABLE_LENGTH:
        return None
    data = message[offset + padded(type_size) + padded(space_size) :]
    ends = range(_REFERENCE.size, len(data) + 1, _REFERENCE.size)
    return [_REFERENCE.unpack_from(data, end - _REFERENCE.size) for end in ends]


def _text(content: Content, heaps: Heaps, length: int, address: int, index: int) -> bytes:
    if not length:
        return b""
    if address not in heaps:
        heaps[address] = _heap(content, address)
    found = heaps[address].get(index)
    if found is None or length > len(found):
        raise ValueError(f"the heap at byte {address:,} holds no text {index} of {length:,} bytes")
    return bytes(found[:length])


def _heap(content: Content, address: int) -> dict[int, memoryview]:
    """Objects of a global heap collection by their index."""
    if content[address : address + 4] != b"GCOL":
        raise ValueError(f"no heap at byte {address:,}")
    (size,) = struct.unpack("<Q", content[address + 8 : address + 16])
    end = address + size
    if end > len(content):
        raise ValueError(f"the heap at byte {address:,} passes the end of the file")
    found: dict[int, memoryview] = {}
    heap = memoryview(content[address:end])
    offset, end = _HEAP_HEADER, end - address
    while offset + _HEAP_OBJECT.size <= end:
        index, _, _, length = _HEAP_OBJECT.unpack_from(heap, offset)
        if not index:  # the free space
            break
        offset += _HEAP_OBJECT.size
        if offset + length > end:
            raise ValueError(f"text {index} passes the end of the heap at byte {address:,}")
        found[index] = heap[offset : offset + length]
        offset += (length + 7) // 8 * 8
    return found
