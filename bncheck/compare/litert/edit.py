"""TFLite files changed so that they show what happens inside: all tensors as outputs, operators off the chain."""

from __future__ import annotations

import importlib
import importlib.util
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bncheck.facts.errors import BncheckError, Malformed
from bncheck.facts.extras import install

_SCHEMAS = ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated")
_IDENTIFIER = b"TFL3"
SERVING = "serving_default"
"""Name of the signature that serves, unless a file says otherwise."""
_OUTPUTS = 8
"""Where a subgraph's vtable has its outputs, the third of its fields."""

_Key = TypeVar("_Key")

Reading = tuple[int, int]
"""(operator, position among its inputs) in the main subgraph."""


def load(content: bytes) -> Any:
    """The file as a `ModelT` of TensorFlow's schema, to be changed; its structure must have been checked before.

    What lies behind the flatbuffer, as ai-edge-quantizer writes every constant, is taken into it: `offset` and `size`
    of the schema count from the file's start, where nothing is after an edit.
    """
    schema = _schema()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    for buffer in model.buffers or ():
        _take_in(buffer, content, "data", "offset", "size")
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            _take_in(operator, content, "customOptions", "largeCustomOptionsOffset", "largeCustomOptionsSize")
    return model


def _take_in(holder: Any, content: bytes, data: str, offset: str, size: str) -> None:
    """Makes what a buffer or an operator has behind the flatbuffer its own; the schema of 2.12 knows no such place."""
    if not hasattr(holder, offset):
        return
    start, length = getattr(holder, offset), getattr(holder, size)
    if start > 1 and length > 0:  # 1 is the placeholder of the converter
        setattr(holder, data, np.frombuffer(content, np.uint8, length, start))
    setattr(holder, offset, 0)
    setattr(holder, size, 0)


def check(content: bytes, path: str | Path) -> None:
    """Raises Malformed where TensorFlow's schema, which looks at more than bncheck's reader, cannot read the file."""
    try:
        load(content)
    except _SCHEMA_RAISES as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Malformed(path, f"damaged: {reason}", hint="convert the model again") from error


_SCHEMA_RAISES = (
    struct.error,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)
"""What `flatbuffers` raises on offsets that lead nowhere: it believes them all."""


def dump(model: Any) -> bytes:
    """The file that a `ModelT` describes."""
    import flatbuffers  # noqa: PLC0415 - comes with TensorFlow and with LiteRT

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def quantization_parameters() -> Any:
    """Empty ones, to be filled in."""
    return _schema().QuantizationParametersT()


def _schema() -> Any:
    for name in _SCHEMAS:
        if importlib.util.find_spec(name.partition(".")[0]) is not None:
            return importlib.import_module(name)
    raise BncheckError(f"neither ai-edge-litert nor tensorflow is installed: {install('tf')}")


def show(content: bytes, tensors: Iterable[int]) -> bytes:
    """The file with `tensors` as further outputs: what is an output survives fusion and is not overwritten.

    The new list of outputs is put behind the file and pointed to, a hundredth of the time of `load` and `dump`.
    """
    graph = _schema().Model.GetRootAs(content, 0).Subgraphs(0)
    place = graph._tab.Pos + graph._tab.Offset(_OUTPUTS)
    numbers = _ordered([*_numbers(graph.OutputsAsNumpy()), *tensors])
    edited = bytearray(content)
    edited.extend(bytes(-len(edited) % 4))
    struct.pack_into("<I", edited, place, len(edited) - place)
    edited.extend(struct.pack(f"<I{len(numbers)}i", len(numbers), *numbers))
    return bytes(edited)


def exchanged(content: bytes, other: int) -> bytes:
    """The file with its first subgraph and another in each other's place; loops and branches know them by number."""
    model = load(content)
    graphs = model.subgraphs
    graphs[0], graphs[other] = graphs[other], graphs[0]
    for graph in graphs:
        for operator in graph.operators:
            options = operator.builtinOptions
            for name, number in () if options is None else tuple(vars(options).items()):
                if name.endswith("ubgraphIndex") or name == "subgraph":
                    setattr(options, name, {0: other, other: 0}.get(number, number))
    _forget_signatures(model)
    return dump(model)


def signed(content: bytes) -> tuple[bytes, dict[int, str]]:
    """The file with one signature, `SERVING`, of its first subgraph; gives the names of its inputs by tensor too.

    Of what the graph converter writes, which has none; names in it are those of the tensors, numbered where they are
    the same.
    """
    model = load(content)
    schema, graph = _schema(), model.subgraphs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = SERVING, 0
    signature.inputs = _named(schema, graph, graph.inputs)
    signature.outputs = _named(schema, graph, graph.outputs)
    model.signatureDefs = [signature]
    return dump(model), {entry.tensorIndex: entry.name for entry in signature.inputs}


def _named(schema: Any, graph: Any, numbers: Any) -> list[Any]:
    entries: dict[str, Any] = {}
    for number in _numbers(numbers):
        name = (graph.tensors[number].name or b"").decode(errors="replace")
        entry = schema.TensorMapT()
        entry.name, entry.tensorIndex = name if name and name not in entries else f"{name}_{number}", number
        entries[entry.name] = entry
    return list(entries.values())


def unchain(
    content: bytes, key: Callable[[Reading], _Key | None], tensors: Iterable[int]
) -> tuple[bytes, dict[_Key, int]]:
    """The file with operators that read from the outside and from each other no longer, and `tensors` as its outputs.

    Each reading for which `key` gives anything but None reads a fresh input of the tensor's type and shape, one for
    each different key. Operators that no output needs are taken out. Gives the file, and key -> number of its input
    tensor; the numbers of old tensors stay.
    """
    model = load(content)
    graph = model.subgraphs[0]
    fresh: dict[_Key, int] = {}
    for number, operator in enumerate(graph.operators):
        read = _numbers(operator.inputs)
        for position, tensor in enumerate(read):
            name = key((number, position)) if tensor >= 0 else None
            if name is None:
                continue
            if name not in fresh:
                fresh[name] = len(graph.tensors)
                graph.tensors.append(_twin_of(graph.tensors[tensor]))
            read[position] = fresh[name]
        operator.inputs = read
    graph.outputs = _ordered(tensors)
    needed = set(graph.outputs)
    kept = []
    for operator in reversed(graph.operators):
        if needed.intersection(_numbers(operator.outputs)):
            kept.append(operator)
            needed.update(_numbers(operator.inputs))
    graph.operators = kept[::-1]
    fresh = {name: number for name, number in fresh.items() if number in needed}
    graph.inputs = [number for number in _numbers(graph.inputs) if number in needed] + list(fresh.values())
    _forget_signatures(model)
    return dump(model), fresh


def free_batch(content: bytes) -> bytes:
    """A file of fixed batch 1 with the shapes of its RESHAPE operators left open along the first axis.

    A converter writes them as constants such as [1, 1024]; with -1 in place of the 1 they hold for any batch.
    """
    model = load(content)
    schema = _schema()
    graph = model.subgraphs[0]
    for operator in graph.operators:
        if _builtin(model.operatorCodes[operator.opcodeIndex]) != schema.BuiltinOperator.RESHAPE:
            continue
        read = _numbers(operator.inputs)
        if operator.builtinOptions is not None and operator.builtinOptions.newShape is not None:
            operator.builtinOptions.newShape = _opened(_numbers(operator.builtinOptions.newShape))
        if len(read) < 2 or read[1] < 0:
            continue
        held = model.buffers[graph.tensors[read[1]].buffer].data
        if held is None or len(held) == 0:
            continue
        sizes = np.asarray(held, np.uint8).view("<i4").tolist()
        buffer = type(model.buffers[0])()
        buffer.data = np.asarray(_opened(sizes), "<i4").view(np.uint8)
        model.buffers.append(buffer)
        shape = _twin_of(graph.tensors[read[1]])
        shape.buffer = len(model.buffers) - 1
        graph.tensors.append(shape)
        read[1] = len(graph.tensors) - 1
        operator.inputs = read
    return dump(model)


def _opened(sizes: list[int]) -> list[int]:
    return [-1, *sizes[1:]] if sizes and sizes[0] == 1 and -1 not in sizes else sizes


def _builtin(code: Any) -> int:
    return max(int(code.deprecatedBuiltinCode), int(code.builtinCode))


def _twin_of(tensor: Any) -> Any:
    """A tensor of the same type, shape and quantization, without data."""
    twin = type(tensor)()
    for name, value in vars(tensor).items():
        setattr(twin, name, value)
    twin.buffer = 0
    twin.isVariable = False
    return twin


def _numbers(vector: Any) -> list[int]:
    return [] if vector is None else [int(number) for number in vector]


def _ordered(numbers: Iterable[int]) -> list[int]:
    return list(dict.fromkeys(int(number) for number in numbers))


def _forget_signatures(model: Any) -> None:
    """Signatures name inputs and outputs that are others now."""
    model.signatureDefs = None
