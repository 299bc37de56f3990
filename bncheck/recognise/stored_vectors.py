"""Stored tensors -> per-channel vectors of a layer, judged by their values or, without data, by their checksum."""

from __future__ import annotations

import google_crc32c
import numpy as np

from bncheck.facts.layers import PerChannel, Presence, Role, Vector
from bncheck.sources.raw import RawTensor

CONSTANTS_TRIED = (0.0, 1.0)
"""Values whose checksum is compared where only an index is at hand: the initial values in use."""

_LITTLE_ENDIAN = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}


def vector(role: Role, tensor: RawTensor, *, name: str = "", initial: float | None = None) -> Vector:
    """The vector that `tensor` holds; `name` is the variable's where it differs from the key.

    Raises ReadError where the file is damaged. A tensor that is declared but not at hand becomes UNREAD, and where the
    format recorded a checksum, `constant` is decided exactly from it.
    """
    name = name or tensor.name
    if tensor.unavailable is not None:
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
            reason=tensor.unavailable,
        )
    values = per_channel(tensor)
    first = float(values[0]) if values.size else None
    return Vector(
        role=role,
        presence=Presence.PRESENT,
        name=name,
        key=tensor.name,
        shape=tensor.shape,
        dtype=tensor.dtype,
        values=values,
        constant_checked=values.size > 0,
        constant=first if values.size and values[-1] == first and bool((values == first).all()) else None,
        initial=initial,
    )


def per_channel(tensor: RawTensor) -> PerChannel:
    """The tensor flattened to (channels,) float64, read-only; NaN and infinity stay."""
    with np.errstate(invalid="ignore"):  # a signalling NaN
        values = tensor.read().astype(np.float64).reshape(-1)
    values.setflags(write=False)
    return values


def constant_by_checksum(tensor: RawTensor, initial: float | None = None) -> tuple[bool, float | None]:
    """(decided, constant): compares the recorded CRC-32C with that of as many zeros, ones or initial values.

    A checksum that matches none decides "not one of these constants": (True, None). Chance of a false match: 2**-32.
    """
    layout = _LITTLE_ENDIAN.get(tensor.dtype)
    size = int(np.prod(tensor.shape, dtype=np.int64))
    if tensor.crc32c is None or layout is None or not 0 < size <= 1 << 24:
        return False, None
    tried = CONSTANTS_TRIED if initial is None else (initial, *CONSTANTS_TRIED)
    for constant in tried:
        if google_crc32c.value(np.full(size, constant, layout).tobytes()) == tensor.crc32c:
            return True, constant
    return True, None


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
