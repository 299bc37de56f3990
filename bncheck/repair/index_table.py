"""Writes the sorted table in which TensorFlow keeps a checkpoint's index: what `sources/sstable.py` reads.

Layout (LevelDB doc/table_format.md): data blocks, an empty metaindex block, an index block, 48 bytes of footer. Blocks
are uncompressed, as TensorFlow writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from bncheck.sources.bundle.crc32c import crc32c, mask
from bncheck.sources.bundle.sstable import FOOTER, MAGIC
from bncheck.sources.graph.wire import FIXED32, LENGTH, VARINT, fields

BLOCK_SIZE = 262_144
"""Bytes after which a block ends: TensorFlow's own (table_options.h)."""
RESTART_INTERVAL = 16
_UNCOMPRESSED = b"\0"
_CHECKSUM = 6
"""Field number in BundleEntryProto."""


def write_table(stream: BinaryIO, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """Writes (key, value) pairs, whose keys must ascend strictly."""
    handles: list[tuple[bytes, bytes]] = []
    pending: list[tuple[bytes, bytes]] = []
    size = at = 0
    for key, value in entries:
        pending.append((key, value))
        size += len(key) + len(value)
        if size >= BLOCK_SIZE:
            handle, at = _write_block(stream, at, pending, RESTART_INTERVAL)
            # a block is found by any key from its last on, below the next block's first
            handles.append((key, handle))
            pending, size = [], 0
    if pending:
        handle, at = _write_block(stream, at, pending, RESTART_INTERVAL)
        handles.append((pending[-1][0], handle))
    metaindex, at = _write_block(stream, at, [], RESTART_INTERVAL)
    index, at = _write_block(stream, at, handles, 1)
    stream.write((metaindex + index).ljust(FOOTER - len(MAGIC), b"\0") + MAGIC)


def _write_block(
    stream: BinaryIO, at: int, entries: Sequence[tuple[bytes, bytes]], restart_interval: int
) -> tuple[bytes, int]:
    """(the block's handle, position after it)."""
    body = _block(entries, restart_interval) + _UNCOMPRESSED
    stream.write(body + struct.pack("<I", mask(crc32c(body))))
    return varint(at) + varint(len(body) - 1), at + len(body) + 4


def _block(entries: Sequence[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    """Entries, each sharing the start of its key with the one before, then the offsets where none is shared."""
    content = bytearray()
    restarts = [0]
    last = b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % restart_interval:
            shared = _shared(last, key)
        elif place:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(content) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def _shared(one: bytes, other: bytes) -> int:
    length = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        length += 1
    return length


def varint(value: int) -> bytes:
    """A non-negative number in base 128, lowest digits first."""
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def with_checksum(entry: bytes, checksum: int, path: Path) -> bytes:
    """A serialized BundleEntryProto with another CRC-32C (unmasked); every other field keeps its bytes and place."""
    stored = struct.pack("<I", mask(checksum))
    message, found = b"", False
    for field in fields(entry, path, 0):
        found = found or field.number == _CHECKSUM
        message += varint(field.number << 3 | field.wire)
        if field.number == _CHECKSUM:
            message += stored
        elif field.wire == VARINT:
            message += varint(field.value)
        elif field.wire == LENGTH:
            message += varint(len(field.content)) + field.content
        else:
            message += field.content
    return message if found else message + varint(_CHECKSUM << 3 | FIXED32) + stored


def new_entry(dtype: int, shape: Sequence[int], *, shard: int, offset: int, size: int, checksum: int) -> bytes:
    """A serialized BundleEntryProto; numbers of 0 are left out, as proto3 does."""
    dimensions = b"".join(_chunk(2, _number(1, dimension)) for dimension in shape)
    message = _number(1, dtype) + _chunk(2, dimensions) + _number(3, shard) + _number(4, offset) + _number(5, size)
    return message + varint(_CHECKSUM << 3 | FIXED32) + struct.pack("<I", mask(checksum))


def _number(field: int, value: int) -> bytes:
    return varint(field << 3 | VARINT) + varint(value) if value else b""


def _chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | LENGTH) + varint(len(content)) + content
