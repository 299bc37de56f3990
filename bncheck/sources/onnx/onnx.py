"""ONNX models (`.onnx`): nodes as they are, weights read on demand from the message or from files beside it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.bundle.entry import possible
from bncheck.sources.elements import LAYOUTS, decoded
from bncheck.sources.files import RangedFile, read_whole, require_inside
from bncheck.sources.onnx.messages import DTYPES, ModelProto
from bncheck.sources.raw import RawModel, RawTensor

_MAX_FILE = 2 << 30
"""Protobuf's own limit of a message."""
_MAX_TENSOR = 1 << 32
_EXTERNAL = 1
"""TensorProto.DataLocation."""
_OLDEST_IR = 3
"""Of ONNX 1.0; a SavedModel begins with the number 1 in the same field."""
_NEWEST_IR = 99
_FIELDS = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint64": "uint64_data",
    "uint32": "uint64_data",
    "complex64": "float_data",
    "complex128": "double_data",
}
"""Where a tensor without raw bytes has its elements; all other types in int32_data."""


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins with an IR version and then the name, version, domain or graph of a model."""
    del path
    return (
        len(head) > 3
        and head[0] == 0x08
        and _OLDEST_IR <= head[1] <= _NEWEST_IR
        and head[2] in b"\x12\x1a\x22\x28\x32\x3a\x42"
    )


def read_onnx(path: Path) -> RawModel:
    """The model, and its initialisers as tensors. Raises Malformed, TooLarge, Unreadable."""
    content = read_whole(path, limit=_MAX_FILE)
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        raise Malformed(path, "its ONNX message is damaged or cut short", hint="copy the file again") from None
    if not model.graph.node and not model.graph.initializer:
        raise Malformed(path, "its graph has no nodes")
    shards: dict[str, RangedFile] = {}
    tensors = {tensor.name: raw_tensor(path, tensor, shards) for tensor in model.graph.initializer}
    return RawModel(path=path, format=Format(FileKind.ONNX), tensors=tensors, onnx=model)


def raw_tensor(path: Path, tensor: Any, shards: dict[str, RangedFile]) -> RawTensor:
    """One TensorProto; `shards`: files beside the model that are open. Raises Malformed, TooLarge, Unreadable."""
    name, shape, dtype = tensor.name, tuple(tensor.dims), DTYPES.get(tensor.data_type, f"type {tensor.data_type}")
    if not possible(shape):
        raise Malformed(path, f"{name} has the impossible shape {list(shape)}")
    layout = LAYOUTS.get(dtype)
    if layout is None:
        why = f"is of {dtype}, which bncheck does not read"
        return RawTensor(name=name, dtype=dtype, shape=shape, read=partial(_refuse, path, name, why), unavailable=why)
    size = math.prod(shape) * int(layout[1:])
    if size > _MAX_TENSOR:
        raise TooLarge(path, f"{name} has {size:,} bytes")
    if tensor.data_location == _EXTERNAL:
        read = partial(_read_beside, path, shards, tensor, shape, dtype)
    else:
        read = partial(_read, path, tensor, shape, dtype)
    return RawTensor(name=name, dtype=dtype, shape=shape, read=read)


def _refuse(path: Path, name: str, why: str) -> NDArray[Any]:
    raise Malformed(path, f"{name} {why}")


def _read(path: Path, tensor: Any, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    layout, count = "<" + LAYOUTS[dtype], math.prod(shape)
    if tensor.raw_data or not count:
        if len(tensor.raw_data) != count * np.dtype(layout).itemsize:
            raise Malformed(path, f"{tensor.name} has {len(tensor.raw_data):,} bytes; {list(shape)} of {dtype} has not")
        return decoded(np.frombuffer(tensor.raw_data, layout).reshape(shape), dtype)
    stored = getattr(tensor, _FIELDS.get(dtype, "int32_data"))
    parts = 2 if dtype.startswith("complex") else 1
    if len(stored) != count * parts:
        raise Malformed(path, f"{tensor.name} has {len(stored):,} elements; {list(shape)} has {count:,}")
    if dtype in ("float16", "bfloat16"):
        bits = np.array(stored, np.int64).astype(np.uint16)
        return decoded((bits.view("<f2") if dtype == "float16" else bits).reshape(shape), dtype)
    if parts == 2:
        halves = np.array(stored, np.float64).reshape(*shape, 2)
        return decoded((halves[..., 0] + 1j * halves[..., 1]).astype(dtype), dtype)
    return decoded(np.array(stored).astype(layout).reshape(shape), dtype)


def _read_beside(
    path: Path, shards: dict[str, RangedFile], tensor: Any, shape: tuple[int, ...], dtype: str
) -> NDArray[Any]:
    """From a file in the model's folder; one that lies elsewhere is refused."""
    name, told = tensor.name, {entry.key: entry.value for entry in tensor.external_data}
    place = told.get("location", "")
    parts = Path(place).parts
    if not place or "\0" in place or Path(place).is_absolute() or ".." in parts:
        raise Malformed(path, f"{name} lies in {place!r}, which is no file beside the model")
    layout = "<" + LAYOUTS[dtype]
    size = math.prod(shape) * np.dtype(layout).itemsize
    offset, length = told.get("offset", "0"), told.get("length", str(size))
    if not (offset.isdecimal() and length.isdecimal() and len(offset) < 19) or int(length) != size:
        raise Malformed(
            path, f"{name} has {length} bytes from byte {offset} of {place}; {list(shape)} of {dtype} has not"
        )
    if place not in shards:
        require_inside(path.parent / place, path.parent)
        shards[place] = RangedFile(path.parent / place)
    data = shards[place].read(int(offset), size, what=name)
    return decoded(np.frombuffer(data, layout).reshape(shape), dtype)
