"""V2 checkpoints ("tensor bundles"): an `.index` table of entries and data shards of raw, checksummed tensors.

Format: tensorflow/core/util/tensor_bundle/tensor_bundle.{h,cc} and core/protobuf/tensor_bundle.proto. Only the index is
read to begin with; a tensor's bytes are read, and verified, when it is asked for. V1: see `saved_slices`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, NotFound, ReadError, UnknownFormat, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.facts.record import replace
from bncheck.sources.bundle.crc32c import crc32c
from bncheck.sources.bundle.entry import BundleEntry, Extents, decode_entry, slice_key, split_checksum, window
from bncheck.sources.bundle.index import Index, IndexMemory, Placed, header_of, read_index
from bncheck.sources.bundle.locate import Place, find
from bncheck.sources.bundle.sstable import MAGIC, entries, open_table
from bncheck.sources.bundle.tensor import (
    STRING,
    TYPES,
    WIDTHS,
    Part,
    plain_numbers,
    read_numbers,
    read_parts,
    read_strings,
)
from bncheck.sources.files import read_tail
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.remote import RemotePath

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_DATA = re.compile(r".*\.data-\d{5}-of-\d{5}", re.DOTALL)
_MAX_RANK = 32
"""numpy's, before its version 2."""
_GAP, _STRETCH = 1 << 14, 1 << 22
"""Bytes that are read though nobody asked for them, between two tensors; and that are read at once at most."""


def matches(path: Path, head: bytes) -> bool:  # noqa: ARG001 - every source is asked with the same two arguments
    """Whether a file is the index of a checkpoint, by its last bytes, or, by its name alone, a data shard of one."""
    return _DATA.fullmatch(path.name) is not None or read_tail(path, len(MAGIC)) == MAGIC


def read_checkpoint(path: Path, memory: IndexMemory | None = None) -> RawModel:
    """The checkpoint that a prefix, one of its files or a directory names; the index is read, no tensor.

    `memory` has the one that was read before, of which this one may have the layout.

    Raises ReadError: NotFound, Unreadable, NoModel (empty directory), Unsupported, UnknownFormat, Truncated,
    BadChecksum, Malformed.
    """
    place = find(path)
    if place is None:
        raise _no_part(path)
    if place.slices:
        return _read_v1(place)
    tensors = Tensors(read_index(place) if memory is None else memory.read(place))
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


class Tensors(Mapping[str, RawTensor]):
    """Key -> tensor. An entry is decoded each time it is looked up: of 100,000 keys a check needs a few hundred."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def __len__(self) -> int:
        return len(self._index.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index.entries)

    def __contains__(self, key: object) -> bool:
        return key in self._index.entries

    def __getitem__(self, key: str) -> RawTensor:
        return _tensor(self._index, key)

    def same_layout(self, other: Tensors) -> bool:
        """Whether two checkpoints have the same keys, types, shapes and places, and as many data files."""
        mine, theirs = self._index, other._index
        if (mine.shards, mine.big_endian, mine.present) != (theirs.shards, theirs.big_endian, theirs.present):
            return False
        if mine.decoded is theirs.decoded:
            return True
        if mine.entries.keys() != theirs.entries.keys() or mine.slices or theirs.slices:
            return False
        layouts = ([split_checksum(of.entries[key][0])[0] for key in mine.entries] for of in (mine, theirs))
        return next(layouts) == next(layouts)

    def same_values(self, other: Tensors, keys: Iterable[str]) -> bool:
        """Whether two checkpoints of one layout have the same values under these keys, as their checksums tell."""
        mine, theirs = self._index.entries, other._index.entries
        return all(mine[key][0] == theirs[key][0] for key in keys)

    def checksums(self, keys: Sequence[str]) -> list[int]:
        """CRC-32C of each, in its entry; of partitioned variables that is none of their values."""
        for key in keys:
            self._index.entry(key)
        return self._index.checksums(keys)

    def read_all(self, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Key -> its tensor, as each one's `read` gives it; what lies side by side is read at once. Raises ReadError.

        Which damaged tensor the error names is not defined, where there are several.
        """
        index, found = self._index, dict[str, NDArray[Any]]()
        asked = tuple(keys)
        if asked not in index.stretches:
            index.stretches[asked] = _stretches(index, asked)
        checksums = iter(index.checksums([one.key for stretch in index.stretches[asked] for one in stretch]))
        for stretch in index.stretches[asked]:
            first, last = stretch[0].entry, stretch[-1].entry
            start, data = first.offset, b""
            if first.shard in index.present:
                data = index.opened(first.shard).read_some(start, last.offset + last.size)
            sound: dict[int, list[tuple[Placed, bytes]]] = {}
            for placed, checksum in zip(stretch, checksums, strict=False):
                at = placed.entry.offset - start
                part = data[at : at + placed.entry.size]
                if len(part) == placed.entry.size and crc32c(part) == checksum:
                    sound.setdefault(placed.entry.dtype, []).append((placed, part))
            for dtype, parts in sound.items():
                found |= _numbers(dtype, parts, big_endian=index.big_endian)
        return {key: found[key] if key in found else self[key].read() for key in asked}

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


def _numbers(dtype: int, parts: Sequence[tuple[Placed, bytes]], *, big_endian: bool) -> Iterator[tuple[str, Any]]:
    """(key, tensor) of each, all of one type."""
    values, end = plain_numbers(b"".join([part for _, part in parts]), dtype, big_endian=big_endian), 0
    for placed, _ in parts:
        start, end = end, end + placed.entry.elements
        yield placed.key, values[start:end].reshape(placed.entry.shape)


def _stretches(index: Index, keys: Sequence[str]) -> list[list[Placed]]:
    """Plain tensors that follow one another in one data file with little between them, and are not many bytes."""
    plain = []
    for placed in (Placed(key, index.entry(key)) for key in keys):
        width = WIDTHS.get(placed.entry.dtype)
        if width is not None and placed.entry.size == placed.entry.elements * width and not placed.entry.slices:
            plain.append(placed)
    found: list[list[Placed]] = []
    for placed in sorted(plain, key=lambda one: (one.entry.shard, one.entry.offset)):
        entry = placed.entry
        if found:
            first, before = found[-1][0].entry, found[-1][-1].entry
            near = entry.shard == before.shard and entry.offset - before.offset - before.size <= _GAP
            if near and entry.offset + entry.size - first.offset <= _STRETCH:
                found[-1].append(placed)
                continue
        found.append([placed])
    return found


def _tensor(index: Index, key: str) -> RawTensor:
    known = index.tensors.get(key)
    if known is None:
        entry = index.entry(key)
        known = index.kinds.get((entry.dtype, entry.shape, entry.shard))
        if known is None or entry.slices:
            known = _described(index, key, entry)
        if not entry.slices:
            _check_size(index, key, entry)
            index.kinds[entry.dtype, entry.shape, entry.shard] = known
        index.tensors[key] = known
    crc = None if known.crc32c is None else index.checksum(key)
    return replace(known, name=key, read=partial(_read, index, key), crc32c=crc)


def _described(index: Index, key: str, entry: BundleEntry) -> RawTensor:
    """What holds of a tensor in all checkpoints of one layout. Raises Malformed."""
    stored = TYPES.get(entry.dtype)
    if stored is None:
        raise Malformed(index.path, f"{key} has the unknown data type {entry.dtype}", offset=entry.at)
    shards = [part.entry.shard for part in _parts(index, key, entry)] if entry.slices else [entry.shard]
    if len(entry.shape) > _MAX_RANK:
        unavailable: str | None = f"bncheck does not read tensors of {len(entry.shape)} dimensions"
    elif stored.layout or entry.dtype == STRING:
        absent = next((index.shard(number).name for number in shards if number not in index.present), None)
        unavailable = f"its data file {absent} is absent" if absent else None
    else:
        unavailable = f"bncheck does not read tensors of type {stored.name}"
    plain = stored.layout and not entry.slices and not index.big_endian
    return RawTensor(
        name=key,
        dtype=stored.name,
        shape=entry.shape,
        read=partial(_read, index, key),
        crc32c=index.checksum(key) if plain else None,
        unavailable=unavailable,
        far=isinstance(index.place.directory, RemotePath),
    )


def _part(index: Index, key: str, entry: BundleEntry, extents: Extents = ()) -> Part:
    """An entry with its shard, once its size is that of its type and shape."""
    _check_size(index, key, entry)
    return Part(entry, index.shard(entry.shard), partial(index.opened, entry.shard), extents)


def _check_size(index: Index, key: str, entry: BundleEntry) -> None:
    """Raises Malformed where an entry has not as many bytes as its type and shape have."""
    width = WIDTHS[entry.dtype]
    if width is not None and entry.size != entry.elements * width:
        reason = f"{key} has {entry.size:,} bytes; {list(entry.shape)} of {TYPES[entry.dtype].name} has not"
        raise Malformed(index.path, reason, offset=entry.at)


def _parts(index: Index, key: str, whole: BundleEntry) -> tuple[Part, ...]:
    """The one piece that a tensor is, or the slices of a partitioned variable.

    Raises Malformed where one is not in the index or not as declared.
    """
    if not whole.slices:
        return (_part(index, key, whole._replace(crc32c=index.checksum(key))),)
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


def _read(index: Index, key: str) -> NDArray[Any]:
    whole = index.entry(key)
    parts = _parts(index, key, whole)
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
        header_of(path, header.value, header.offset)
    return UnknownFormat(path, "a checkpoint index under another name", hint="rename it back to end in .index")
