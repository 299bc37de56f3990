"""PyTorch's containers written without PyTorch: pickles by opcode, zip archives and the older stream."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Name:
    """A class or function, as a pickle names it."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """What a pickle has a function make; `state` is then handed to the object made."""

    function: Name | Call
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass(frozen=True)
class Persistent:
    """What the file holds outside the pickle."""

    identity: tuple[Any, ...]


def pickled(value: Any) -> bytes:
    """A pickle of protocol 2."""
    return b"\x80\x02" + _opcodes(value) + b"."


def _opcodes(value: Any) -> bytes:
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        made = _opcodes(value.function) + _opcodes(value.arguments) + b"R"
        return made if value.state is None else made + _opcodes(value.state) + b"b"
    if isinstance(value, Persistent):
        return _opcodes(value.identity) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(_opcodes, value)) + b"e"
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_opcodes(key) + _opcodes(inner) for key, inner in value.items()) + b"u"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    key: str, array: np.ndarray, *, offset: int = 0, shape: Any = None, strides: Any = None, size: int = -1
) -> Call:
    """A view of a storage; by default the whole array in C order."""
    steps = tuple(step // array.itemsize for step in array.strides)
    storage = ("storage", Name("torch", STORAGES[array.dtype.name]), key, "cpu", array.size if size < 0 else size)
    view = (Persistent(storage), offset, shape or array.shape, steps if strides is None else strides, False, {})
    return Call(Name("torch._utils", "_rebuild_tensor_v2"), view)


def state_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Call]:
    """A state dict with a storage for each array, under its place."""
    return {name: tensor(str(place), array) for place, (name, array) in enumerate(arrays.items())}


def write_archive(path: Path, value: Any, storages: Mapping[str, bytes], *, pickle_of: bytes | None = None) -> Path:
    """A zip archive as `torch.save` writes it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(value) if pickle_of is None else pickle_of)
        archive.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key}", content)
    return path


def write_stream(path: Path, value: Any, storages: Mapping[str, tuple[int, bytes]], *, little: bool = True) -> Path:
    """A file as `torch.save` wrote it before 1.6; storages are (elements, bytes)."""
    made = io.BytesIO()
    for part in (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": little},
        value,
        list(storages),
    ):
        made.write(pickled(part))
    for count, content in storages.values():
        made.write(count.to_bytes(8, "little" if little else "big") + content)
    path.write_bytes(made.getvalue())
    return path


def batch_norm(name: str, channels: int = 4, *, updates: int = 1000) -> dict[str, np.ndarray]:
    """The arrays of one trained layer, under PyTorch's names."""
    rng = np.random.default_rng(channels)
    return {
        f"{name}.weight": rng.uniform(0.5, 1.5, channels).astype("f4"),
        f"{name}.bias": rng.normal(0, 0.1, channels).astype("f4"),
        f"{name}.running_mean": rng.normal(0, 1, channels).astype("f4"),
        f"{name}.running_var": rng.uniform(0.5, 2, channels).astype("f4"),
        f"{name}.num_batches_tracked": np.array(updates, "i8"),
    }
