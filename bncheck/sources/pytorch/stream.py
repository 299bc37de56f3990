"""PyTorch's files before 1.6: five pickles one behind the other, then the storages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from bncheck.facts.errors import Malformed, TooLarge, Truncated, Unsupported
from bncheck.sources.elements import LAYOUTS
from bncheck.sources.files import RangedFile, opened, require_file
from bncheck.sources.pytorch.pickles import Pickled, read_pickle
from bncheck.sources.pytorch.tensors import StoredBytes

_MAGIC = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""0x1950a86a20f9469cfc6c as a pickle's LONG1; torch/serialization.py, MAGIC_NUMBER."""
_PROTOCOL = 1001
_PICKLES = 5
"""The magic number, the protocol, what system wrote it, the object, and the keys of the storages in their order."""
_READ = (1 << 20, 1 << 28)
"""Bytes read in search of them: few, and if they do not end in these, the most that is read."""
_COUNT = 8
"""Bytes that tell how many elements a storage has."""


def is_stream(head: bytes) -> bool:
    """Whether a file begins as `torch.save` began it: with a pickle of the magic number."""
    return head[:1] == b"\x80" and _MAGIC in head[:16]


def read_stream(path: Path) -> tuple[Any, dict[str, StoredBytes]]:
    """(the object that was saved, where each storage lies). Raises Malformed, Truncated, TooLarge, Unsupported."""
    (_, protocol, system, saved, keys), at = _pickles(path)
    if protocol.value != _PROTOCOL:
        raise Unsupported(path, f"version {protocol.value!r} of PyTorch's format", hint="save it anew with torch.save")
    if not isinstance(system.value, dict) or not isinstance(keys.value, list):
        raise Malformed(path, "it does not tell its byte order and its storages", offset=at)
    big_endian, length = system.value.get("little_endian") is False, require_file(path).st_size
    return saved.value, _places(RangedFile(path), at, keys.value, saved, length, big_endian=big_endian)


def _pickles(path: Path) -> tuple[list[Pickled], int]:
    """The pickles, and where the storages begin."""
    for most in _READ:
        with opened(path) as (file, length):
            stream = io.BytesIO(file.read(min(length, most)))
        try:
            return [read_pickle(stream, path) for _ in range(_PICKLES)], stream.tell()
        except Malformed:
            if length <= most:
                raise
    raise TooLarge(path, f"its pickles are damaged, or have more than {_READ[-1]:,} bytes")


def _places(
    file: RangedFile, at: int, keys: list[Any], saved: Pickled, length: int, *, big_endian: bool
) -> dict[str, StoredBytes]:
    """Storages in the order of their keys, each behind its count of elements."""
    places = {}
    for key in keys:
        storage = saved.storages.get(key) if isinstance(key, str) else None
        layout = "" if storage is None else LAYOUTS.get(storage.dtype, "")
        if not layout:
            raise Unsupported(file.path, f"storage {key!r} is of no type that bncheck reads", offset=at)
        count = int.from_bytes(file.read(at, _COUNT, what=f"storage {key}"), "big" if big_endian else "little")
        place = StoredBytes(file, at + _COUNT, count * int(layout[1:]), None, big_endian)
        if place.size > length - place.start:
            reason = f"storage {key} has {place.size:,} bytes, of which {max(length - place.start, 0):,} are there"
            raise Truncated(file.path, reason, offset=at, hint="copy the file again")
        places[key] = place
        at = place.start + place.size
    return places
