"""One `.npy` array: its header, held against the bytes that are there before memory is taken."""

from __future__ import annotations

import math
import tokenize
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.sources.bundle.entry import possible

MAX_RANK = 32
"""numpy's, before its version 2."""

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    # differs from the second in the encoding of names of fields, of which an array of numbers has none
    (3, 0): np.lib.format.read_array_header_2_0,
}
_NUMPY_RAISES = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    SyntaxError,
    OverflowError,
    RecursionError,
    MemoryError,
    EOFError,
    tokenize.TokenError,
)
"""What numpy's parser of headers raises, which reads them as Python's literals."""


class NpyHeader(NamedTuple):
    """What a `.npy` declares of itself, believed so far as its own bytes bear it out."""

    shape: tuple[int, ...]
    fortran: bool
    """Whether in Fortran's order."""
    dtype: np.dtype[Any]
    size: int
    """Bytes of the values."""
    offset: int
    """Of the values, in the stream."""


def read_npy_header(stream: IO[bytes]) -> NpyHeader:
    """The header of the array that begins here. Raises ValueError where it is none, or none of plain values."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"it is of version {version[0]}.{version[1]}")
        shape, fortran, dtype = _HEADERS[version](stream)
    except _NUMPY_RAISES as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"its header is damaged: {reason}") from None
    if dtype.hasobject or dtype.names or dtype.subdtype or not dtype.itemsize:
        raise ValueError("it holds Python objects, records or nothing, not numbers")
    if not possible(shape) or len(shape) > MAX_RANK:
        raise ValueError(f"it has the impossible shape {_short(shape)}")
    return NpyHeader(shape, fortran, dtype, dtype.itemsize * math.prod(shape), stream.tell())


def npy_values(header: NpyHeader, data: bytes) -> NDArray[Any]:
    """The array, in the byte order of this machine, read-only. Raises ValueError where `data` is not its size."""
    if len(data) != header.size:
        raise ValueError(f"it holds {len(data):,} bytes of values and declares {header.size:,}")
    flat: NDArray[Any] = np.frombuffer(data, header.dtype)
    values = flat.reshape(header.shape[::-1]).T if header.fortran else flat.reshape(header.shape)
    values = values.astype(header.dtype.newbyteorder("="))
    values.setflags(write=False)
    return values


def _short(shape: tuple[int, ...]) -> str:
    told = [str(size) if abs(size) < 1 << 64 else "more than 2**64" for size in shape[:8]]
    return f"[{', '.join(told)}{', ...' if len(shape) > 8 else ''}]"
