"""V1 checkpoints: sorted tables with the tensors inside, one file, or one for each shard.

Format: tensorflow/core/util/saved_tensor_slice.proto and tensor_slice_writer.cc. The empty key holds what the file has
(SavedTensorSlices.meta); every other key is a slice of a variable (`slice_key`), its value a TensorProto that lists the
numbers one by one. A file is read, and verified, as a whole; a tensor is decoded when it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, Unsupported
from bncheck.facts.record import Record
from bncheck.sources.bundle.entry import Extents, check_extents, extents_of, possible, shape_of, slice_key, window
from bncheck.sources.bundle.locate import MAX_FILE
from bncheck.sources.bundle.sstable import entries, open_table
from bncheck.sources.bundle.tensor import STRING, TYPES
from bncheck.sources.graph.wire import LENGTH, VARINT, Field, fields, of_wire
from bncheck.sources.raw import RawTensor

MAX_TENSORS = 1 << 20
_MAX_RANK = 32
"""numpy's, before its version 2."""
_BFLOAT16 = 14
_BOOL = 10
_FIELDS = {
    1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", STRING: "string_val",
    9: "int64_val", 10: "bool_val", 11: "int_val", 12: "int_val", 13: "int_val", _BFLOAT16: "half_val",
    15: "int_val", 16: "int_val", 17: "int_val", 19: "half_val",
}  # fmt: skip
"""DataType -> the field of a TensorProto that lists its values; half and bfloat16 as their 16 bits."""


class _SavedTensor(Record):
    """What a file says of one tensor: SavedSliceMeta."""

    dtype: int
    shape: tuple[int, ...]
    slices: tuple[Extents, ...]
    at: int


class _SavedSlice(Record, eq=False):
    """The value under one key, with the file and the place in it."""

    path: Path
    value: bytes
    at: int


def read_slices(files: Sequence[Path]) -> Mapping[str, RawTensor]:
    """All tensors of a V1 checkpoint, from its one file or its shards.

    Raises ReadError: Malformed, Truncated, BadChecksum, TooLarge, Unsupported.
    """
    stored: dict[bytes, _SavedSlice] = {}
    declared: dict[str, _SavedTensor] = {}
    for path in files:
        listed = entries(open_table(path, limit=MAX_FILE))
        header = next(listed, None)
        if header is None or header.key:
            raise Malformed(path, "the table has no header under the empty key", offset=0)
        for name, found in _listed(path, header.value, header.offset):
            before = declared.get(name)
            if before is not None and (before.dtype, before.shape) != (found.dtype, found.shape):
                raise Malformed(path, f"{name} has another type or shape than in another shard", offset=found.at)
            slices = found.slices if before is None else before.slices + found.slices
            declared[name] = _SavedTensor(dtype=found.dtype, shape=found.shape, slices=slices, at=found.at)
        stored |= {key: _SavedSlice(path=path, value=value, at=at) for key, value, at in listed}
    return {name: _tensor(files[0], name, found, stored) for name, found in declared.items()}


def _listed(path: Path, value: bytes, base: int) -> Iterator[tuple[str, _SavedTensor]]:
    """(name, SavedSliceMeta) of every tensor that the header lists."""
    for outer in fields(value, path, base):
        if outer.number != 1:
            continue
        for count, field in enumerate(
            fields(of_wire(outer, LENGTH, path, "the list of tensors").content, path, outer.offset)
        ):
            if field.number != 1:
                continue
            if count >= MAX_TENSORS:
                raise Malformed(path, f"lists more than {MAX_TENSORS:,} tensors", offset=field.offset)
            yield _one_declared(path, of_wire(field, LENGTH, path, "a tensor"))


def _one_declared(path: Path, field: Field) -> tuple[str, _SavedTensor]:
    name, dtype = "", 0
    shape: tuple[int, ...] = ()
    slices: list[Extents] = []
    for part in fields(field.content, path, field.offset):
        if part.number == 1:
            name = of_wire(part, LENGTH, path, "a name").content.decode("utf-8", "surrogateescape")
        elif part.number == 2:
            shape = shape_of(path, of_wire(part, LENGTH, path, "a shape"))
        elif part.number == 3:
            dtype = of_wire(part, VARINT, path, "a data type").value
        elif part.number == 4:
            slices.append(extents_of(path, of_wire(part, LENGTH, path, "a slice")))
    if dtype not in TYPES:
        raise Malformed(path, f"{name} has the unknown data type {dtype}", offset=field.offset)
    if not possible(shape):
        raise Malformed(path, f"{name} has the impossible shape {list(shape)}", offset=field.offset)
    for extents in slices:
        check_extents(path, shape, extents, field.offset)
    return name, _SavedTensor(dtype=dtype, shape=shape, slices=tuple(slices), at=field.offset)


def _tensor(path: Path, name: str, found: _SavedTensor, stored: Mapping[bytes, _SavedSlice]) -> RawTensor:
    kind = TYPES[found.dtype].name
    unavailable = None
    if len(found.shape) > _MAX_RANK:
        unavailable = f"bncheck does not read tensors of {len(found.shape)} dimensions"
    elif found.dtype not in _FIELDS:
        unavailable = f"bncheck does not read tensors of type {kind} from V1 checkpoints"
    return RawTensor(
        name=name,
        dtype=kind,
        shape=found.shape,
        read=partial(_read, path, name, found, stored),
        unavailable=unavailable,
    )


def _read(path: Path, name: str, found: _SavedTensor, stored: Mapping[bytes, _SavedSlice]) -> NDArray[Any]:
    """The tensor put together from its slices, read-only."""
    if found.dtype not in _FIELDS or len(found.shape) > _MAX_RANK:
        raise Unsupported(path, f"{name} is a tensor of type {TYPES[found.dtype].name}", offset=found.at)
    pieces = []
    for extents in found.slices:
        entry = stored.get(slice_key(name, extents))
        if entry is None:
            raise Malformed(path, f"a slice of {name} is not in the file", offset=found.at)
        here = window(extents, found.shape)
        pieces.append((here, _values(entry, name, found.dtype, tuple(part.stop - part.start for part in here))))
    if sum(piece.size for _, piece in pieces) < math.prod(found.shape) or not pieces:
        raise Malformed(path, f"the slices of {name} do not cover its shape {list(found.shape)}", offset=found.at)
    values: NDArray[Any] = np.empty(found.shape, pieces[0][1].dtype)
    filled = np.zeros(found.shape, bool)
    for here, piece in pieces:
        values[here] = piece
        filled[here] = True
    if not filled.all():
        raise Malformed(path, f"the slices of {name} do not cover its shape {list(found.shape)}", offset=found.at)
    values.setflags(write=False)
    return values


def _values(entry: _SavedSlice, name: str, dtype: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """The numbers of one slice: SavedTensorSlices.data.data, a TensorProto."""
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - protobuf costs 20 ms, V2 checkpoints need none

    from bncheck.sources.graph.protos import TensorProto  # noqa: PLC0415 - as above

    content, at = entry.value, entry.at
    for number in (2, 3):
        inner = next((field for field in fields(content, entry.path, at) if field.number == number), None)
        if inner is None:
            raise Malformed(entry.path, f"a slice of {name} has no values", offset=at)
        content, at = of_wire(inner, LENGTH, entry.path, "the values of a slice").content, inner.offset
    try:
        proto = TensorProto.FromString(content)
    except DecodeError:
        raise Malformed(entry.path, f"the values of {name} are no tensor", offset=at) from None
    listed = getattr(proto, _FIELDS[dtype])
    if len(listed) != math.prod(shape):
        reason = f"a slice of {name} lists {len(listed):,} values; {list(shape)} has not so many"
        raise Malformed(entry.path, reason, offset=at)
    return _array(listed, dtype, shape)


def _array(listed: Any, dtype: int, shape: tuple[int, ...]) -> NDArray[Any]:
    if dtype == STRING:
        strings = np.empty(len(listed), dtype=object)
        strings[:] = list(listed)
        return strings.reshape(shape)
    numbers: NDArray[Any]
    if dtype == _BFLOAT16:
        numbers = (np.array(listed, np.uint32) << np.uint32(16)).view(np.float32)
    elif _FIELDS[dtype] == "half_val":
        numbers = np.array(listed, np.uint32).astype(np.uint16).view(np.float16)
    else:
        numbers = np.array(listed).astype(bool if dtype == _BOOL else TYPES[dtype].layout)
    return numbers.reshape(shape)
