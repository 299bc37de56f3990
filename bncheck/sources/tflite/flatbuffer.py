"""FlatBuffers, read with every offset checked before it is followed: the wire format, no schema.

Source: the verifier of google/flatbuffers (`include/flatbuffers/verifier.h`, `table.h`) and its page "FlatBuffer
Internals". All numbers are little endian; an offset is unsigned 32 bit and relative to the place where it is stored;
a table starts with a signed offset back to its vtable: (vtable bytes, table bytes, offset of field 0, of field 1, ...),
each 16 bit, 0 for a field that has its default.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, TooLarge, Truncated
from bncheck.sources.content import Content

MAX_STRING = 1 << 16
"""Bytes of one name; TensorFlow's longest fused names are some thousands."""

SHARED_FACTOR = 4
SHARED_ALLOWANCE = 1 << 20
"""Tables, vectors and names may add up to this many times the file, plus an allowance.

Offsets may point at one another's targets, so a small file could otherwise declare a huge structure.
"""

_LAYOUTS = {code: struct.Struct(f"<{code}") for code in "bBhHiIqQ"}
_REPAIR = "the file is truncated or damaged: download or convert it again"


@dataclass(eq=False)
class Allowance:
    """Bytes of structure that may still be decoded."""

    left: int


@dataclass(frozen=True, eq=False)
class Flat:
    """The bytes of one file and what may still be decoded of them."""

    path: Path
    data: Content
    """All bytes of the file, read as they are needed."""
    budget: Allowance = field(repr=False)

    @classmethod
    def over(cls, path: Path, data: Content) -> Flat:
        """A file whose structure has not been looked at yet."""
        return cls(path, data, Allowance(SHARED_FACTOR * len(data) + SHARED_ALLOWANCE))

    def need(self, offset: int, count: int, what: str) -> int:
        """`offset`, once `count` bytes from there on are known to exist. Raises Truncated."""
        if offset < 0 or count < 0 or offset + count > len(self.data):
            raise Truncated(
                self.path,
                f"{what} takes {count:,} bytes, and the file ends at {len(self.data):,}",
                offset=offset,
                hint=_REPAIR,
            )
        return offset

    def number(self, code: str, offset: int, what: str) -> int:
        """One integer of `struct` code `code`. Raises Truncated."""
        layout = _LAYOUTS[code]
        self.need(offset, layout.size, what)
        return self.data.unpack(layout, offset)

    def spend(self, count: int, offset: int, what: str) -> None:
        """Accounts for `count` decoded bytes. Raises TooLarge."""
        self.budget.left -= count
        if self.budget.left < 0:
            raise TooLarge(
                self.path,
                f"{what} makes the file declare over {SHARED_FACTOR} times its own size",
                offset=offset,
                hint="many offsets lead to the same place, which no converter writes",
            )

    def follow(self, offset: int, what: str) -> int:
        """Where the offset stored at `offset` leads. Raises Truncated, Malformed."""
        step = self.number("I", offset, f"the offset of {what}")
        if not 0 < step < 1 << 31:
            raise Malformed(self.path, f"the offset of {what} is {step}", offset=offset, hint=_REPAIR)
        return self.need(offset + step, 4, what)

    def table(self, offset: int, what: str) -> Table:
        """The table that starts at `offset`. Raises Truncated, Malformed, TooLarge."""
        vtable = offset - self.number("i", offset, what)
        size = self.number("H", vtable, f"the vtable of {what}")
        if size < 4 or size % 2:
            raise Malformed(self.path, f"the vtable of {what} is {size} bytes long", offset=vtable, hint=_REPAIR)
        self.need(vtable, size, f"the vtable of {what}")
        length = self.number("H", vtable + 2, what)
        if length < 4:
            raise Malformed(self.path, f"{what} is {length} bytes long", offset=vtable + 2, hint=_REPAIR)
        self.need(offset, length, what)
        self.spend(size, vtable, what)
        return Table(self, offset, length, vtable, size, what)

    def vector(self, offset: int, width: int, limit: int, what: str) -> tuple[int, int]:
        """(first byte, count) of the vector at `offset`, `width` bytes an element.

        Raises Truncated, and TooLarge where it has more than `limit` elements.
        """
        count = self.number("I", offset, f"the length of {what}")
        if count > limit:
            raise TooLarge(self.path, f"{what} has {count:,} entries, over {limit:,}", offset=offset, hint=_REPAIR)
        return self.need(offset + 4, count * width, what), count

    def string(self, offset: int, what: str) -> str:
        """The text at `offset`. Raises Truncated, Malformed, TooLarge."""
        start, count = self.vector(offset, 1, MAX_STRING, what)
        self.spend(count, offset, what)
        if self.number("B", start + count, what) != 0:
            raise Malformed(self.path, f"{what} does not end with a zero byte", offset=start + count, hint=_REPAIR)
        try:
            return bytes(self.data.read(start, count)).decode()
        except UnicodeDecodeError as error:
            raise Malformed(
                self.path, f"{what} is not UTF-8: {error.reason}", offset=start + error.start, hint=_REPAIR
            ) from error


@dataclass(frozen=True, eq=False)
class Table:
    """One table: fields by id, counted from 0 in the order of the schema (a union takes two: its type, its value)."""

    flat: Flat
    offset: int
    length: int
    vtable: int
    vtable_length: int
    what: str
    """What it is, for messages: "tensor 3 of subgraph 0"."""

    def malformed(self, reason: str) -> Malformed:
        """The error for what contradicts itself here."""
        hint = "the file is damaged: convert it again"
        return Malformed(self.flat.path, f"{self.what}: {reason}", offset=self.offset, hint=hint)

    def place(self, field_id: int, width: int) -> int | None:
        """Where field `field_id` is stored; None: it has its default. Raises Malformed."""
        entry = 4 + 2 * field_id
        if entry + 2 > self.vtable_length:
            return None
        step = self.flat.number("H", self.vtable + entry, self.what)
        if step == 0:
            return None
        if step < 4 or step + width > self.length:
            raise Malformed(
                self.flat.path,
                f"field {field_id} of {self.what} lies outside of it",
                offset=self.vtable + entry,
                hint=_REPAIR,
            )
        return self.offset + step

    def number(self, field_id: int, code: str, default: int = 0) -> int:
        """A scalar field of `struct` code `code`. Raises Malformed."""
        place = self.place(field_id, _LAYOUTS[code].size)
        return default if place is None else self.flat.number(code, place, self.what)

    def _target(self, field_id: int, what: str) -> int | None:
        place = self.place(field_id, 4)
        return None if place is None else self.flat.follow(place, what)

    def string(self, field_id: int, what: str) -> str:
        """A text field, "" where absent. Raises Truncated, Malformed, TooLarge."""
        target = self._target(field_id, f"{what} of {self.what}")
        return "" if target is None else self.flat.string(target, f"{what} of {self.what}")

    def table(self, field_id: int, what: str) -> Table | None:
        """A table field. Raises Truncated, Malformed, TooLarge."""
        target = self._target(field_id, f"{what} of {self.what}")
        return None if target is None else self.flat.table(target, f"{what} of {self.what}")

    def numbers(self, field_id: int, dtype: str, limit: int, what: str) -> NDArray[Any] | None:
        """(count,) read-only view of a vector of scalars, None where absent. Raises Truncated, Malformed, TooLarge."""
        target = self._target(field_id, f"{what} of {self.what}")
        if target is None:
            return None
        layout = np.dtype(dtype)
        start, count = self.flat.vector(target, layout.itemsize, limit, f"{what} of {self.what}")
        self.flat.spend(count * layout.itemsize, target, f"{what} of {self.what}")
        values: NDArray[Any] = np.frombuffer(self.flat.data.read(start, count * layout.itemsize), layout)
        return values

    def span(self, field_id: int, what: str) -> tuple[int, int]:
        """(first byte, count) of a vector of bytes that is not decoded, (0, 0) where absent. Raises Truncated."""
        target = self._target(field_id, f"{what} of {self.what}")
        return (0, 0) if target is None else self.flat.vector(target, 1, 1 << 31, f"{what} of {self.what}")

    def tables(self, field_id: int, limit: int, what: str) -> tuple[Table, ...]:
        """A vector of tables, empty where absent; each is named "<what> <number>". Raises ReadError."""
        target = self._target(field_id, f"the {what}s")
        if target is None:
            return ()
        start, count = self.flat.vector(target, 4, limit, f"the {what}s")
        self.flat.spend(4 * count, target, f"the {what}s")
        return tuple(
            self.flat.table(self.flat.follow(start + 4 * number, f"{what} {number}"), f"{what} {number}")
            for number in range(count)
        )
