"""A V2 checkpoint with other values in some tensors, without TensorFlow: shards copied and patched, index rewritten.

A vector keeps its type, shape and place, so that every other tensor (strings, slices, other shards) stays as it is,
byte for byte, whatever its type. Only vectors that the source lacks are added, at the end of the last shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import BncheckError, NotFound, Unsupported, UsageError
from bncheck.facts.layers import PerChannel
from bncheck.repair.index_table import new_entry, with_checksum, write_table
from bncheck.repair.publish import copy
from bncheck.sources.bundle.checkpoint import read_checkpoint
from bncheck.sources.bundle.crc32c import crc32c
from bncheck.sources.bundle.entry import BundleEntry, decode_entry, slice_key, window
from bncheck.sources.bundle.locate import Place
from bncheck.sources.bundle.sstable import entries, open_table
from bncheck.sources.bundle.tensor import TYPES
from bncheck.sources.files import is_file, status
from bncheck.sources.graph.wire import fields

_FLOAT32 = 1
_BFLOAT16 = "bfloat16"


@dataclass(kw_only=True, eq=False)
class _Bundle:
    """The index of a checkpoint, and what is to change."""

    place: Place
    shards: int
    order: str
    """"<" or ">"."""
    values: dict[bytes, bytes]
    """Key of the table -> serialized entry."""
    patches: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    """Shard -> (offset, bytes)."""
    changed: set[bytes] = field(default_factory=set)
    """Keys of the entries that are patched or added."""


def write_checkpoint(
    place: Place, target: Place, replaced: Mapping[str, PerChannel], added: Mapping[str, PerChannel]
) -> list[Path]:
    """Writes `place` anew as `target`, with these vectors in place of the old ones; gives the files, the index last.

    Raises NotFound where a shard is absent, UsageError where a value does not fit its tensor's type, ReadError where
    the source is damaged.
    """
    bundle = _read(place)
    for key, vector in replaced.items():
        _replace(bundle, key, vector)
    for key, vector in added.items():
        _add(bundle, key, vector)
    _check_apart(bundle)
    written = []
    for number in range(bundle.shards):
        shard = target.shard(number, bundle.shards)
        copy(place.shard(number, bundle.shards), shard)
        with shard.open("r+b") as file:
            for offset, content in bundle.patches.get(number, ()):
                file.seek(offset)
                file.write(content)
        written.append(shard)
    with target.index.open("wb") as file:
        write_table(file, sorted(bundle.values.items()))
    _verify(target, {**replaced, **added})
    return [*written, target.index]


def encoded(vector: PerChannel, dtype: str, *, key: str, order: str = "<") -> bytes:
    """The bytes of a vector in a tensor's own type. Raises UsageError where a value does not fit into it."""
    if dtype == _BFLOAT16:
        bits = vector.astype(np.float32).view(np.uint32).astype(np.uint64)
        # to nearest, ties to even
        stored: NDArray[Any] = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
        return stored.astype(f"{order}u2").tobytes()
    if dtype not in ("float16", "float32", "float64"):
        raise UsageError(f"{key} is a tensor of {dtype}, which cannot hold statistics")
    with np.errstate(over="ignore"):
        stored = vector.astype(dtype)
    if not np.all(np.isfinite(stored)):
        raise UsageError(f"{key} is a tensor of {dtype}, into which {float(np.abs(vector).max()):.3g} does not fit")
    return stored.astype(stored.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type] # "<" or ">"


def rounded(vector: PerChannel, dtype: str, *, key: str) -> NDArray[Any]:
    """The vector as a tensor's own type holds it, read again. Raises UsageError as `encoded`."""
    content = encoded(vector, dtype, key=key)
    if dtype == _BFLOAT16:
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def _read(place: Place) -> _Bundle:
    listed = {entry.key: entry.value for entry in entries(open_table(place.index))}
    header = {part.number: part.value for part in fields(listed[b""], place.index, 0)}
    shards, big_endian = header.get(1, 0), header.get(2, 0)
    for number in range(shards):
        if not is_file(place.shard(number, shards)):
            raise NotFound(place.shard(number, shards), "this data file is needed to write the copy")
    return _Bundle(place=place, shards=shards, order=">" if big_endian else "<", values=listed)


def _entry(bundle: _Bundle, key: bytes) -> BundleEntry:
    return decode_entry(bundle.place.index, bundle.values[key], 0, shards=bundle.shards)


def _replace(bundle: _Bundle, key: str, vector: PerChannel) -> None:
    name = key.encode("utf-8", "surrogateescape")
    whole = _entry(bundle, name)
    if whole.elements != vector.size:
        raise UsageError(f"{key} has shape {list(whole.shape)}, which has no room for {vector.size} channels")
    values = vector.reshape(whole.shape)
    if not whole.slices:
        _patch(bundle, name, whole, values, key)
    for extents in whole.slices:
        part = slice_key(key, extents)
        _patch(bundle, part, _entry(bundle, part), values[window(extents, whole.shape)], key)


def _patch(bundle: _Bundle, key: bytes, entry: BundleEntry, values: PerChannel, name: str) -> None:
    content = encoded(values, TYPES[entry.dtype].name, key=name, order=bundle.order)
    assert len(content) == entry.size
    bundle.patches.setdefault(entry.shard, []).append((entry.offset, content))
    bundle.changed.add(key)
    bundle.values[key] = with_checksum(bundle.values[key], crc32c(content), bundle.place.index)


def _add(bundle: _Bundle, key: str, vector: PerChannel) -> None:
    name = key.encode("utf-8", "surrogateescape")
    if name in bundle.values:
        raise Unsupported(bundle.place.index, f"{key} exists already", offset=0)
    last = bundle.shards - 1
    found = status(bundle.place.shard(last, bundle.shards))
    assert found is not None
    content = encoded(vector, "float32", key=key, order=bundle.order)
    patches = bundle.patches.setdefault(last, [])
    end = max([found.st_size, *(offset + len(piece) for offset, piece in patches)])
    patches.append((end, content))
    bundle.changed.add(name)
    bundle.values[name] = new_entry(
        _FLOAT32, vector.shape, shard=last, offset=end, size=len(content), checksum=crc32c(content)
    )


def _check_apart(bundle: _Bundle) -> None:
    """Raises Unsupported where a patch would change bytes that another tensor shares."""
    shard, any_end, changed_end = -1, 0, 0
    for number, start, end, changed in sorted(_spans(bundle)):
        if number != shard:
            shard, any_end, changed_end = number, 0, 0
        if start < changed_end or (changed and start < any_end):
            reason = f"two tensors share the bytes from {start:,} on in data file {number}"
            raise Unsupported(bundle.place.index, reason, hint="save the checkpoint again with TensorFlow")
        any_end = max(any_end, end)
        changed_end = max(changed_end, end) if changed else changed_end


def _spans(bundle: _Bundle) -> Iterator[tuple[int, int, int, bool]]:
    """(shard, start, end, whether it changes) of every tensor and slice that has bytes."""
    for key in bundle.values:
        if key:
            entry = _entry(bundle, key)
            if not entry.slices and entry.size:
                yield entry.shard, entry.offset, entry.offset + entry.size, key in bundle.changed


def _verify(target: Place, vectors: Mapping[str, PerChannel]) -> None:
    """Reads back what was written, checksums included. Raises BncheckError where it is not that."""
    tensors = read_checkpoint(target.prefix).tensors
    for key, vector in vectors.items():
        tensor = tensors[key]
        found = tensor.read().astype(np.float64).reshape(-1)
        if encoded(found, tensor.dtype, key=key) != encoded(vector, tensor.dtype, key=key):
            raise BncheckError(f"{target.index}: {key} was not written correctly: a disk fault, or a bug")


def state_file(stem: str) -> str:
    """The text of the `checkpoint` file beside a checkpoint, by which `latest_checkpoint` finds it."""
    quoted = stem.replace("\\", "\\\\").replace('"', '\\"')
    return f'model_checkpoint_path: "{quoted}"\nall_model_checkpoint_paths: "{quoted}"\n'
