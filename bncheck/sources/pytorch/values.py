"""What a pickle's names, calls and persistent ids stand for: tensors, plain containers, or inert objects.

Nothing here imports or calls what a pickle names: these functions are all that there is to make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bncheck.sources.bundle.entry import possible

_KEYS = (str, int, float, bool, bytes, type(None))
"""Types of keys: hashing a tuple of a million levels would overflow the interpreter's stack."""


DTYPES: Mapping[str, str] = {
    "Float": "float32",
    "Double": "float64",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
    "Untyped": "uint8",
}
"""torch.<type>Storage -> dtype of its elements."""


@dataclass(frozen=True)
class Symbol:
    """A class or function by its name ("torch._utils._rebuild_tensor_v2"), never imported."""

    path: str


@dataclass(eq=False)
class Built:
    """An object of a class that is not looked into: its state is kept, its class is a name."""

    of: str
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    """Of a mapping or, by place, of a sequence."""


@dataclass(frozen=True)
class Storage:
    """Elements that lie in the file under a key."""

    key: str
    dtype: str
    start: int = 0
    """First element, where the storage is a view of the one that the file holds."""
    size: int = 0
    """Elements."""


@dataclass(frozen=True, eq=False)
class Strided:
    """A tensor: a view of a storage. Offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


def made_by(function: Any, arguments: Any) -> Any:
    """What a call gives: a tensor, a plain container, or an inert object of that name."""
    of = function.path if isinstance(function, Symbol) else "?"
    arguments = arguments if isinstance(arguments, tuple) else ()
    make = _MAKES.get(of)
    made = None if make is None else make(*arguments) if len(arguments) in _COUNTS[of] else None
    return Built(of) if made is None else made


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    made: dict[Any, Any] = {}
    for pair in pairs if isinstance(pairs, list | tuple) else ():
        if isinstance(pair, list | tuple) and len(pair) == 2:
            fill(made, list(pair))
    return made


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> Strided | None:
    """torch._utils._rebuild_tensor and its second version: further arguments tell of gradients."""
    return _strided(storage, offset, shape, strides, None)


def _tensor_of_type(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> Strided | None:
    """torch._utils._rebuild_tensor_v3: an untyped storage, and a dtype."""
    dtype = rest[2] if len(rest) > 2 else None
    return _strided(storage, offset, shape, strides, dtype.path if isinstance(dtype, Symbol) else "?")


def _strided(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None) -> Strided | None:
    whole = isinstance(storage, Storage) and type(offset) is int and offset >= 0
    if not (whole and _counts(shape) and _counts(strides) and len(shape) == len(strides) and possible(shape)):
        return None
    return Strided(storage, offset, shape, strides, storage.dtype if dtype is None else dtype.rpartition(".")[2])


def _counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def _parameter(data: Any, *_rest: Any) -> Any:
    return data


def _of_subclass(function: Any, _of: Any, arguments: Any, *_rest: Any) -> Any:
    """torch._tensor._rebuild_from_type_v2: a tensor of a class of one's own."""
    return made_by(function, arguments) if function != Symbol("torch._tensor._rebuild_from_type_v2") else None


def _plain(value: Any = ()) -> Any:
    return value


_MAKES: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": lambda *_: {},
    "builtins.dict": _ordered,
    "torch.Size": _plain,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
}
_COUNTS: Mapping[str, range] = {
    "collections.OrderedDict": range(2),
    "collections.defaultdict": range(3),
    "builtins.dict": range(2),
    "torch.Size": range(2),
    "torch._utils._rebuild_tensor": range(4, 5),
    "torch._utils._rebuild_tensor_v2": range(4, 9),
    "torch._utils._rebuild_tensor_v3": range(7, 9),
    "torch._utils._rebuild_parameter": range(1, 4),
    "torch._utils._rebuild_parameter_with_state": range(1, 5),
    "torch._tensor._rebuild_from_type_v2": range(3, 5),
}
"""How many arguments each takes."""


def storage_of(identity: Any) -> Any:
    """The storage that a persistent id names: ("storage", type, key, location, size[, view])."""
    if not (isinstance(identity, tuple) and len(identity) in (5, 6) and identity[0] == "storage"):
        return Built("?")
    of, key, size, view = identity[1], identity[2], identity[4], identity[5] if len(identity) == 6 else None
    name = of.path.rpartition(".")[2].removesuffix("Storage") if isinstance(of, Symbol) else ""
    if not isinstance(key, str) or type(size) is not int or not 0 <= size < 1 << 48:
        return Built("?")
    dtype = DTYPES.get(name, name or "?")
    if view is None:
        return Storage(key, dtype, 0, size)
    if not (_counts(view[1:]) and len(view) == 3) if isinstance(view, tuple) else True:
        return Built("?")
    return Storage(key, dtype, view[1], view[2])


def fill(into: Any, values: list[Any]) -> None:
    """Pairs into a mapping; what is no key that people use is left out, with its value."""
    if isinstance(into, Built):
        into = into.items
    if isinstance(into, dict):
        into.update((key, value) for key, value in zip(values[::2], values[1::2], strict=False) if type(key) in _KEYS)
