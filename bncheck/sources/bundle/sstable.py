"""LevelDB's sorted table, in the dialect in which TensorFlow writes checkpoint indexes.

Layout (LevelDB doc/table_format.md; tensorflow/core/lib/io/table_format.txt): data blocks, a metaindex block, an index
block of (separator key, block handle), and 48 bytes of footer: two handles, padding, magic. A block is a run of entries
whose keys share prefixes, then the offsets of the restart points; five bytes follow it: compression, masked CRC-32C.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bncheck.facts.errors import BadChecksum, Malformed, TooLarge, Truncated, UnknownFormat, Unsupported
from bncheck.facts.record import Record
from bncheck.sources.bundle.crc32c import crc32c, unmask
from bncheck.sources.files import read_whole
from bncheck.sources.graph.wire import varint

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
FOOTER = 48
MAX_INDEX = 1 << 29
"""Bytes of index that are read at most: room for about five million tensors."""

_TRAILER = 5
_SNAPPY = 1
_OTHERS = {2: "zlib", 4: "zstd"}
MAX_BLOCK = 1 << 26
"""Bytes that a compressed block may hold: TensorFlow ends blocks at 256 KiB, or after the entry that reaches that."""


class KeyValue(NamedTuple):
    """One key with its value and the value's offset in the file."""

    key: bytes
    value: bytes
    offset: int


class SortedTable(Record, eq=False):
    """A table in memory, its footer and index block verified."""

    path: Path
    data: bytes
    blocks: tuple[tuple[int, int], ...]
    """(offset, size) of the data blocks, in the order of their keys."""


def open_table(path: Path, *, limit: int | None = None) -> SortedTable:
    """The table in this file of at most `limit` bytes, MAX_INDEX where none is given. Raises ReadError."""
    data = read_whole(path, limit=MAX_INDEX if limit is None else limit)
    if data[-8:] != MAGIC:
        raise UnknownFormat(path, "does not end as a checkpoint index does: another format, or cut short")
    if len(data) < FOOTER:
        raise Truncated(path, f"holds {len(data)} bytes, less than a table's footer", offset=0)
    body = len(data) - FOOTER
    handles = data[body : len(data) - 8]
    _, _, at = _handle(handles, 0, path, body)
    offset, size, _ = _handle(handles, at, path, body)
    blocks = []
    for entry in _entries(path, data, offset, size):
        start, length, end = _handle(entry.value, 0, path, entry.offset)
        if end != len(entry.value):
            raise Malformed(path, "a block handle has bytes left over", offset=entry.offset)
        blocks.append((start, length))
    return SortedTable(path=path, data=data, blocks=tuple(blocks))


def entries(table: SortedTable) -> Iterator[KeyValue]:
    """All entries, keys strictly ascending; a block is verified when the first of its entries is asked for."""
    last: bytes | None = None
    for offset, size in table.blocks:
        for entry in _entries(table.path, table.data, offset, size, after=last):
            yield entry
            last = entry.key


def check_blocks(table: SortedTable) -> None:
    """Raises ReadError unless all data blocks match their checksums."""
    for offset, size in table.blocks:
        _check_block(table.path, table.data, offset, size)


def block_checksums(table: SortedTable) -> list[int] | None:
    """Where the data blocks' checksums begin; None where one is compressed, so that its entries are not in the file."""
    if any(table.data[offset + size] for offset, size in table.blocks):
        return None
    return [offset + size + 1 for offset, size in table.blocks]


def _handle(data: bytes, at: int, path: Path, base: int) -> tuple[int, int, int]:
    """(offset, size, position after it) of a block handle."""
    offset, at = varint(data, at, len(data), path, base)
    size, at = varint(data, at, len(data), path, base)
    return offset, size, at


def _check_block(path: Path, data: bytes, offset: int, size: int) -> None:
    """Raises ReadError unless the block lies in the file and matches its checksum."""
    end = offset + size
    if end + _TRAILER > len(data) - FOOTER:
        raise Truncated(path, f"a block of {size:,} bytes at byte {offset:,} runs into the footer", offset=offset)
    if size < 4:
        raise Malformed(path, f"a block of {size} bytes has no room for its restart points", offset=offset)
    (stored,) = struct.unpack_from("<I", data, end + 1)
    if crc32c(data[offset : end + 1]) != unmask(stored):
        raise BadChecksum(path, f"the block from byte {offset:,} does not match its checksum", offset=end + 1)


def _plain(path: Path, data: bytes, offset: int, size: int) -> bytes | None:
    """What a compressed block holds; None where it is not compressed. Raises Unsupported, TooLarge, Malformed."""
    compression = data[offset + size]
    if not compression:
        return None
    if compression != _SNAPPY:
        name = _OTHERS.get(compression, f"type {compression}")
        hint = "save it again with TensorFlow, which does not compress"
        raise Unsupported(path, f"a block is compressed ({name})", offset=offset + size, hint=hint)
    length, _ = varint(data, offset, offset + size, path, bits=32)
    if length > MAX_BLOCK:
        raise TooLarge(path, f"a block declares {length:,} bytes in {size:,} compressed ones", offset=offset)
    from cramjam import DecompressionError, snappy  # noqa: PLC0415 - hardly any index is compressed

    try:
        plain = bytes(snappy.decompress_raw(data[offset : offset + size]))
    except DecompressionError:
        raise Malformed(path, f"the compressed block from byte {offset:,} is damaged", offset=offset) from None
    if len(plain) < 4:
        raise Malformed(path, f"a block of {len(plain)} bytes has no room for its restart points", offset=offset)
    return plain


def _restarts(path: Path, data: bytes, offset: int, size: int) -> tuple[int, ...]:
    """Absolute offsets of the restart points, strictly ascending, with the end of the entries as the last."""
    end = offset + size
    (count,) = struct.unpack_from("<I", data, end - 4)
    if not 0 < count <= (size - 4) // 4:
        raise Malformed(path, f"a block of {size:,} bytes declares {count:,} restart points", offset=end - 4)
    limit = end - 4 - 4 * count
    points = tuple(offset + point for point in struct.unpack_from(f"<{count}I", data, limit))
    if points[0] != offset or any(left >= right for left, right in pairwise(points)) or points[-1] > limit:
        raise Malformed(path, "restart points are out of order", offset=limit)
    return (*points, limit)


def _entries(path: Path, data: bytes, offset: int, size: int, after: bytes | None = None) -> Iterator[KeyValue]:
    """Entries of one block. `after` is the last key of the block before."""
    _check_block(path, data, offset, size)
    plain = _plain(path, data, offset, size)
    if plain is not None:
        # offsets, also those in errors, are then within the block
        data, offset, size = plain, 0, len(plain)
    points = _restarts(path, data, offset, size)
    limit = points[-1]
    key, started = after or b"", after is not None
    at = offset
    for restart, stop in pairwise(points):
        if at != restart:
            raise Malformed(path, "a restart point does not meet the start of an entry", offset=restart)
        while at < stop:
            start = at
            if at + 3 <= limit and (data[at] | data[at + 1] | data[at + 2]) < 128:
                # nearly all entries: three numbers of one byte each
                shared, unshared, length = data[at], data[at + 1], data[at + 2]
                at += 3
            else:
                shared, at = varint(data, at, limit, path, bits=32)
                unshared, at = varint(data, at, limit, path, bits=32)
                length, at = varint(data, at, limit, path, bits=32)
            if unshared + length > limit - at:
                raise Truncated(path, "an entry runs over its block", offset=start)
            if shared > len(key) or (shared and start == restart):
                raise Malformed(path, "a key shares more with the one before than that has", offset=start)
            following = key[:shared] + data[at : at + unshared]
            if started and following <= key:
                raise Malformed(path, "keys are not in ascending order", offset=start)
            key, started = following, True
            at += unshared
            yield KeyValue(key, data[at : at + length], at)
            at += length
