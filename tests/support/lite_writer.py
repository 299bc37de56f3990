"""Writes TFLite files without TensorFlow, by the `flatbuffers` builder and the schema's field numbers.

Shares no code with bncheck's reader: numbers of types and operators stand here again. Only for tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np

TYPES = {
    "float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int64": 4, "string": 5, "bool": 6, "int16": 7, "int8": 9,
    "float64": 10, "resource": 13, "int4": 17, "bfloat16": 18, "int2": 19, "uint4": 20, "float8_e4m3fn": 21,
}  # fmt: skip  # numbers of `TensorType`
CODES = {
    "ADD": 0, "CONCATENATION": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 4, "DEQUANTIZE": 6, "FULLY_CONNECTED": 9,
    "L2_NORMALIZATION": 11, "MUL": 18, "RELU": 19, "RESHAPE": 22, "CUSTOM": 32, "MEAN": 40, "SUB": 41, "DIV": 42,
    "TRANSPOSE": 39, "TRANSPOSE_CONV": 67, "SQRT": 75, "RSQRT": 76, "SQUARE": 92, "SQUARED_DIFFERENCE": 99,
    "QUANTIZE": 114, "DENSIFY": 124, "BATCH_MATMUL": 126, "CONV_3D": 132, "VAR_HANDLE": 142, "READ_VARIABLE": 143,
    "ASSIGN_VARIABLE": 144, "GELU": 150,
}  # fmt: skip  # numbers of `BuiltinOperator`
OPTIONS = {
    "CONV_2D": (1, 3), "DEPTHWISE_CONV_2D": (2, 4), "FULLY_CONNECTED": (8, 0), "ADD": (11, 0), "MUL": (21, 0),
    "SUB": (28, 0), "DIV": (29, 0), "TRANSPOSE_CONV": (49, 3), "CONV_3D": (106, 4),
}  # fmt: skip  # number in the union `BuiltinOptions`, field of the fused activation
ACTIVATIONS = {"NONE": 0, "RELU": 1, "RELU6": 3, "TANH": 4}


@dataclass(frozen=True, kw_only=True)
class T:
    """One tensor; `data` is an array, or bytes that are stored as they are."""

    name: str = ""
    dtype: str = "float32"
    shape: Sequence[int] = ()
    data: Any = None
    scales: Sequence[float] = ()
    points: Sequence[int] | None = None
    """None: as many zeros as scales."""
    axis: int = 0
    details: int = 0
    blocks: tuple[int, int, int] | None = None
    """Numbers of the tensors of blockwise scales and zero points, and the size of a block."""
    sparse: bool = False
    external: int = 0
    signature: Sequence[int] | None = None
    variable: bool = False
    buffer: int | None = None
    """Number of the buffer instead of one of its own."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operator: tensor numbers, -1 for an absent optional one."""

    kind: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    activation: str = "NONE"
    weights_format: int = 0


@dataclass(frozen=True, kw_only=True)
class G:
    """One subgraph."""

    tensors: Sequence[T]
    operators: Sequence[Op]
    inputs: Sequence[int] = (0,)
    outputs: Sequence[int] = ()
    name: str = "main"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What to write differently from a healthy file."""

    version: int = 3
    identifier: bytes = b"TFL3"
    custom_code: str = "MyOp"
    code_number: Mapping[str, int] = field(default_factory=dict)
    """Kind -> number written for it."""
    outside: bool = False
    """Put the data of constants behind the flatbuffer, as converters do above 2 GB."""
    metadata: Sequence[str] = ()
    description: str = "made by a test"
    signatures: Sequence[tuple[str, int, Mapping[str, int], Mapping[str, int]]] = ()
    """(key, subgraph, inputs, outputs): name -> tensor."""


def constant(name: str, values: Any, **more: Any) -> T:
    """A constant tensor of an array's own type and shape."""
    array = np.asarray(values)
    return T(name=name, dtype=str(array.dtype), shape=array.shape, data=array, **more)


def lite_bytes(*subgraphs: G, faults: Faults = Faults()) -> bytes:
    """A TFLite file of these subgraphs."""
    if not faults.outside:
        return bytes(_Writer(faults, {}).model(subgraphs))
    # The places are known only once the size is: write twice, offsets have a fixed width.
    size = len(_Writer(faults, {}).model(subgraphs))
    places, behind, start = {}, b"", (size + 15) // 16 * 16
    for where, tensor in _constants(subgraphs):
        data = _data(tensor)
        places[where] = (start + len(behind), len(data))
        behind += data + bytes(-len(data) % 16)
    flat = bytes(_Writer(faults, places).model(subgraphs))
    assert len(flat) == size
    return flat.ljust(start, b"\0") + behind


def _constants(subgraphs: Sequence[G]) -> list[tuple[tuple[int, int], T]]:
    return [
        ((number, index), tensor)
        for number, graph in enumerate(subgraphs)
        for index, tensor in enumerate(graph.tensors)
        if tensor.data is not None
    ]


def _data(tensor: T) -> bytes:
    return tensor.data if isinstance(tensor.data, bytes) else np.ascontiguousarray(tensor.data).tobytes()


class _Writer:
    """One pass over the model; tables are written before what refers to them."""

    def __init__(self, faults: Faults, places: Mapping[tuple[int, int], tuple[int, int]]) -> None:
        self.faults = faults
        self.places = places
        self.b = flatbuffers.Builder(1024)
        self.buffers: list[int] = []
        self.kinds: list[str] = []

    def model(self, subgraphs: Sequence[G]) -> bytearray:
        self.buffers.append(self.table({}))
        graphs = self.offsets([self.subgraph(number, graph) for number, graph in enumerate(subgraphs)])
        codes = self.offsets([self.code(kind) for kind in self.kinds])
        metadata = [self.table({0: self.b.CreateString(name)}) for name in self.faults.metadata]
        fields: dict[int, Any] = {
            0: ("Uint32", self.faults.version),
            1: codes,
            2: graphs,
            3: self.b.CreateString(self.faults.description),
            4: self.offsets(self.buffers),
        }
        if metadata:
            fields[6] = self.offsets(metadata)
        if self.faults.signatures:
            fields[7] = self.offsets([self.signature(*one) for one in self.faults.signatures])
        self.b.Finish(self.table(fields), file_identifier=self.faults.identifier)
        return self.b.Output()

    def signature(self, key: str, graph: int, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> int:
        ends = [
            self.offsets([self.table({0: self.b.CreateString(n), 1: ("Uint32", t)}) for n, t in names.items()])
            for names in (inputs, outputs)
        ]
        return self.table({0: ends[0], 1: ends[1], 2: self.b.CreateString(key), 4: ("Uint32", graph)})

    def table(self, fields: Mapping[int, Any]) -> int:
        """Fields by number: an offset, or (kind, value); zero is written too, as a converter may."""
        self.b.StartObject(max(fields, default=-1) + 1)
        for number, value in fields.items():
            if isinstance(value, tuple):
                getattr(self.b, f"Prepend{value[0]}")(value[1])
                self.b.Slot(number)
            else:
                self.b.PrependUOffsetTRelativeSlot(number, value, 0)
        return self.b.EndObject()

    def offsets(self, entries: Sequence[int]) -> int:
        self.b.StartVector(4, len(entries), 4)
        for entry in reversed(entries):
            self.b.PrependUOffsetTRelative(entry)
        return self.b.EndVector()

    def numbers(self, values: Sequence[float], dtype: str) -> int:
        return self.b.CreateNumpyVector(np.asarray(values, dtype))

    def code(self, kind: str) -> int:
        number = self.faults.code_number.get(kind, CODES.get(kind, 32))
        fields: dict[int, Any] = {0: ("Int8", min(number, 127)), 2: ("Int32", 1), 3: ("Int32", number)}
        if number == 32:
            fields[1] = self.b.CreateString(self.faults.custom_code)
        return self.table(fields)

    def subgraph(self, number: int, graph: G) -> int:
        tensors = self.offsets([self.tensor((number, index), t) for index, t in enumerate(graph.tensors)])
        operators = self.offsets([self.operator(op) for op in graph.operators])
        inputs, outputs = self.numbers(graph.inputs, "<i4"), self.numbers(graph.outputs, "<i4")
        return self.table({0: tensors, 1: inputs, 2: outputs, 3: operators, 4: self.b.CreateString(graph.name)})

    def tensor(self, where: tuple[int, int], tensor: T) -> int:
        buffer = tensor.buffer or 0
        if tensor.data is not None and tensor.buffer is None:
            buffer = len(self.buffers)
            self.buffers.append(self.buffer(where, tensor))
        fields: dict[int, Any] = {
            0: self.numbers(tensor.shape, "<i4"),
            1: ("Int8", TYPES.get(tensor.dtype, 99)),
            2: ("Uint32", buffer),
            3: self.b.CreateString(tensor.name),
        }
        if len(tensor.scales) or tensor.details:
            fields[4] = self.quantization(tensor)
        if tensor.variable:
            fields[5] = ("Bool", True)
        if tensor.sparse:
            fields[6] = self.table({})
        if tensor.signature is not None:
            fields[7] = self.numbers(tensor.signature, "<i4")
        if tensor.external:
            fields[10] = ("Uint32", tensor.external)
        return self.table(fields)

    def quantization(self, tensor: T) -> int:
        points = [0] * len(tensor.scales) if tensor.points is None else tensor.points
        fields: dict[int, Any] = {2: self.numbers(tensor.scales, "<f4"), 6: ("Int32", tensor.axis)}
        if points:
            fields[3] = self.numbers(points, "<i8")
        if tensor.details:
            blocks = {} if tensor.blocks is None else dict(enumerate(("Int32", value) for value in tensor.blocks))
            fields |= {4: ("Uint8", tensor.details), 5: self.table(blocks)}
        return self.table(fields)

    def buffer(self, where: tuple[int, int], tensor: T) -> int:
        if self.faults.outside:
            start, size = self.places.get(where, (1, 1))
            return self.table({1: ("Uint64", start), 2: ("Uint64", size)})
        return self.table({0: self.b.CreateByteVector(_data(tensor))})

    def operator(self, op: Op) -> int:
        if op.kind not in self.kinds:
            self.kinds.append(op.kind)
        inputs, outputs = self.numbers(op.inputs, "<i4"), self.numbers(op.outputs, "<i4")
        fields: dict[int, Any] = {0: ("Uint32", self.kinds.index(op.kind)), 1: inputs, 2: outputs}
        if op.kind in OPTIONS:
            union, slot = OPTIONS[op.kind]
            options: dict[int, Any] = {slot: ("Int8", ACTIVATIONS[op.activation])}
            if op.weights_format:
                options[1] = ("Int8", op.weights_format)
            fields |= {3: ("Uint8", union), 4: self.table(options)}
        return self.table(fields)
