"""TFLite files: tensors, operators, scales and zero points, read from the flatbuffer without executing anything.

Data stays in the file until a tensor's `read()`. What contradicts itself is refused as TensorFlow's own
interpreter refuses it (`tensorflow/lite/core/interpreter_builder.cc`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.errors import Malformed, Truncated, Unsupported
from bncheck.facts.formats import FileKind, Format
from bncheck.sources.content import Content
from bncheck.sources.raw import (
    RawLite,
    RawLiteOperator,
    RawLiteSubgraph,
    RawLiteTensor,
    RawModel,
    RawQuantization,
    RawTensor,
)
from bncheck.sources.tflite import schema
from bncheck.sources.tflite.blocks import in_blocks
from bncheck.sources.tflite.flatbuffer import Flat, Table
from bncheck.sources.tflite.signatures import signatures

MAX_ENTRIES = 1 << 20
"""Tensors, operators, buffers or subgraphs of one file."""
MAX_OPERANDS = 1 << 16
"""Inputs or outputs of one operator or subgraph, and scales of one tensor."""
MAX_RANK = 64

_BITS = {"int4": 4, "uint4": 4, "int2": 2}
"""Types that share bytes, lowest bits first."""
_NO_BYTES = frozenset({"resource", "variant"})
_UNREAD = frozenset({"float8_e4m3fn", "float8_e5m2"})


Reader: TypeAlias = Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Span:
    """Bytes of one buffer, known to lie inside the file."""

    start: int
    size: int


@dataclass(frozen=True, eq=False)
class Store:
    """The buffers, and who reads them: tensors that share a buffer, type and shape share the reader."""

    spans: tuple[Span, ...]
    readers: dict[tuple[int, str, tuple[int, ...]], Reader | None]


def matches(path: Path, head: bytes) -> bool:
    """Whether the content carries TFLite's identifier at byte 4."""
    del path
    return head[4:8] == schema.IDENTIFIER


def read_lite(path: Path | str) -> RawModel:
    """The TFLite file at `path`, its structure checked whole, its tensor data not read.

    Raises NotFound, Unreadable, Truncated, Malformed, TooLarge, Unsupported.
    """
    path = Path(path)
    return parse_lite(path, Content.of_file(path))


def parse_lite(path: Path, content: Content | bytes | memoryview) -> RawModel:
    """As `read_lite`, of bytes at hand; errors name `path`. Raises Truncated, Malformed, Unsupported."""
    flat = Flat.over(path, content if isinstance(content, Content) else Content.over(path, content))
    if len(flat.data) < 8:
        raise Truncated(path, f"{len(flat.data)} bytes are too few for a TFLite file", offset=0)
    if flat.data[4:8] != schema.IDENTIFIER:
        raise Malformed(path, "no TFLite identifier (TFL3) at byte 4", offset=4, hint="is this a TFLite file?")
    model = flat.table(flat.follow(0, "the model"), "the model")
    version = model.number(schema.Model.VERSION, "I")
    if version != schema.VERSION:
        raise Unsupported(
            path,
            f"schema version {version} of TFLite",
            offset=model.offset,
            hint=f"version {schema.VERSION} is read: convert the model again",
        )
    store = Store(tuple(_span(table) for table in model.tables(schema.Model.BUFFERS, MAX_ENTRIES, "buffer")), {})
    kinds = tuple(_kind(table) for table in model.tables(schema.Model.OPERATOR_CODES, MAX_ENTRIES, "operator code"))
    subgraphs = tuple(
        _subgraph(table, store, kinds) for table in model.tables(schema.Model.SUBGRAPHS, MAX_ENTRIES, "subgraph")
    )
    if not subgraphs:
        raise Malformed(path, "the file holds no subgraph", offset=model.offset)
    metadata = tuple(
        table.string(schema.Metadata.NAME, "the name")
        for table in model.tables(schema.Model.METADATA, MAX_ENTRIES, "metadata entry")
    )
    description = model.string(schema.Model.DESCRIPTION, "the description")
    lite = RawLite(
        version=version,
        description=description,
        subgraphs=subgraphs,
        metadata=metadata,
        signatures=signatures(model, subgraphs),
    )
    return RawModel(path=path, format=Format(FileKind.TFLITE), lite=lite, notes=_notes(lite))


def _span(buffer: Table) -> Span:
    """Where a buffer's bytes are: its own vector, or `offset` and `size` from the file's start.

    The latter behind the flatbuffer: of files beyond 2 GB, and of all that ai-edge-quantizer writes.
    """
    behind = _behind(buffer, schema.Buffer.OFFSET, schema.Buffer.SIZE, "the data")
    return behind or Span(*buffer.span(schema.Buffer.DATA, "the data"))


def _behind(table: Table, offset_field: int, size_field: int, what: str) -> Span | None:
    """Bytes that a table has behind the flatbuffer, None where it has none there. Raises Truncated."""
    offset, size = table.number(offset_field, "Q"), table.number(size_field, "Q")
    # The converter writes 1 as a placeholder; like the interpreter, take anything above it as a place.
    if offset > 1 and size > 0:
        return Span(table.flat.need(offset, size, f"{what} of {table.what}"), size)
    return None


def _kind(code: Table) -> str:
    """An operator's name: builtin, or the custom code. The higher of two numbers counts, as in `GetBuiltinCode`."""
    number = max(
        code.number(schema.OperatorCode.DEPRECATED_BUILTIN_CODE, "b"),
        code.number(schema.OperatorCode.BUILTIN_CODE, "i"),
    )
    if number == schema.CUSTOM:
        return code.string(schema.OperatorCode.CUSTOM_CODE, "the custom code") or "CUSTOM"
    known = 0 <= number < len(schema.BUILTIN_OPERATORS)
    return schema.BUILTIN_OPERATORS[number] if known else f"BUILTIN_{number}"


def _subgraph(table: Table, store: Store, kinds: tuple[str, ...]) -> RawLiteSubgraph:
    of = f" of {table.what}"
    entries = table.tables(schema.SubGraph.TENSORS, MAX_ENTRIES, f"tensor{of},")
    tensors = tuple(_tensor(index, entry, store) for index, entry in enumerate(entries))
    tensors = tuple(in_blocks(*pair, tensors) for pair in zip(entries, tensors, strict=True))
    operators = tuple(
        _operator(index, entry, kinds, len(tensors))
        for index, entry in enumerate(table.tables(schema.SubGraph.OPERATORS, MAX_ENTRIES, f"operator{of},"))
    )
    return RawLiteSubgraph(
        name=table.string(schema.SubGraph.NAME, "the name"),
        tensors=tensors,
        operators=operators,
        inputs=_operands(table, schema.SubGraph.INPUTS, "the inputs", len(tensors)),
        outputs=_operands(table, schema.SubGraph.OUTPUTS, "the outputs", len(tensors)),
    )


def _operands(table: Table, field_id: int, what: str, tensors: int) -> tuple[int, ...]:
    """Tensor numbers of an operator or subgraph; -1 is an absent optional one. Raises Malformed."""
    values = table.numbers(field_id, "<i4", MAX_OPERANDS, what)
    numbers = () if values is None else tuple(int(value) for value in values)
    for number in numbers:
        if not -1 <= number < tensors:
            raise table.malformed(f"{what} name tensor {number} of {tensors}")
    return numbers


def _operator(index: int, table: Table, kinds: tuple[str, ...], tensors: int) -> RawLiteOperator:
    code = table.number(schema.Operator.OPCODE_INDEX, "I")
    if code >= len(kinds):
        raise table.malformed(f"operator code {code} of {len(kinds)}")
    _behind(
        table,
        schema.Operator.LARGE_CUSTOM_OPTIONS_OFFSET,
        schema.Operator.LARGE_CUSTOM_OPTIONS_SIZE,
        "the custom options",
    )
    union = table.number(schema.Operator.BUILTIN_OPTIONS_TYPE, "B")
    activation, shuffled = "NONE", False
    if union in schema.FUSED_ACTIVATION:
        options = table.table(schema.Operator.BUILTIN_OPTIONS, "the options")
        if options is not None:
            number = options.number(schema.FUSED_ACTIVATION[union][1], "b")
            known = 0 <= number < len(schema.ACTIVATIONS)
            activation = schema.ACTIVATIONS[number] if known else f"ACTIVATION_{number}"
            shuffled = union == schema.FULLY_CONNECTED_OPTIONS and options.number(schema.WEIGHTS_FORMAT, "b") != 0
    return RawLiteOperator(
        index=index,
        kind=kinds[code],
        inputs=_operands(table, schema.Operator.INPUTS, "the inputs", tensors),
        outputs=_operands(table, schema.Operator.OUTPUTS, "the outputs", tensors),
        activation=activation,
        shuffled=shuffled,
    )


def _tensor(index: int, table: Table, store: Store) -> RawLiteTensor:
    name = table.string(schema.Tensor.NAME, "the name")
    shape = _shape(table, schema.Tensor.SHAPE, "the shape") or ()
    number = table.number(schema.Tensor.TYPE, "b")
    dtype = schema.TENSOR_TYPES[number] if 0 <= number < len(schema.TENSOR_TYPES) else f"type {number}"
    return RawLiteTensor(
        index=index,
        name=name,
        dtype=dtype,
        shape=shape,
        data=_constant(table, name, dtype, shape, store),
        quantization=_quantization(table, shape),
        shape_signature=_shape(table, schema.Tensor.SHAPE_SIGNATURE, "the shape signature"),
        is_variable=table.number(schema.Tensor.IS_VARIABLE, "B") != 0,
    )


def _shape(table: Table, field_id: int, what: str) -> tuple[int, ...] | None:
    values = table.numbers(field_id, "<i4", MAX_RANK, what)
    if values is None:
        return None
    shape = tuple(int(value) for value in values)
    if any(size < -1 for size in shape):
        raise table.malformed(f"{what} is {list(shape)}")
    return shape


def _quantization(table: Table, shape: tuple[int, ...]) -> RawQuantization | None:
    """Scales and zero points, None where there are none or another scheme (blockwise, custom) takes their place.

    Raises Malformed where their number fits neither the tensor nor one another, as `ParseQuantization` does.
    """
    entry = table.table(schema.Tensor.QUANTIZATION, "the quantization")
    if entry is None or entry.number(schema.QuantizationParameters.DETAILS_TYPE, "B") != 0:
        return None
    scales = entry.numbers(schema.QuantizationParameters.SCALE, "<f4", MAX_OPERANDS, "the scales")
    if scales is None or scales.size == 0:
        return None
    points = entry.numbers(schema.QuantizationParameters.ZERO_POINT, "<i8", MAX_OPERANDS, "the zero points")
    if points is None or points.size == 0:
        points = np.zeros(scales.size, np.int64)
    axis = entry.number(schema.QuantizationParameters.QUANTIZED_DIMENSION, "i")
    if scales.size != points.size:
        raise entry.malformed(f"{scales.size} scales, {points.size} zero points")
    if scales.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scales.size):
        raise entry.malformed(f"{scales.size} scales along axis {axis} of shape {list(shape)}")
    return RawQuantization(scales=scales, zero_points=points, axis=axis)


def _constant(table: Table, name: str, dtype: str, shape: tuple[int, ...], store: Store) -> RawTensor | None:
    """The tensor's stored data, None for activations. Raises Malformed where size and shape disagree."""
    external = table.number(schema.Tensor.EXTERNAL_BUFFER, "I")
    buffer = table.number(schema.Tensor.BUFFER, "I")
    if buffer >= max(len(store.spans), 1):
        raise table.malformed(f"buffer {buffer} of {len(store.spans)}")
    span = store.spans[buffer] if store.spans else Span(0, 0)
    if external:
        return _unavailable(table, name, dtype, shape, "its data is in another file, which bncheck does not follow")
    if span.size == 0:
        return None
    if table.place(schema.Tensor.SPARSITY, 4) is not None:
        return _unavailable(table, name, dtype, shape, "it is stored sparse, which bncheck does not unpack")
    read = store.readers.setdefault((buffer, dtype, shape), _reader(table, dtype, shape, span))
    if read is None:
        return _unavailable(table, name, dtype, shape, f"bncheck does not read {dtype}")
    return RawTensor(name=name, dtype=dtype, shape=shape, read=read)


def _reader(table: Table, dtype: str, shape: tuple[int, ...], span: Span) -> Reader | None:
    """What reads the data, once its size is known to fit; None for types that are not read."""
    if dtype == "string":
        return partial(_strings, table, shape, span)
    if dtype in _UNREAD | _NO_BYTES or dtype not in schema.TENSOR_TYPES:
        return None
    count = math.prod(shape)
    bits = _BITS.get(dtype) or 8 * _layout(dtype).itemsize
    if min(shape, default=0) < 0 or span.size != -(-count * bits // 8):
        raise table.malformed(f"{dtype} {list(shape)} takes {-(-count * bits // 8):,} bytes, stored are {span.size:,}")
    if dtype in _BITS:
        return partial(_packed, table.flat, dtype, shape, span)
    return partial(_plain, table.flat, dtype, shape, span)


def _layout(dtype: str) -> np.dtype[Any]:
    """How the elements of an unpacked type lie in the file; bfloat16 as the upper half of a float32."""
    layout: np.dtype[Any] = np.dtype(np.uint16 if dtype == "bfloat16" else dtype).newbyteorder("<")
    return layout


def _plain(flat: Flat, dtype: str, shape: tuple[int, ...], span: Span) -> NDArray[Any]:
    layout = _layout(dtype)
    values = np.frombuffer(flat.data.read(span.start, span.size), layout).reshape(shape)
    if dtype != "bfloat16":
        return values
    wide = (values.astype(np.uint32) << 16).view(np.float32).reshape(shape)
    wide.setflags(write=False)
    return wide


def _packed(flat: Flat, dtype: str, shape: tuple[int, ...], span: Span) -> NDArray[Any]:
    """Elements of 4 or 2 bits, lowest bits first, widened to (u)int8."""
    stored = np.frombuffer(flat.data.read(span.start, span.size), np.uint8)
    values = _UNPACKED[dtype][stored].reshape(-1)[: math.prod(shape)].reshape(shape)
    values.setflags(write=False)
    return values


def _unpacked(dtype: str) -> NDArray[Any]:
    """What each byte holds, (256, elements a byte)."""
    bits = _BITS[dtype]
    parts = np.stack([np.arange(256) >> shift for shift in range(0, 8, bits)], axis=-1) % (1 << bits)
    if dtype.startswith("u"):
        return parts.astype(np.uint8)
    return np.where(parts < 1 << (bits - 1), parts, parts - (1 << bits)).astype(np.int8)


_UNPACKED = {dtype: _unpacked(dtype) for dtype in _BITS}


def _strings(table: Table, shape: tuple[int, ...], span: Span) -> NDArray[Any]:
    """Strings as an object array: count, then count + 1 offsets, then the bytes (`tensorflow/lite/string_util.h`)."""
    flat, end = table.flat, span.start + span.size
    count = flat.number("i", span.start, table.what) if span.size >= 4 else -1
    if count < 0 or count != math.prod(shape) or 8 + 4 * count > span.size:
        raise table.malformed(f"{count} strings for shape {list(shape)} in {span.size:,} bytes")
    stored = np.frombuffer(flat.data.read(span.start + 4, 4 * (count + 1)), "<i4")
    offsets = stored.astype(np.int64) + span.start
    if np.any(np.diff(offsets) < 0) or offsets[0] < span.start + 8 + 4 * count or offsets[-1] > end:
        raise table.malformed("the offsets of its strings do not ascend within its data")
    values = np.empty(count, object)
    for number in range(count):
        values[number] = bytes(flat.data[int(offsets[number]) : int(offsets[number + 1])])
    values.setflags(write=False)
    return values.reshape(shape)


def _unavailable(table: Table, name: str, dtype: str, shape: tuple[int, ...], reason: str) -> RawTensor:
    def read() -> NDArray[Any]:
        raise Unsupported(table.flat.path, f"{table.what}: {reason}", offset=table.offset)

    return RawTensor(name=name, dtype=dtype, shape=shape, read=read, unavailable=reason)


def _notes(lite: RawLite) -> tuple[str, ...]:
    """Constants whose data was left aside, counted by reason."""
    reasons: dict[str, int] = {}
    for subgraph in lite.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.data is not None and tensor.data.unavailable is not None:
                reasons[tensor.data.unavailable] = reasons.get(tensor.data.unavailable, 0) + 1
    return tuple(f"{count} constant tensor(s) not read: {reason}" for reason, count in sorted(reasons.items()))
