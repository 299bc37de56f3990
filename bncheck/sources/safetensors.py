"""safetensors: one JSON header, then the tensors' bytes; sharded models have a map of files beside them.

Source: the format's own description and validation (huggingface/safetensors, README "Format", tensor.rs).
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, ReadError, TooLarge, Truncated
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.bundle.entry import possible
from bncheck.sources.elements import LAYOUTS, decoded
from bncheck.sources.files import RangedFile, opened
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.shards import MAP, json_object, of_shards

_SHARDS = f".safetensors{MAP}"
_HEADER = 8
"""Bytes of the header's length."""
_MAX_HEADER = 100_000_000
"""The format's own limit."""
_MAX_READ = 1 << 32
_METADATA = "__metadata__"
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_PREFIXES = {"BF": "bfloat", "F": "float", "I": "int", "U": "uint", "C": "complex"}


class _TensorHeader(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins with a length and a JSON object, or is a map of shards."""
    if path.name.endswith(_SHARDS):
        return head.lstrip()[:1] == b"{"
    return head[_HEADER : _HEADER + 1] == b"{" and 2 <= int.from_bytes(head[:_HEADER], "little") <= _MAX_HEADER


def read_safetensors(path: Path) -> RawModel:
    """The tensors of a file, or of all files that a map of shards names. Raises Malformed, Truncated, TooLarge."""
    tensors = of_shards(path, _tensors) if path.name.endswith(_SHARDS) else _tensors(path)
    return RawModel(path=path, format=Format(FileKind.SAFETENSORS), tensors=tensors)


def _tensors(path: Path) -> dict[str, RawTensor]:
    """Every tensor of one file, once the header as a whole agrees with the file's length."""
    with opened(path) as (file, length):
        size = int.from_bytes(file.read(_HEADER), "little")
        if size > _MAX_HEADER:
            raise TooLarge(path, f"its header has {size:,} bytes, of which the format allows {_MAX_HEADER:,}")
        if length < _HEADER + size:
            raise Truncated(path, "the file ends before its header does", offset=length, hint="copy the file again")
        header = json_object(path, file.read(size), _HEADER)
    start, available = _HEADER + size, length - _HEADER - size
    entries = {name: _entry(path, name, of) for name, of in header.items() if name != _METADATA}
    at = 0
    for name, entry in sorted(entries.items(), key=lambda named: named[1][2:]):
        if entry.begin != at:
            raise Malformed(path, f"{name} begins at byte {entry.begin:,} of the tensors, not at {at:,}", offset=start)
        at = entry.end
    if at > available:
        reason = f"its tensors need {at:,} bytes, of which {available:,} are there"
        raise Truncated(path, reason, offset=length, hint="copy the file again")
    if at < available:
        raise Malformed(path, f"{available - at:,} bytes behind its tensors belong to none", offset=start + at)
    ranges = RangedFile(path)
    return {name: _raw(ranges, start, name, entry) for name, entry in entries.items()}


def _entry(path: Path, name: str, of: Any) -> _TensorHeader:
    """What the header says of a tensor. Raises Malformed."""
    told: dict[str, Any] = of if isinstance(of, dict) else {}
    dtype, shape, place = told.get("dtype"), told.get("shape"), told.get("data_offsets")
    if not (isinstance(dtype, str) and dtype in _BITS and _counts(shape) and _counts(place) and len(place) == 2):
        raise Malformed(path, f"its header does not describe {name!r}", offset=_HEADER)
    entry = _TensorHeader(dtype, tuple(shape), *place)
    if not possible(entry.shape) or math.prod(shape) * _BITS[dtype] != 8 * (entry.end - entry.begin):
        reason = f"{name} of shape {shape} and type {dtype} does not fill bytes {entry.begin:,} to {entry.end:,}"
        raise Malformed(path, reason, offset=_HEADER)
    return entry


def _counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _name(dtype: str) -> str:
    """An element type as numpy calls it, where it does: "F32" -> "float32"."""
    letters = dtype.rstrip("0123456789")
    return _PREFIXES[letters] + dtype[len(letters) :] if letters in _PREFIXES else dtype.lower()


def _raw(file: RangedFile, start: int, name: str, entry: _TensorHeader) -> RawTensor:
    dtype = _name(entry.dtype)
    unavailable = None if dtype in LAYOUTS else f"is of the type {dtype}, which bncheck does not read"
    read = partial(_read, file, start, name, entry, dtype)
    return RawTensor(name=name, dtype=dtype, shape=entry.shape, read=read, unavailable=unavailable)


def _read(file: RangedFile, start: int, name: str, entry: _TensorHeader, dtype: str) -> NDArray[Any]:
    size = entry.end - entry.begin
    if dtype not in LAYOUTS:
        raise ReadError(file.path, f"{name} is of the type {dtype}, which bncheck does not read")
    if size > _MAX_READ:
        raise TooLarge(file.path, f"{name} has {size:,} bytes", offset=start + entry.begin)
    data = file.read(start + entry.begin, size, what=name)
    return decoded(np.frombuffer(data, "<" + LAYOUTS[dtype]).reshape(entry.shape), dtype)
