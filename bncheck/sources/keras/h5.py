"""HDF5 as Keras uses it: attributes, groups and datasets, read lazily and never out of the file."""

from __future__ import annotations

import atexit
import gc
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, ReadError, TooLarge, Truncated, Unsupported
from bncheck.sources.content import Content
from bncheck.sources.keras.h5_header import Heaps, stored_texts
from bncheck.sources.raw import RawTensor

MAGIC = b"\x89HDF\r\n\x1a\n"
"""Stands at byte 0, 512, 1024, 2048, ... (a user block may precede it)."""

MAX_TENSOR_BYTES = 1 << 32
"""Largest tensor that is read into memory."""

MAX_SPARE_CHUNK = 1 << 24
"""Largest chunk of a dataset that is smaller than it: chunks are unpacked as a whole."""

MAX_OBJECTS = 200_000
"""Groups and datasets walked in one file."""

MAX_EXPANSION = 1100
"""Declared bytes per stored byte; DEFLATE cannot exceed 1032."""

_H5PY_RAISES = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on damaged files, found by flipping bits (tests/sources/test_keras_fuzz.py)."""

_STORED_END = re.compile(r"truncated file: eof = (\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class H5File:
    """An open file; `root` is h5py's."""

    path: Path
    content: Content
    base: int
    """Where HDF5's addresses count from: behind the user block."""
    root: Any
    heaps: Heaps = field(default_factory=dict)


def _h5py() -> Any:
    import h5py  # noqa: PLC0415 -- takes 0.15 s, which only Keras files shall cost

    return h5py


class Window(io.RawIOBase):
    """Random access to a file or a part of one; a read past its end is an error, never a short read.

    h5py takes a short read for a full one and would hand out whatever the buffer held.
    """

    def __init__(self, content: Content) -> None:
        super().__init__()
        self._content = content
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Current position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves; past the end is allowed, as in files."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._content)}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the whole buffer or raises OSError."""
        end = self._position + len(buffer)
        if end > len(self._content):
            raise OSError(f"truncated file: eof = {len(self._content)}, read to {end}")
        buffer[:] = self._content.read(self._position, len(buffer))
        self._position = end
        return len(buffer)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """The one place where h5py's exceptions become ReadError: Truncated, Malformed."""
    try:
        yield
    except ReadError:
        raise
    except _H5PY_RAISES as error:
        reason = " ".join(str(error).split())[:200]
        stored_end = _STORED_END.search(reason)
        if stored_end:
            raise Truncated(
                path, f"the file ends inside {what}", offset=int(stored_end[1]), hint="copy the file again"
            ) from error
        raise Malformed(path, f"{what} is damaged: {reason or type(error).__name__}") from error


def starts_hdf5(head: bytes) -> bool:
    """Whether these first bytes are those of an HDF5 file without a user block."""
    return head.startswith(MAGIC)


def holds_hdf5(content: Content) -> bool:
    """Whether an HDF5 signature stands where one may stand: at byte 0 or at a power of two from 512 on."""
    offset = 0
    while offset < len(content):
        if content[offset : offset + len(MAGIC)] == MAGIC:
            return True
        offset = offset * 2 or 512
    return False


def open_file(path: Path, content: Content) -> H5File:
    """The file over these bytes; without locks, so that one in use or on a read-only disk opens too.

    Raises Truncated, Malformed.
    """
    with reading(path, "the HDF5 file"):
        try:
            root = _h5py().File(Window(content), mode="r")
        except _H5PY_RAISES:
            # the error's frames hold what HDF5 otherwise asks Python for once Python is gone, and crashes
            atexit.register(gc.collect)
            raise
        _close_at_exit()
        if root.id.get_create_plist().get_sizes() != (8, 8):
            raise ValueError("its addresses are not of 8 bytes, as Keras writes them")
        return H5File(path=path, content=content, base=int(root.userblock_size), root=root)


@cache
def _close_at_exit() -> None:
    """HDF5 closes what is left open only when Python is gone, and a file over a Python object then ends in a crash."""
    atexit.register(_close_all)


def _close_all() -> None:
    h5py = _h5py()
    for number in h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE):
        if number.get_access_plist().get_driver() == h5py.h5fd.fileobj_driver:
            h5py.File(number).close()


def attribute(file: H5File, group: Any, name: str) -> Any:
    """An attribute's value, None where there is none; its size is checked before memory is taken.

    Raises Unsupported, TooLarge, and what `reading` raises.
    """
    with reading(file.path, f"attribute {name!r}"):
        if name not in group.attrs:
            return None
        found = _h5py().h5a.open(group.id, name.encode())
        size = int(np.prod(found.shape or (1,), dtype=np.float64)) * found.dtype.itemsize
        if found.dtype.hasobject:
            address = address_of(group)
            texts = stored_texts(file.content.part(file.base, len(file.content) - file.base), address, name, file.heaps)
            if texts is not None:
                return np.array(texts, dtype=object)
        elif size <= len(file.content):
            return group.attrs[name]
    if found.dtype.hasobject:
        raise Unsupported(file.path, f"attribute {name!r} is stored as Keras never stores it", hint="save it again")
    raise TooLarge(file.path, f"attribute {name!r} declares {size:,} bytes, which the file cannot hold")


def text_attribute(file: H5File, group: Any, name: str) -> str | None:
    """A text attribute (bytes or str, by Keras version), None where there is none. Raises as `attribute`."""
    value = attribute(file, group, name)
    if value is None:
        return None
    items = np.asarray(value).reshape(-1).tolist()
    if len(items) != 1 or not isinstance(items[0], (str, bytes)):
        raise Malformed(file.path, f"attribute {name!r} is not text")
    return items[0] if isinstance(items[0], str) else _decoded(file, name, items[0])


def names_attribute(file: H5File, group: Any, name: str) -> tuple[str, ...] | None:
    """A list of names, None where there is none; lists above 64 KB lie in `name0`, `name1`, ..."""
    value = attribute(file, group, name)
    if value is not None:
        return _names(file, name, value)
    parts: list[str] = []
    index = 0
    while (value := attribute(file, group, f"{name}{index}")) is not None:
        parts.extend(_names(file, name, value))
        index += 1
    return tuple(parts) if index else None


def _names(file: H5File, name: str, value: Any) -> tuple[str, ...]:
    items = np.asarray(value).reshape(-1).tolist()
    if items and not all(isinstance(item, (str, bytes)) for item in items):
        raise Malformed(file.path, f"attribute {name!r} is not a list of names")
    return tuple(item if isinstance(item, str) else _decoded(file, name, item) for item in items)


def _decoded(file: H5File, name: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Malformed(file.path, f"attribute {name!r} is not UTF-8 text") from error


def descend(file: H5File, group: Any, name: str) -> Any:
    """The object at "a/b/c" below a group, None where there is none. Raises Unsupported for any link but a hard one."""
    h5py, found = _h5py(), group
    for part in name.split("/"):
        if part in ("", "."):
            continue
        with reading(file.path, f"group {found.name!r}"):
            # h5py's own look-up takes eight times as long, and asks several times
            if not isinstance(found, h5py.Group):
                return None
            key = part.encode()
            if not found.id.links.exists(key):
                return None
            link = found.id.links.get_info(key).type
            if link == h5py.h5l.TYPE_HARD:
                inner = h5py.h5o.open(found.id, key)
                found = _WRAPPED.get(type(inner).__name__, h5py.Datatype)(inner)
                continue
            where = f"{found.name}/{part}"
        kind = {h5py.h5l.TYPE_SOFT: "SoftLink", h5py.h5l.TYPE_EXTERNAL: "ExternalLink"}.get(link, "a link of its own")
        raise Unsupported(file.path, f"{where!r} is a link to elsewhere ({kind}), which bncheck never follows")
    return found


_WRAPPED: Mapping[str, Callable[[Any], Any]] = {
    "GroupID": lambda found: _h5py().Group(found),
    "DatasetID": lambda found: _h5py().Dataset(found),
}


def is_dataset(found: Any) -> bool:
    """Whether it is a dataset, not a group or None."""
    return isinstance(found, _h5py().Dataset)


def is_group(found: Any) -> bool:
    """Whether it is a group, not a dataset or None."""
    return isinstance(found, _h5py().Group)


def address_of(found: Any) -> int:
    """Where the object's header stands, counted as HDF5 counts: the same for all links to it."""
    return int(_h5py().h5o.get_info(found.id).addr)


def members(file: H5File, group: Any) -> tuple[str, ...]:
    """Names of a group's members, in the file's order. Raises Malformed, Truncated."""
    with reading(file.path, f"group {group.name!r}"):
        if len(group) > MAX_OBJECTS:
            raise OverflowError(f"{len(group):,} members")
        names = tuple(group)
    if not all(isinstance(name, str) for name in names):
        raise Malformed(file.path, f"group {group.name!r} has a member whose name is not UTF-8 text")
    return names


def tensor(file: H5File, dataset: Any, name: str) -> RawTensor:
    """The dataset as a lazy tensor. Raises Unsupported where its data lies in other files."""
    h5py, where = _h5py(), f"dataset {name!r}"
    with reading(file.path, where):
        plain = _plain(file, dataset.id, name)
        if plain is not None:
            return plain
        stored, plan, place = dataset.id.dtype, dataset.id.get_create_plist(), str(dataset.name)
        # opaque two-byte values, marked by Keras
        brain = stored.kind == "V" and stored.itemsize == 2 and "dtype" in dataset.attrs
        dtype = "bfloat16" if brain else stored.newbyteorder("=").name
        numeric = brain or stored.kind in "biuf"
        shape = None if dataset.shape is None else tuple(int(length) for length in dataset.shape)
        outside = plan.get_external_count() > 0 or plan.get_layout() == h5py.h5d.VIRTUAL
    if outside:
        raise Unsupported(file.path, f"{where} keeps its data in other files, which bncheck never follows")
    if shape is None:
        raise Malformed(file.path, f"{where} has no shape")

    def read() -> NDArray[Any]:
        with reading(file.path, where):
            # opened anew: HDF5 keeps 20 KB for each dataset that is open
            opened = h5py.Dataset(h5py.h5d.open(file.root.id, place.encode()))
            _check_size(file, opened, where)
            values = np.asarray(opened[()])
        if brain:
            values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        values.setflags(write=False)
        return values

    unavailable = None if numeric else f"its type {dataset.dtype} is not a number"
    return RawTensor(
        name=name,
        dtype=dtype,
        shape=shape,
        read=read,
        unavailable=unavailable,
        location=(file.path, place),
    )


def _plain(file: H5File, dataset: Any, name: str) -> RawTensor | None:
    """A dataset of float32 that stands in the file as it is, as nearly all do, which needs HDF5 no more; None else.

    HDF5 gives a place only to data in one piece, unpacked, of this very file.
    """
    start, h5py = dataset.get_offset(), _h5py()
    if start is None or dataset.get_type() != h5py.h5t.IEEE_F32LE:
        return None
    shape = dataset.shape
    size = 4 * math.prod(shape)
    if size != dataset.get_storage_size() or not 0 < size <= MAX_TENSOR_BYTES or start + size > len(file.content):
        return None

    def read() -> NDArray[Any]:
        values: NDArray[Any] = np.frombuffer(file.content.read(start, size), "<f4").reshape(shape)
        values = values.astype(np.float32, copy=False)
        values.setflags(write=False)
        return values

    place = h5py.h5i.get_name(dataset).decode("utf-8", "surrogateescape")
    return RawTensor(name=name, dtype="float32", shape=shape, read=read, location=(file.path, place))


def _check_size(file: H5File, dataset: Any, where: str) -> None:
    """Raises TooLarge, or Malformed where fewer bytes are stored than declared (HDF5 would fill in zeros)."""
    with reading(file.path, where):
        width, plan = dataset.id.dtype.itemsize, dataset.id.get_create_plist()
        declared = math.prod(dataset.id.shape) * width
        stored = int(dataset.id.get_storage_size())
        filtered = plan.get_nfilters() > 0
        chunk = math.prod(plan.get_chunk()) * width if plan.get_layout() == _h5py().h5d.CHUNKED else 0
    if declared > MAX_TENSOR_BYTES:
        raise TooLarge(file.path, f"{where} declares {declared:,} bytes; bncheck reads at most {MAX_TENSOR_BYTES:,}")
    if chunk > max(declared, MAX_SPARE_CHUNK):
        raise TooLarge(file.path, f"{where} declares chunks of {chunk:,} bytes for {declared:,}")
    if filtered and declared > MAX_EXPANSION * stored:
        raise TooLarge(file.path, f"{where} declares {declared:,} bytes but stores no more than {stored:,}")
    if not filtered and declared > stored:
        raise Malformed(file.path, f"{where} declares {declared:,} bytes but stores only {stored:,}")
