"""A checkpoint's `.index` as it was read: header, undecoded entries, data shards. Again for the next one of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BadChecksum, Malformed, Unsupported
from bncheck.facts.record import Record, replace
from bncheck.sources.bundle.crc32c import unmask, unmask_all
from bncheck.sources.bundle.entry import CHECKSUM_BYTES, BundleEntry, decode_entry, split_checksum
from bncheck.sources.bundle.locate import Place
from bncheck.sources.bundle.sstable import MAX_INDEX, SortedTable, block_checksums, check_blocks, entries, open_table
from bncheck.sources.files import RangedFile, is_file, names, read_whole
from bncheck.sources.graph.wire import LENGTH, VARINT, fields, of_wire, signed
from bncheck.sources.raw import RawTensor

_MAX_SHARDS = 1 << 20
_SUPPORTED_VERSION = 1
_V1_HEADER = 1
"""Field number of SavedTensorSlices.meta, a message; in a V2 header the same number is the count of shards."""


class Placed(NamedTuple):
    """An entry and its key."""

    key: str
    entry: BundleEntry


class Index(Record, eq=False):
    """The header and the undecoded entries of one bundle."""

    place: Place
    table: SortedTable
    shards: int
    big_endian: bool
    entries: Mapping[str, tuple[bytes, int]]
    """Key -> (serialized BundleEntryProto, its offset in the index)."""
    slices: Mapping[bytes, tuple[bytes, int]]
    """The same for the slices of partitioned variables, under their encoded keys."""
    decoded: dict[str, BundleEntry] = field(default_factory=dict)
    """Entries that were asked for: shared by indexes that differ in checksums alone, and so right but for these."""
    tensors: dict[str, RawTensor] = field(default_factory=dict)
    """The same, with what their types and shapes make of them."""
    kinds: dict[tuple[int, tuple[int, ...], int], RawTensor] = field(default_factory=dict)
    """(type, shape, shard) -> one such tensor, of which others differ in what is theirs alone."""
    stretches: dict[tuple[str, ...], list[list[Placed]]] = field(default_factory=dict)
    """Keys that are read together -> those that lie side by side; shared likewise."""
    masked: dict[tuple[str, ...], NDArray[np.intp] | None] = field(default_factory=dict)
    """The same -> bytes of the index that are their checksums, (keys, 4); None where these are not all in it."""

    def entry(self, key: str) -> BundleEntry:
        """One entry, as it is here or in an index of the same layout, whose checksum then differs.

        Raises Malformed, Truncated, and KeyError where there is none.
        """
        if key not in self.decoded:
            value, at = self.entries[key]
            self.decoded[key] = decode_entry(self.path, value, at, shards=self.shards)
        return self.decoded[key]

    def checksum(self, key: str) -> int:
        """CRC-32C of an entry that was asked for before."""
        _, stored = split_checksum(self.entries[key][0])
        return unmask(int.from_bytes(stored[1:], "little")) if stored else self.decoded[key].crc32c

    def checksums(self, keys: Sequence[str]) -> list[int]:
        """CRC-32C of entries that were asked for before."""
        asked = tuple(keys)
        if asked not in self.masked:
            self.masked[asked] = self._masked(asked)
        places = self.masked[asked]
        if places is None:
            return [self.checksum(key) for key in keys]
        return unmask_all(np.frombuffer(self.table.data, np.uint8)[places].tobytes())

    def _masked(self, keys: Sequence[str]) -> NDArray[np.intp] | None:
        data, ends = self.table.data, []
        for value, at in map(self.entries.__getitem__, keys):
            if not split_checksum(value)[1] or data[at : at + len(value)] != value:
                return None  # of an entry without one, or in a compressed block
            ends.append(at + len(value))
        return np.array(ends, np.intp).reshape(-1, 1) + np.arange(-CHECKSUM_BYTES, 0)

    def again(self, place: Place) -> Index | None:
        """The index of another checkpoint, where it differs from this one in checksums alone; else None.

        All bytes are compared, and the blocks' own checksums verified. Raises ReadError where it cannot be read.
        """
        data = read_whole(place.index, limit=MAX_INDEX)
        mine = self.table.data
        if self._checksums is None or len(data) != len(mine):
            return None
        other = np.frombuffer(data, np.uint8) != np.frombuffer(mine, np.uint8)
        if (other & ~self._checksums).any():
            return None
        table = replace(self.table, path=place.index, data=data)
        try:
            check_blocks(table)
        except BadChecksum:  # which a reader that starts at the beginning tells best
            return None
        found = replace(self, place=place, table=table, entries=_EntryValues(data, self._places))
        return found if found.present == self.present else replace(found, tensors={}, kinds={})

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        return {key: (at, len(value)) for key, (value, at) in self.entries.items()}

    @cached_property
    def _checksums(self) -> NDArray[np.bool_] | None:
        """Which bytes of the index belong to checksums; None where blocks are compressed."""
        blocks = block_checksums(self.table)
        if blocks is None or self.slices:
            return None
        found = np.zeros(len(self.table.data), bool)
        ends = [at + len(value) for value, at in self.entries.values() if split_checksum(value)[1]]
        for start in (*blocks, *(end - CHECKSUM_BYTES for end in ends)):
            found[start : start + CHECKSUM_BYTES] = True
        return found

    @cached_property
    def path(self) -> Path:
        """The `.index` file."""
        return self.place.index

    def shard(self, number: int) -> Path:
        """One data file; each path is made once, for making it costs as much as decoding an entry."""
        if number not in self._shards:
            self._shards[number] = self.place.shard(number, self.shards)
        return self._shards[number]

    @cached_property
    def _shards(self) -> dict[int, Path]:
        return {}

    def opened(self, number: int) -> RangedFile:
        """One data file; only the last stays open, as a checkpoint may have more than a process may open at once."""
        if number not in self._opened:
            self._opened.clear()
            self._opened[number] = RangedFile(self.shard(number))
        return self._opened[number]

    @cached_property
    def _opened(self) -> dict[int, RangedFile]:
        return {}

    @cached_property
    def present(self) -> frozenset[int]:
        """Numbers of the data shards that are there, as far as any tensor needs them."""
        suffix = f"-of-{self.shards:05d}"
        start = f"{self.place.stem}.data-"
        found = set()
        for name in names(self.place.directory, start):
            number = name[len(start) : -len(suffix)]
            if name.endswith(suffix) and number.isdecimal():
                found.add(int(number))
        return frozenset(n for n in found if n < self.shards and is_file(self.place.shard(n, self.shards)))


class IndexMemory:
    """The last index of another layout than the one before it: a run's checkpoints mostly differ in checksums alone."""

    def __init__(self) -> None:
        self._known: Index | None = None

    def read(self, place: Place) -> Index:
        """The index of a checkpoint. Raises ReadError."""
        found = None if self._known is None else self._known.again(place)
        if found is None:
            found = self._known = read_index(place)
        return found


class _EntryValues(Mapping[str, tuple[bytes, int]]):
    """Key -> (value, its offset in the index), each cut out when it is asked for."""

    def __init__(self, data: bytes, places: Mapping[str, tuple[int, int]]) -> None:
        self._data, self.places = data, places

    def __getitem__(self, key: str) -> tuple[bytes, int]:
        start, size = self.places[key]
        return self._data[start : start + size], start

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def read_index(place: Place) -> Index:
    """Reads and verifies an index. Raises ReadError."""
    table = open_table(place.index)
    listed = entries(table)
    header = next(listed, None)
    if header is None or header.key:
        raise Malformed(place.index, "the table has no bundle header under the empty key", offset=0)
    shards, big_endian = header_of(place.index, header.value, header.offset)
    tensors: dict[str, tuple[bytes, int]] = {}
    slices: dict[bytes, tuple[bytes, int]] = {}
    for key, value, offset in listed:
        if key[0]:
            tensors[key.decode("utf-8", "surrogateescape")] = (value, offset)
        else:
            slices[key] = (value, offset)
    return Index(place=place, table=table, shards=shards, big_endian=big_endian, entries=tensors, slices=slices)


def header_of(path: Path, value: bytes, base: int) -> tuple[int, bool]:
    """(number of shards, big-endian) of a BundleHeaderProto."""
    shards = endianness = minimum = 0
    for found in fields(value, path, base):
        if found.number == _V1_HEADER and found.wire == LENGTH:
            raise Malformed(path, "holds the header of a V1 checkpoint, which has no index", offset=base)
        if found.number == 1:
            shards = of_wire(found, VARINT, path, "the number of shards").value
        elif found.number == 2:
            endianness = of_wire(found, VARINT, path, "the byte order").value
        elif found.number == 3:
            version = of_wire(found, LENGTH, path, "the version")
            for part in fields(version.content, path, version.offset):
                if part.number == 2:
                    minimum = signed(of_wire(part, VARINT, path, "the lowest version of a reader").value)
    if not 0 < shards <= _MAX_SHARDS:
        raise Malformed(path, f"declares {signed(shards):,} data shards", offset=base)
    if endianness not in (0, 1):
        raise Malformed(path, f"declares byte order {endianness}", offset=base)
    if minimum > _SUPPORTED_VERSION:
        raise Unsupported(path, f"asks for a reader of bundle version {minimum}; bncheck reads version 1", offset=base)
    return shards, bool(endianness)
