"""Stored tensors -> per-channel vectors of a layer, judged by their values or, without data, by their checksum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer, PerChannel, Presence, Role, Vector
from bncheck.facts.record import replace
from bncheck.numerics.side_by_side import SideBySide
from bncheck.sources.raw import RawTensor, ReadsTogether

CONSTANTS_TRIED = (0.0, 1.0)
"""Values whose checksum is compared where only an index is at hand: the initial values in use."""

_LITTLE_ENDIAN = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}


_NO_NUMBERS = frozenset({"string", "resource", "variant"})


def vector(role: Role, tensor: RawTensor, *, name: str = "", initial: float | None = None) -> Vector:
    """The vector that `tensor` holds; `name` is the variable's where it differs from the key.

    Raises ReadError where the file is damaged. A tensor that is declared but not at hand becomes UNREAD, and where the
    format recorded a checksum, `constant` is decided exactly from it.
    """
    known = declared(role, tensor, name=name, initial=initial)
    return with_values(known, tensor.read()) if known.presence is Presence.PRESENT else known


def declared(role: Role, tensor: RawTensor, *, name: str = "", initial: float | None = None) -> Vector:
    """The same before it is read, for `with_stored`: PRESENT, without values."""
    name = name or tensor.name
    why = f"is of type {tensor.dtype}" if tensor.dtype in _NO_NUMBERS else tensor.unavailable
    if why is not None:
        checked, constant = constant_by_checksum(tensor, initial)
        return Vector(
            role=role,
            presence=Presence.UNREAD,
            name=name,
            key=tensor.name,
            shape=tensor.shape,
            dtype=tensor.dtype,
            constant_checked=checked,
            constant=constant,
            initial=initial,
            reason=why,
        )
    return Vector(
        role=role,
        presence=Presence.PRESENT,
        name=name,
        key=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        initial=initial,
    )


def with_stored(layers: Sequence[Layer], tensors: Mapping[str, RawTensor]) -> list[Layer]:
    """Layers whose vectors were `declared`, with what is stored of these, read together. Raises ReadError."""
    waiting = [
        vector
        for layer in layers
        for vector in (layer.mean, layer.variance, layer.gamma, layer.beta, *layer.shadow_statistics.values())
        if vector.presence is Presence.PRESENT and vector.values is None
    ]
    stored = read_together([vector.key for vector in waiting], tensors)
    made = all_with_values(waiting, [stored[vector.key] for vector in waiting])
    found = {id(known): one for known, one in zip(waiting, made, strict=True)}

    def filled(known: Vector) -> Vector:
        return found.get(id(known), known)

    return [
        replace(
            layer,
            mean=filled(layer.mean),
            variance=filled(layer.variance),
            gamma=filled(layer.gamma),
            beta=filled(layer.beta),
            shadow_statistics={role: filled(one) for role, one in layer.shadow_statistics.items()},
        )
        for layer in layers
    ]


def read_together(keys: Sequence[str], tensors: Mapping[str, RawTensor]) -> Mapping[str, NDArray[Any]]:
    """Name -> the tensor that is stored by it; of a checkpoint in few reads. Raises ReadError."""
    if isinstance(tensors, ReadsTogether):
        return tensors.read_all(keys)
    if all(key in tensors and tensors[key].name == key for key in keys):
        return {key: tensors[key].read() for key in keys}
    stored = {tensor.name: tensor for tensor in tensors.values()}  # a backbone's, out of a detector's scope
    return {key: stored[key].read() for key in keys}


def with_values(known: Vector, stored: NDArray[Any]) -> Vector:
    """A vector that is PRESENT with what is stored of it, of any shape: flattened to (channels,) and read-only."""
    values = _flat(stored)
    first = float(values[0]) if values.size else None
    return replace(
        known,
        values=values,
        constant_checked=values.size > 0,
        constant=first if values.size and values[-1] == first and bool((values == first).all()) else None,
    )


def all_with_values(known: Sequence[Vector], stored: Sequence[NDArray[Any]]) -> list[Vector]:
    """`with_values` of many vectors, whose bounds are found on the way."""
    if not stored or not all(one.size and one.dtype.kind == "f" for one in stored):
        return [with_values(vector, one) for vector, one in zip(known, stored, strict=True)]
    side = SideBySide([one.size for one in stored])
    values = _flat(np.concatenate([one.reshape(-1) for one in stored]))
    bounds = zip(side.smallest(values).tolist(), side.largest(values).tolist(), strict=True)
    made = []
    for vector, part, (lowest, highest) in zip(known, side.parts(values), bounds, strict=True):
        constant = float(part[0]) if lowest == highest else None
        made.append(replace(vector, values=part, constant_checked=True, constant=constant))
        made[-1].__dict__["bounds"] = (lowest, highest)  # as the cached property would find them, one by one
    return made


def per_channel(tensor: RawTensor) -> PerChannel:
    """The tensor flattened to (channels,) float64, read-only; NaN and infinity stay. Raises ReadError."""
    return _flat(tensor.read())


def _flat(stored: NDArray[Any]) -> PerChannel:
    with np.errstate(invalid="ignore"):  # a signalling NaN
        values: PerChannel = stored.astype(np.float64).reshape(-1)
    values.setflags(write=False)
    return values


def constant_by_checksum(tensor: RawTensor, initial: float | None = None) -> tuple[bool, float | None]:
    """(decided, constant): compares the recorded CRC-32C with that of as many zeros, ones or initial values.

    A checksum that matches none decides "not one of these constants": (True, None). Chance of a false match: 2**-32.
    """
    layout = _layout(tensor)
    if layout is None:
        return False, None
    size = math.prod(tensor.shape)
    for constant in _tried(initial):
        if _checksum(size, constant, layout) == tensor.crc32c:
            return True, constant
    return True, None


def checksums_of_constants(tensor: RawTensor, initial: float) -> frozenset[int] | None:
    """Those by which `constant_by_checksum` finds a constant; None where it decides nothing."""
    layout = _layout(tensor)
    if layout is None:
        return None
    return frozenset(_checksum(math.prod(tensor.shape), constant, layout) for constant in _tried(initial))


def _layout(tensor: RawTensor) -> str | None:
    """Of its elements; None where no checksum of constants is compared."""
    layout = None if tensor.crc32c is None else _LITTLE_ENDIAN.get(tensor.dtype)
    return layout if layout and 0 < math.prod(tensor.shape) <= 1 << 24 else None


def _tried(initial: float | None) -> tuple[float, ...]:
    return CONSTANTS_TRIED if initial is None else (initial, *CONSTANTS_TRIED)


@lru_cache(maxsize=4096)
def _checksum(size: int, constant: float, layout: str) -> int:
    """Of as many numbers; the layers of a model have few sizes."""
    return int(google_crc32c.value(np.full(size, constant, layout).tobytes()))


def absent(role: Role, reason: str) -> Vector:
    """The layer has no such vector by design."""
    return Vector(role=role, presence=Presence.ABSENT, reason=reason)


def missing(role: Role, name: str, reason: str, shape: tuple[int, ...] | None = None) -> Vector:
    """The layer has it, the file that should hold it does not."""
    return Vector(role=role, presence=Presence.MISSING, name=name, shape=shape, reason=reason)


def unread(
    role: Role, name: str, reason: str, *, shape: tuple[int, ...] | None = None, initial: float | None = None
) -> Vector:
    """It exists, its values are not at hand."""
    return Vector(role=role, presence=Presence.UNREAD, name=name, shape=shape, initial=initial, reason=reason)
