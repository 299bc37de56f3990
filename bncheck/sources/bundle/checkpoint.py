"""V2 checkpoints ("tensor bundles"): an `.index` table of entries and data shards of raw, checksummed tensors.

Format: tensorflow/core/util/tensor_bundle/tensor_bundle.{h,cc} and core/protobuf/tensor_bundle.proto. Only the index is
read to begin with; a tensor's bytes are read, and verified, when it is asked for. V1: see `saved_slices`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, NotFound, ReadError, UnknownFormat, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.record import Record
from bncheck.sources.bundle.entry import BundleEntry, Extents, decode_entry, slice_key, split_checksum, window
from bncheck.sources.bundle.locate import Place, find
from bncheck.sources.bundle.sstable import MAGIC, entries, open_table
from bncheck.sources.bundle.tensor import STRING, TYPES, Part, read_numbers, read_parts, read_strings
from bncheck.sources.files import RangedFile, is_file, names, read_tail
from bncheck.sources.graph.wire import LENGTH, VARINT, fields, of_wire, signed
from bncheck.sources.raw import RawModel, RawTensor

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_DATA = re.compile(r".*\.data-\d{5}-of-\d{5}", re.DOTALL)
_MAX_SHARDS = 1 << 20
_SUPPORTED_VERSION = 1
_MAX_RANK = 32
"""numpy's, before its version 2."""
_V1_HEADER = 1
"""Field number of SavedTensorSlices.meta, a message; in a V2 header the same number is the count of shards."""


def matches(path: Path, head: bytes) -> bool:  # noqa: ARG001 - every source is asked with the same two arguments
    """Whether a file is the index of a checkpoint, by its last bytes, or, by its name alone, a data shard of one."""
    return _DATA.fullmatch(path.name) is not None or read_tail(path, len(MAGIC)) == MAGIC


def read_checkpoint(path: Path) -> RawModel:
    """The checkpoint that a prefix, one of its files or a directory names; the index is read, no tensor.

    Raises ReadError: NotFound, Unreadable, NoModel (empty directory), Unsupported, UnknownFormat, Truncated,
    BadChecksum, Malformed.
    """
    place = find(path)
    if place is None:
        raise _no_part(path)
    if place.slices:
        return _read_v1(place)
    tensors = Tensors(_read_index(place))
    graph = object_graph(place.prefix, tensors)
    return RawModel(
        path=place.prefix,
        format=Format(FileKind.TF2_CHECKPOINT if OBJECT_GRAPH in tensors else FileKind.TF1_CHECKPOINT),
        tensors=tensors,
        object_graph=graph,
        notes=place.notes + tensors.notes,
    )


def _read_v1(place: Place) -> RawModel:
    from bncheck.sources.bundle.saved_slices import read_slices  # noqa: PLC0415 - few checkpoints are that old

    tensors = read_slices(place.slices)
    notes = (*place.notes, "a V1 checkpoint: it has no index, and was read as a whole")
    return RawModel(path=place.prefix, format=Format(FileKind.TF1_CHECKPOINT), tensors=tensors, notes=notes)


def object_graph(path: Path, tensors: Mapping[str, RawTensor]) -> Any | None:
    """The TrackableObjectGraph among the tensors; None where there is none or its shard is absent.

    Raises Malformed, with the `path` of the checkpoint.
    """
    tensor = tensors.get(OBJECT_GRAPH)
    if tensor is None or tensor.unavailable is not None:
        return None
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - protobuf costs 20 ms, TF1 needs none of it

    from bncheck.sources.graph.protos import TrackableObjectGraph  # noqa: PLC0415 - as above

    content = tensor.read()
    if tensor.dtype != "string" or content.size != 1:
        reason = f"{tensor.name} holds {content.size} values of {tensor.dtype}, not one serialized object graph"
        raise Malformed(path, reason)
    try:
        return TrackableObjectGraph.FromString(content.reshape(-1)[0])
    except DecodeError:
        raise Malformed(path, f"{tensor.name} holds no serialized TrackableObjectGraph") from None


class _Index(Record, eq=False):
    """The header and the undecoded entries of one bundle."""

    place: Place
    shards: int
    big_endian: bool
    entries: Mapping[str, tuple[bytes, int]]
    """Key -> (serialized BundleEntryProto, its offset in the index)."""
    slices: Mapping[bytes, tuple[bytes, int]]
    """The same for the slices of partitioned variables, under their encoded keys."""

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
        for name in names(self.place.directory):
            number = name[len(start) : -len(suffix)]
            if name.startswith(start) and name.endswith(suffix) and number.isdecimal():
                found.add(int(number))
        return frozenset(n for n in found if n < self.shards and is_file(self.place.shard(n, self.shards)))


class Tensors(Mapping[str, RawTensor]):
    """Key -> tensor. An entry is decoded each time it is looked up: of 100,000 keys a check needs a few hundred."""

    def __init__(self, index: _Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.entries)

    def __contains__(self, key: object) -> bool:
        return key in self._index.entries

    def __getitem__(self, key: str) -> RawTensor:
        return _tensor(self._index, key)

    def changed_since(self, other: Tensors) -> frozenset[str] | None:
        """Keys whose checksum differs from that in another checkpoint, as the two indexes tell it.

        None where the two differ in more: other keys, types, shapes or places, data files that are absent.
        """
        mine, theirs = self._index, other._index
        if mine.entries.keys() != theirs.entries.keys() or mine.slices or theirs.slices:
            return None
        if (mine.shards, mine.big_endian, mine.present) != (theirs.shards, theirs.big_endian, theirs.present):
            return None
        changed = []
        for key, (value, _) in mine.entries.items():
            before = theirs.entries[key][0]
            if value != before:
                if split_checksum(value)[0] != split_checksum(before)[0]:
                    return None
                changed.append(key)
        return frozenset(changed)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which data shards are absent."""
        index = self._index
        absent = index.shards - len(index.present)
        if not absent or not index.entries:
            return ()
        if absent == index.shards:
            files = "the data file is" if absent == 1 else f"all {absent} data files are"
            return (f"{files} absent: only the index was read",)
        first = index.place.shard(next(n for n in range(index.shards) if n not in index.present), index.shards)
        return (f"{absent} of {index.shards} data files absent, {first.name} the first",)


def _read_index(place: Place) -> _Index:
    listed = entries(open_table(place.index))
    header = next(listed, None)
    if header is None or header.key:
        raise Malformed(place.index, "the table has no bundle header under the empty key", offset=0)
    shards, big_endian = _header(place.index, header.value, header.offset)
    tensors: dict[str, tuple[bytes, int]] = {}
    slices: dict[bytes, tuple[bytes, int]] = {}
    for key, value, offset in listed:
        if key[0]:
            tensors[key.decode("utf-8", "surrogateescape")] = (value, offset)
        else:
            slices[key] = (value, offset)
    return _Index(place=place, shards=shards, big_endian=big_endian, entries=tensors, slices=slices)


def _header(path: Path, value: bytes, base: int) -> tuple[int, bool]:
    """(number of shards, big-endian) of a BundleHeaderProto."""
    shards = endianness = minimum = 0
    for field in fields(value, path, base):
        if field.number == _V1_HEADER and field.wire == LENGTH:
            raise Malformed(path, "holds the header of a V1 checkpoint, which has no index", offset=base)
        if field.number == 1:
            shards = of_wire(field, VARINT, path, "the number of shards").value
        elif field.number == 2:
            endianness = of_wire(field, VARINT, path, "the byte order").value
        elif field.number == 3:
            version = of_wire(field, LENGTH, path, "the version")
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


def _tensor(index: _Index, key: str) -> RawTensor:
    value, at = index.entries[key]
    path = index.path
    entry = decode_entry(path, value, at, shards=index.shards)
    stored = TYPES.get(entry.dtype)
    if stored is None:
        raise Malformed(path, f"{key} has the unknown data type {entry.dtype}", offset=at)
    parts = _parts(index, key, entry) if entry.slices else (_part(index, key, entry),)
    read = partial(_read, index, key, entry, parts)
    if len(entry.shape) > _MAX_RANK:
        unavailable: str | None = f"bncheck does not read tensors of {len(entry.shape)} dimensions"
    elif stored.layout or entry.dtype == STRING:
        absent = next((part.shard.name for part in parts if part.entry.shard not in index.present), None)
        unavailable = f"its data file {absent} is absent" if absent else None
    else:
        unavailable = f"bncheck does not read tensors of type {stored.name}"
    plain = stored.layout and not entry.slices and not index.big_endian
    return RawTensor(
        name=key,
        dtype=stored.name,
        shape=entry.shape,
        read=read,
        crc32c=entry.crc32c if plain else None,
        unavailable=unavailable,
    )


def _part(index: _Index, key: str, entry: BundleEntry, extents: Extents = ()) -> Part:
    """An entry with its shard, once its size is that of its type and shape."""
    width = TYPES[entry.dtype].width if TYPES[entry.dtype].layout else None
    if width is not None and entry.size != entry.elements * width:
        reason = f"{key} has {entry.size:,} bytes; {list(entry.shape)} of {TYPES[entry.dtype].name} has not"
        raise Malformed(index.path, reason, offset=entry.at)
    return Part(entry, index.shard(entry.shard), partial(index.opened, entry.shard), extents)


def _parts(index: _Index, key: str, whole: BundleEntry) -> tuple[Part, ...]:
    """The slices of a partitioned variable. Raises Malformed where one is not in the index or not as declared."""
    path = index.place.index
    parts = []
    for extents in whole.slices:
        found = index.slices.get(slice_key(key, extents))
        if found is None:
            raise Malformed(path, f"a slice of {key} is not in the index", offset=whole.at)
        entry = decode_entry(path, *found, shards=index.shards)
        shape = tuple(part.stop - part.start for part in window(extents, whole.shape))
        if entry.dtype != whole.dtype or entry.shape != shape or entry.slices:
            raise Malformed(path, f"a slice of {key} is not of the type and shape declared for it", offset=entry.at)
        parts.append(_part(index, key, entry, extents))
    return tuple(parts)


def _read(index: _Index, key: str, whole: BundleEntry, parts: tuple[Part, ...]) -> NDArray[Any]:
    stored = TYPES[whole.dtype]
    if (whole.dtype != STRING and not stored.layout) or len(whole.shape) > _MAX_RANK:
        reason = f"{key} is a tensor of type {stored.name} in {len(whole.shape)} dimensions"
        raise Unsupported(index.place.index, reason, offset=whole.at)
    for part in parts:
        if part.entry.shard not in index.present:
            raise NotFound(part.shard, f"the data file of {key} is absent")
    if whole.slices:
        if whole.dtype == STRING:
            raise Unsupported(index.place.index, f"{key} is a partitioned tensor of strings", offset=whole.at)
        return read_parts(whole, parts, name=key, index=index.place.index, big_endian=index.big_endian)
    reader = read_strings if whole.dtype == STRING else read_numbers
    return reader(parts[0], name=key, big_endian=index.big_endian)


def _no_part(path: Path) -> ReadError:
    """Why a file whose name makes it no part of a V2 checkpoint cannot be read as one."""
    if not matches(path, b""):
        return UnknownFormat(path, "no checkpoint: neither a prefix nor a file of one")
    header = next(entries(open_table(path)), None)
    if header is not None and not header.key:
        _header(path, header.value, header.offset)
    return UnknownFormat(path, "a checkpoint index under another name", hint="rename it back to end in .index")
