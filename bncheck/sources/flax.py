"""Flax: variables as `flax.serialization.to_bytes` packs them, a msgpack map of maps with arrays as its leaves.

Source: flax/serialization.py (types of extension, arrays in chunks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.bundle.entry import possible
from bncheck.sources.elements import LAYOUTS, decoded
from bncheck.sources.files import names, read_whole
from bncheck.sources.raw import RawModel, RawTensor

_MAX_FILE = 2 << 30
_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
"""Types of extension."""
_CHUNKED = "__msgpack_chunked_array__"
_DEEPEST = 64
ORBAX = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt")
"""What lies in the folder of an Orbax checkpoint."""


class _Array(NamedTuple):
    """An array as it is packed."""

    shape: tuple[int, ...]
    dtype: str
    content: bytes


def matches(path: Path, head: bytes) -> bool:
    """Whether a file begins with a msgpack map whose first key is a short text."""
    del path
    keys = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0) if head else 0
    if not keys or len(head) < keys + 2:
        return False
    short = 0xA1 <= head[keys] <= 0xBF
    return short and head[keys + 1 : keys + 1 + (head[keys] & 31)].isascii()


def read_flax(path: Path) -> RawModel:
    """The arrays of a file, by their path ("params/BatchNorm_0/scale").

    Raises Malformed, TooLarge, Unsupported where the map is no tree of arrays.
    """
    import msgpack  # noqa: PLC0415 - nothing else needs it

    if path.is_dir():
        refuse_orbax(path)
    content = read_whole(path, limit=_MAX_FILE)
    unpack = partial(msgpack.unpackb, raw=False, strict_map_key=False)
    try:
        tree = unpack(content, ext_hook=partial(_extension, path, unpack))
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:  # TypeError: a map as a key
        why = str(error) or type(error).__name__
        raise Malformed(path, f"its msgpack is damaged or cut short: {why}", hint="copy the file again") from None
    if not isinstance(tree, dict):
        raise Unsupported(path, "its msgpack is no map of names to arrays")
    tensors = {name: _tensor(path, name, value) for name, value in _leaves(path, tree)}
    if not any(len(tensor.shape) for tensor in tensors.values()):
        raise Unsupported(path, "its msgpack holds no arrays: Flax's `to_bytes` of the variables is read")
    return RawModel(path=path, format=Format(FileKind.FLAX), tensors=tensors)


def is_orbax(folder: Path) -> bool:
    """Whether a folder is a checkpoint of Orbax."""
    return not set(ORBAX).isdisjoint(names(folder))


def refuse_orbax(folder: Path) -> NoReturn:
    """Orbax keeps arrays in TensorStore's format. Raises Unsupported."""
    raise Unsupported(
        folder,
        "an Orbax checkpoint, whose format (TensorStore) is not read",
        hint='restore it and write a file: open("model.msgpack", "wb").write(flax.serialization.to_bytes(variables))',
    )


def _extension(path: Path, unpack: Any, code: int, data: bytes) -> Any:
    if code == _COMPLEX:
        return None
    if code not in (_ARRAY, _SCALAR):
        raise Unsupported(path, f"its msgpack has an extension of type {code}, which is not Flax's")
    found = unpack(data)
    known = isinstance(found, (list, tuple)) and len(found) == 3
    shape, dtype, content = found if known else ((), "", b"")
    name = dtype.decode("ascii", "replace") if isinstance(dtype, bytes) else dtype
    if not isinstance(shape, (list, tuple)) or not isinstance(name, str) or not isinstance(content, bytes):
        raise Malformed(path, "an array of its msgpack has no shape, type and bytes")
    if not all(type(size) is int for size in shape) or not possible(tuple(shape)):
        raise Malformed(path, f"an array of its msgpack has the impossible shape {list(shape)!r:.80}")
    return _Array(tuple(shape), name, content)


def _leaves(path: Path, tree: Mapping[Any, Any], before: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of everything that is an array or a number."""
    if depth > _DEEPEST:
        raise Malformed(path, f"its maps are nested more than {_DEEPEST} deep")
    for key, value in tree.items():
        name = f"{before}/{key}" if before else str(key)
        if isinstance(value, dict) and _CHUNKED in value:
            yield name, _joined(path, name, value)
        elif isinstance(value, dict):
            yield from _leaves(path, value, name, depth + 1)
        elif isinstance(value, _Array):
            yield name, value
        elif type(value) is int and -(1 << 63) <= value < 1 << 63:
            yield name, _Array((), "int64", value.to_bytes(8, "little", signed=True))


def _joined(path: Path, name: str, value: Mapping[str, Any]) -> _Array:
    """An array that was packed in pieces."""
    shape, chunks = value.get("shape"), value.get("chunks")
    if not isinstance(shape, dict) or not isinstance(chunks, dict):
        raise Malformed(path, f"{name} is in chunks without a shape")
    sizes = tuple(shape.get(str(place)) for place in range(len(shape)))
    parts = [chunks.get(str(place)) for place in range(len(chunks))]
    arrays = [part for part in parts if isinstance(part, _Array)]
    if len(arrays) != len(parts) or not arrays or not all(type(size) is int for size in sizes):
        raise Malformed(path, f"{name} is in chunks that are not arrays")
    whole = tuple(int(size or 0) for size in sizes)
    if not possible(whole):
        raise Malformed(path, f"{name} has the impossible shape {list(whole)}")
    return _Array(whole, arrays[0].dtype, b"".join(part.content for part in arrays))


def _tensor(path: Path, name: str, array: _Array) -> RawTensor:
    layout = LAYOUTS.get(array.dtype)
    if layout is None:
        why = f"is of {array.dtype or 'no type'}, which bncheck does not read"
        return RawTensor(
            name=name, dtype=array.dtype, shape=array.shape, read=partial(_refuse, path, name, why), unavailable=why
        )
    if len(array.content) != math.prod(array.shape) * int(layout[1:]):
        told = f"{name} has {len(array.content):,} bytes; {list(array.shape)} of {array.dtype} has not"
        raise Malformed(path, told)
    return RawTensor(name=name, dtype=array.dtype, shape=array.shape, read=partial(_read, array, "<" + layout))


def _refuse(path: Path, name: str, why: str) -> NDArray[Any]:
    raise Malformed(path, f"{name} {why}")


def _read(array: _Array, layout: str) -> NDArray[Any]:
    return decoded(np.frombuffer(array.content, layout).reshape(array.shape), array.dtype)
