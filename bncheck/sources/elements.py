"""Elements of tensors as formats store them -> numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYOUTS: Mapping[str, str] = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",
    "complex64": "c8",
    "complex128": "c16",
}
"""Name of an element type -> how an element is laid out, as numpy writes it but for the byte order."""


def decoded(stored: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Elements as stored -> their values, read-only, in this machine's byte order; bfloat16 is widened to float32."""
    values = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if dtype == "bfloat16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "bool":
        values = values != 0
    values.setflags(write=False)
    return values
