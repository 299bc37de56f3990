"""Writes V2 checkpoints without TensorFlow, byte by byte after the format; shares no code with bncheck's reader.

Only for tests and fixtures: everything is held in memory, and faults can be asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

NUMBER = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "object": 7,
    "complex64": 8,
    "int64": 9,
    "bool": 10,
    "bfloat16": 14,
    "uint16": 17,
    "complex128": 18,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}
"""numpy's name of a dtype -> TensorFlow's number; object arrays hold bytes and become string tensors."""


@dataclass(frozen=True)
class BFloat16:
    """Marks an array of float32 that is stored as bfloat16 (its upper halves)."""

    values: np.ndarray[Any, Any]


@dataclass(frozen=True)
class Partitioned:
    """Marks an array that is stored in slices: `cuts` along `axis`, such as (3, 5) for [0:3], [3:5], [5:]."""

    values: np.ndarray[Any, Any]
    axis: int
    cuts: tuple[int, ...]


def write_bundle(
    prefix: Path | str,
    tensors: Mapping[str, Any],
    *,
    shards: int = 1,
    big_endian: bool = False,
    data: bool = True,
    version: int = 1,
    minimum_reader: int = 0,
    block_size: int = 4096,
    compression: int = 0,
    restart_interval: int = 16,
) -> Path:
    """A checkpoint of these tensors under `prefix` (or, where it ends in "/", of an empty basename); gives the index.

    Tensors are spread over the shards in turn. `data=False` leaves the data files out: index only.
    """
    order = ">" if big_endian else "<"
    files = [bytearray() for _ in range(shards)]
    entries: dict[bytes, bytes] = {b"": _header(shards, version, minimum_reader, big_endian=big_endian)}
    turn = 0
    for name, value in tensors.items():
        pieces = _pieces(name, value)
        if len(pieces) > 1 or pieces[0][2]:
            array = value.values
            entries[name.encode()] = entry(
                NUMBER[array.dtype.name], array.shape, slices=[extents for _, _, extents in pieces]
            )
        for key, piece, _ in pieces:
            shard = turn % shards
            turn += 1
            number, shape, stored, checksum = serialized(piece, order)
            entries[key] = entry(
                number, shape, shard=shard, offset=len(files[shard]), size=len(stored), checksum=checksum
            )
            files[shard] += stored
    base = str(prefix)
    Path(base + ".index").parent.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(files if data else ()):
        Path(f"{base}.data-{number:05d}-of-{shards:05d}").write_bytes(bytes(content))
    index = Path(base + ".index")
    index.write_bytes(
        table(
            sorted(entries.items()),
            block_size=block_size,
            restart_interval=restart_interval,
            compression=compression,
        )
    )
    return index


def serialized(value: Any, order: str = "<") -> tuple[int, tuple[int, ...], bytes, int]:
    """(DataType, shape, bytes, unmasked CRC-32C) of one tensor."""
    if isinstance(value, BFloat16):
        array = np.asarray(value.values, np.float32)
        stored = (array.view(np.uint32) >> 16).astype(order + "u2").tobytes()
        return NUMBER["bfloat16"], array.shape, stored, google_crc32c.value(stored)
    array = np.asarray(value, dtype=object if isinstance(value, bytes) else None)
    if array.dtype == object:
        return NUMBER["object"], array.shape, *_strings([bytes(text) for text in array.reshape(-1)], order)
    stored = array.astype(array.dtype.newbyteorder(order)).tobytes()
    return NUMBER[array.dtype.name], array.shape, stored, google_crc32c.value(stored)


def _strings(texts: Sequence[bytes], order: str) -> tuple[bytes, int]:
    checksum = google_crc32c.value(b"".join(struct.pack(order + "I", len(text)) for text in texts))
    of_lengths = struct.pack(order + "I", masked(checksum))
    rest = of_lengths + b"".join(texts)
    return b"".join(varint(len(text)) for text in texts) + rest, google_crc32c.extend(checksum, rest)


def _pieces(name: str, value: Any) -> list[tuple[bytes, Any, tuple[tuple[int, int | None], ...]]]:
    """(key, array, extents); extents empty for a whole tensor."""
    if not isinstance(value, Partitioned):
        return [(name.encode(), value, ())]
    ends = (0, *value.cuts, value.values.shape[value.axis])
    pieces = []
    for start, stop in pairwise(ends):
        extents = tuple((start, stop - start) if a == value.axis else (0, None) for a in range(value.values.ndim))
        window = tuple(slice(start, stop) if a == value.axis else slice(None) for a in range(value.values.ndim))
        pieces.append((slice_key(name, extents), value.values[window], extents))
    return pieces


def slice_key(name: str, extents: Sequence[tuple[int, int | None]]) -> bytes:
    """OrderedCode of (0, name, rank, start and length of every dimension), for starts and lengths below 2**20."""
    text = name.encode().replace(b"\xff", b"\xfe\xfe").replace(b"\0", b"\0\xff").replace(b"\xfe\xfe", b"\xff\0")
    key = b"\0" + text + b"\0\1" + (bytes([1, len(extents)]) if extents else b"\0")
    for start, length in extents:
        for number in (start, -1 if length is None else length):
            if number == -1:
                key += b"\x7f"
            elif number < 1 << 6:
                key += bytes([0x80 | number])
            elif number < 1 << 13:
                key += bytes([0xC0 | number >> 8, number & 255])
            else:
                key += bytes([0xE0 | number >> 16, number >> 8 & 255, number & 255])
    return key


def entry(
    dtype: int,
    shape: Iterable[int],
    *,
    shard: int = 0,
    offset: int = 0,
    size: int = 0,
    checksum: int | None = None,
    slices: Sequence[Sequence[tuple[int, int | None]]] = (),
) -> bytes:
    """A serialized BundleEntryProto."""
    dimensions = b"".join(chunk(2, number(1, size_of)) for size_of in shape)
    message = number(1, dtype) + chunk(2, dimensions) + number(3, shard) + number(4, offset) + number(5, size)
    if checksum is not None:
        message += varint(6 << 3 | 5) + struct.pack("<I", masked(checksum))
    for extents in slices:
        parts = b""
        for start, length in extents:
            parts += chunk(1, number(1, start) + (b"" if length is None else varint(2 << 3) + varint(length)))
        message += chunk(7, parts)
    return message


def _header(shards: int, version: int, minimum: int, *, big_endian: bool) -> bytes:
    return number(1, shards) + number(2, int(big_endian)) + chunk(3, number(1, version) + number(2, minimum))


def varint(value: int) -> bytes:
    """Base 128, lowest first; negative numbers as 64-bit two's complement."""
    value &= (1 << 64) - 1
    coded = bytearray()
    while value > 127:
        coded.append(value & 127 | 128)
        value >>= 7
    return bytes([*coded, value])


def number(field: int, value: int) -> bytes:
    """A varint field; zero is left out, as proto3 does."""
    return varint(field << 3) + varint(value) if value else b""


def chunk(field: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def masked(checksum: int) -> int:
    """A CRC-32C as files hold it."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def table(
    entries: Sequence[tuple[bytes, bytes]],
    *,
    block_size: int = 4096,
    restart_interval: int = 16,
    compression: int = 0,
) -> bytes:
    """A LevelDB table of sorted (key, value) pairs; 1 compresses data blocks with snappy."""
    content = bytearray()
    handles: list[tuple[bytes, bytes]] = []
    pending: list[tuple[bytes, bytes]] = []
    for place, (key, value) in enumerate(entries):
        pending.append((key, value))
        full = sum(len(k) + len(v) for k, v in pending) >= block_size
        if full or place == len(entries) - 1:
            body = block(pending, restart_interval)
            if compression == 1:
                import cramjam

                body = bytes(cramjam.snappy.compress_raw(body))
            handles.append((key, _append(content, body, compression)))
            pending = []
    metaindex = _append(content, block([], 1), 0)
    index = _append(content, block(handles, 1), 0)
    footer = (metaindex + index).ljust(40, b"\0")
    return bytes(content) + footer + bytes.fromhex("57fb808b247547db")


def block(entries: Sequence[tuple[bytes, bytes]], restart_interval: int) -> bytes:
    """Entries with shared prefixes, and the restart points after them."""
    content = bytearray()
    restarts = [0]
    last = b""
    for place, (key, value) in enumerate(entries):
        shared = 0
        if place % restart_interval:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif place:
            restarts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return bytes(content) + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts))


def _append(content: bytearray, body: bytes, compression: int) -> bytes:
    """Adds a block with its trailer; gives its handle."""
    handle = varint(len(content)) + varint(len(body))
    kind = bytes([compression])
    content += body + kind + struct.pack("<I", masked(google_crc32c.value(body + kind)))
    return handle
