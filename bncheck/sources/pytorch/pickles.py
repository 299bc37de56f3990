"""Pickles as data: a stack machine that builds containers, numbers, texts and tensors, and nothing else.

Python's own unpickler imports and calls whatever a pickle names, so that to load one is to run it. Here a name stays a
name (`Symbol`), and what a pickle would have its class or function make becomes an inert `Built`. Only tensors and
plain containers are made, by the functions below. Opcodes are parsed by the standard library's `pickletools`.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bncheck.facts.errors import Malformed, TooLarge, Unsupported
from bncheck.sources.pytorch.values import Built, Storage, Symbol, fill, made_by, storage_of

_MAX_OBJECTS = 1 << 22
"""Opcodes of a pickle; torchvision's MobileNetV2 with Adam's state has 25,000."""
_PARSER_RAISES = (ValueError, EOFError, OverflowError, IndexError, struct.error, MemoryError)
"""What `pickletools` raises on bytes that are no pickle; UnicodeDecodeError is a ValueError."""


class _Mark:
    """Where the arguments of an opcode begin on the stack."""


_MARK = _Mark()


@dataclass(frozen=True, eq=False)
class Pickled:
    """What a pickle describes, and the storages that it names, by their keys."""

    value: Any
    storages: Mapping[str, Storage]


def read_pickle(stream: io.BytesIO, path: Path, *, base: int = 0) -> Pickled:
    """The next pickle of a stream, which is left behind it; `base`: where the stream begins in the file, for errors.

    Raises Malformed where it is damaged, TooLarge above four million opcodes, and Unsupported for what needs more than
    the file.
    """
    start = stream.tell()
    machine = _Machine(path, base + start)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of escapes that mean nothing
            for count, (opcode, argument, place) in enumerate(pickletools.genops(stream)):
                if count > _MAX_OBJECTS:
                    raise TooLarge(path, f"its pickle has more than {_MAX_OBJECTS:,} opcodes", offset=base + start)
                machine.at = (place or 0) - start
                machine.run(opcode.name, argument)
    except _PARSER_RAISES as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Malformed(path, f"its pickle is damaged: {reason}", offset=base + start + machine.at) from None
    return Pickled(machine.result, machine.storages)


class _Machine:
    """The stack and the memo of a pickle that is read."""

    def __init__(self, path: Path, base: int) -> None:
        self._path, self._base = path, base
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.at = 0
        """Bytes of the pickle before the opcode."""
        self.result: Any = None

    def run(self, name: str, argument: Any) -> None:
        """One opcode. Raises Malformed, Unsupported."""
        if name in _PUSHES:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif name not in _IGNORED:
            act = _ACTS.get(name)
            if act is None:
                raise Unsupported(self._path, f"its pickle has the opcode {name}", offset=self._base + self.at)
            act(self, argument)

    def pop(self) -> Any:
        """The topmost value; raises Malformed where there is none."""
        if not self._stack or self._stack[-1] is _MARK:
            raise self.damaged("takes a value from an empty stack")
        return self._stack.pop()

    def top(self) -> Any:
        """The topmost value, left where it is."""
        value = self.pop()
        self._stack.append(value)
        return value

    def drop(self) -> None:
        """Takes the topmost value off, or a mark."""
        if self._stack:
            self._stack.pop()

    def push(self, value: Any) -> None:
        """Onto the stack."""
        self._stack.append(value)

    def since_mark(self) -> list[Any]:
        """What lies above the last mark, both taken off."""
        values: list[Any] = []
        while self._stack:
            value = self._stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise self.damaged("lacks a mark")

    def put(self, number: int) -> None:
        """The topmost value under a number."""
        self._memo[number] = self.top()

    def memoize(self) -> None:
        """The topmost value under the next number."""
        self._memo[len(self._memo)] = self.top()

    def get(self, number: int) -> None:
        """A value by its number."""
        if number not in self._memo:
            raise self.damaged(f"refers to value {number}, which it has not")
        self._stack.append(self._memo[number])

    def damaged(self, what: str) -> Malformed:
        """The error for a pickle that no pickler wrote."""
        return Malformed(self._path, f"its pickle {what}", offset=self._base + self.at)


_PUSHES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    "UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT".split()
)
_IGNORED = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}


def _stop(machine: _Machine, _: Any) -> None:
    machine.result = machine.pop()


def _drop(machine: _Machine, _: Any) -> None:
    machine.drop()


def _drop_all(machine: _Machine, _: Any) -> None:
    machine.since_mark()


def _tuple_of(count: int) -> Callable[[_Machine, Any], None]:
    def act(machine: _Machine, _: Any) -> None:
        values = [machine.pop() for _ in range(count)]
        machine.push(tuple(values[::-1]))

    return act


def _dict(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    made: dict[Any, Any] = {}
    fill(made, values)
    machine.push(made)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.pop(), machine.pop()
    fill(machine.top(), [key, value])


def _set_items(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    fill(machine.top(), values)


def _extend(into: Any, values: list[Any]) -> None:
    if isinstance(into, list):
        into.extend(values)
    elif isinstance(into, Built):
        into.items.update(enumerate(values, len(into.items)))


def _append(machine: _Machine, _: Any) -> None:
    value = machine.pop()
    _extend(machine.top(), [value])


def _append_all(machine: _Machine, _: Any) -> None:
    values = machine.since_mark()
    _extend(machine.top(), values)


def _global(machine: _Machine, argument: str) -> None:
    machine.push(Symbol(argument.replace(" ", ".")))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(Symbol(f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"))


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.push(made_by(function, arguments))


def _new(machine: _Machine, _: Any) -> None:
    arguments, of = machine.pop(), machine.pop()
    machine.push(made_by(of, arguments))


def _new_with_keywords(machine: _Machine, _: Any) -> None:
    machine.pop()
    _new(machine, None)


def _instance(machine: _Machine, argument: str) -> None:
    machine.push(made_by(Symbol(argument.replace(" ", ".")), tuple(machine.since_mark())))


def _object(machine: _Machine, _: Any) -> None:
    of, *arguments = machine.since_mark() or [None]
    machine.push(made_by(of, tuple(arguments)))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.pop()
    if isinstance(machine.top(), Built):
        machine.top().state = state


def _persistent(machine: _Machine, argument: Any) -> None:
    storage = storage_of(argument)
    if isinstance(storage, Storage):
        machine.storages[storage.key] = storage
    machine.push(storage)


def _binary_persistent(machine: _Machine, _: Any) -> None:
    _persistent(machine, machine.pop())


def _extension(machine: _Machine, argument: Any) -> None:
    machine.push(Symbol(f"extension {argument}"))


_ACTS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "STOP": _stop,
    "POP": _drop,
    "POP_MARK": _drop_all,
    "DUP": lambda machine, _: machine.push(machine.top()),
    "PUT": lambda machine, number: machine.put(number),
    "BINPUT": lambda machine, number: machine.put(number),
    "LONG_BINPUT": lambda machine, number: machine.put(number),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "GET": lambda machine, number: machine.get(number),
    "BINGET": lambda machine, number: machine.get(number),
    "LONG_BINGET": lambda machine, number: machine.get(number),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": lambda machine, _: machine.push(machine.since_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.since_mark()),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "APPEND": _append,
    "APPENDS": _append_all,
    "ADDITEMS": _append_all,
    "BYTEARRAY8": lambda machine, argument: machine.push(bytes(argument)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new,
    "NEWOBJ_EX": _new_with_keywords,
    "INST": _instance,
    "OBJ": _object,
    "BUILD": _build,
    "PERSID": _persistent,
    "BINPERSID": _binary_persistent,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
}
