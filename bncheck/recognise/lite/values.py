"""How a TFLite subgraph is wired, and what its constants are worth in real numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import PerChannel
from bncheck.sources.raw import RawLiteOperator, RawLiteSubgraph, RawLiteTensor, RawQuantization

if TYPE_CHECKING:
    from typing_extensions import Self

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
INTEGERS = frozenset({"int2", "int4", "uint4", "int8", "uint8", "int16", "int32", "int64"})
"""Types of quantized tensors."""

_HOPS = 8
"""Conversions between a stored constant and the operator that uses it; converters write one."""


@dataclass(frozen=True, eq=False)
class Wiring:
    """One subgraph with the maker and the readers of each tensor."""

    graph: RawLiteSubgraph
    makers: Mapping[int, RawLiteOperator]
    """Tensor -> the operator whose output it is."""
    readers: Mapping[int, tuple[RawLiteOperator, ...]]
    """Each operator once, however often it reads the tensor."""
    through: ClassVar[frozenset[str]] = frozenset({"DEQUANTIZE", "DENSIFY", "QUANTIZE"})
    """Operators that may stand between a stored constant and what uses it."""

    @classmethod
    def of(cls, graph: RawLiteSubgraph) -> Self:
        """Linear in the number of operands."""
        makers: dict[int, RawLiteOperator] = {}
        readers: defaultdict[int, list[RawLiteOperator]] = defaultdict(list)
        for operator in graph.operators:
            makers.update(dict.fromkeys(operator.outputs, operator))
            for number in dict.fromkeys(operator.inputs):
                readers[number].append(operator)
        return cls(graph, makers, {number: tuple(ops) for number, ops in readers.items()})

    def tensor(self, number: int) -> RawLiteTensor:
        """Tensor `number`."""
        return self.graph.tensors[number]

    def optional(self, number: int) -> RawLiteTensor | None:
        """Tensor `number`, None for an absent optional one."""
        return None if number < 0 else self.graph.tensors[number]

    def source(self, number: int) -> RawLiteTensor | None:
        """The stored constant behind tensor `number`, through DEQUANTIZE (float16 and dynamic-range files).

        And through the QUANTIZE before it, where a model that was trained quantization-aware was exported in float:
        then the constant has the quantization of what the QUANTIZE gives, by whose steps it was rounded in training.
        """
        rounded: RawQuantization | None = None
        for _ in range(_HOPS):
            tensor = self.optional(number)
            if tensor is None or tensor.data is not None:
                return tensor if tensor is None or rounded is None else replace(tensor, quantization=rounded)
            maker = self.makers.get(number)
            if maker is None or maker.kind not in self.through or not maker.inputs:
                return None
            if maker.kind == "QUANTIZE":
                rounded = tensor.quantization
            number = maker.inputs[0]
        return None

    def constant(self, operator: RawLiteOperator, slot: int) -> RawLiteTensor | None:
        """The stored constant behind input `slot` of `operator`; None where there is none."""
        return self.source(operator.inputs[slot]) if slot < len(operator.inputs) else None


def stored(tensor: RawLiteTensor) -> NDArray[Any] | None:
    """A constant's values as stored; None where they are not at hand. Raises ReadError."""
    return None if tensor.data is None or tensor.data.unavailable is not None else tensor.data.read()


def per_channel_scales(tensor: RawLiteTensor) -> PerChannel | None:
    """Scales of an integer tensor, one entry or one a channel; None for float and for blocks."""
    if tensor.quantization is None or tensor.quantization.block or tensor.dtype not in INTEGERS:
        return None
    scales = tensor.quantization.scales.astype(np.float64)
    scales.setflags(write=False)
    return scales


def real(tensor: RawLiteTensor) -> NDArray[np.float64] | None:
    """A constant in real numbers, `scale * (stored - zero point)`; None where it has no such meaning or is unread."""
    values = stored(tensor)
    if values is None:
        return None
    if tensor.dtype in FLOATS:
        return values.astype(np.float64)
    if tensor.quantization is None or tensor.dtype not in INTEGERS:
        return None
    scales, points = tensor.quantization.spread(values.shape)
    product: NDArray[np.float64] = scales * (values.astype(np.int64) - points)
    return product


_HALF_PRECISION = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 0.0)}
"""Of each type, the largest relative error of rounding to it, and the absolute one below its smallest normal number."""


def rounding(tensor: RawLiteTensor, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far rounding to the stored type may have moved numbers of these magnitudes, in the tensor's shape.

    `sizes` is whatever broadcasts to that shape; float32 and wider count as not rounded, unless by `Wiring.source`.
    """
    if tensor.dtype in _HALF_PRECISION:
        relative, absolute = _HALF_PRECISION[tensor.dtype]
        return relative * sizes + absolute
    if tensor.quantization is None or tensor.dtype not in INTEGERS | {"float32"}:
        return np.zeros(tensor.shape)
    halves = 0.5 * np.abs(tensor.quantization.spread(tensor.shape)[0])
    if tensor.quantization.block:  # the scales themselves are stored in half precision
        halves = halves + _HALF_PRECISION["float16"][0] * sizes
    return np.broadcast_to(halves, tensor.shape)


@dataclass(frozen=True, eq=False)
class KnownValues:
    """What was read once: tensors of one buffer, type and shape share their `read`, often over many subgraphs."""

    extremes: dict[tuple[Callable[[], NDArray[Any]], tuple[int, ...]], tuple[NDArray[Any], NDArray[Any]]] = field(
        default_factory=dict
    )
    integers: dict[Callable[[], NDArray[Any]], NDArray[np.int64]] = field(default_factory=dict)


def largest_by_channel(kernel: RawLiteTensor, axis: int, known: KnownValues) -> PerChannel | None:
    """Largest |real weight| along every axis but `axis`, (channels,); None where it cannot be told. NaN stays.

    Smallest and largest stored value suffice, as `scale * (stored - zero point)` is monotonic: no copy of the kernel.
    """
    quantization = kernel.quantization
    if kernel.dtype not in FLOATS and (quantization is None or kernel.dtype not in INTEGERS):
        return None
    if quantization is not None and quantization.block:
        whole = real(kernel)
        return None if whole is None else _read_only(np.abs(whole).max(axis=1))
    varies = quantization is not None and quantization.scales.size > 1 and kernel.dtype in INTEGERS
    kept = {axis, quantization.axis} if varies and quantization is not None else {axis}
    extremes = _extremes(kernel, tuple(number for number in range(len(kernel.shape)) if number not in kept), known)
    if extremes is None:
        return None
    if quantization is None or kernel.dtype in FLOATS:
        reach = np.maximum(*(np.abs(values.astype(np.float64)) for values in extremes))
    else:
        along = [-1 if varies and number == quantization.axis else 1 for number in range(len(kernel.shape))]
        points, scales = quantization.zero_points.reshape(along), quantization.scales.astype(np.float64).reshape(along)
        reach = np.abs(scales) * np.maximum(*(np.abs(values.astype(np.int64) - points) for values in extremes))
    others = tuple(number for number in range(reach.ndim) if number != axis)
    return _read_only(np.asarray(reach.max(axis=others), np.float64))


def _read_only(values: PerChannel) -> PerChannel:
    values.setflags(write=False)
    return values


def _extremes(
    kernel: RawLiteTensor, others: tuple[int, ...], known: KnownValues
) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Smallest and largest stored value along the axes `others`, which stay with length 1."""
    if kernel.data is None or kernel.data.unavailable is not None or 0 in kernel.shape:
        return None
    key = (kernel.data.read, others)
    if key not in known.extremes:
        values = kernel.data.read()
        known.extremes[key] = (values.min(axis=others, keepdims=True), values.max(axis=others, keepdims=True))
    return known.extremes[key]


def integers(tensor: RawLiteTensor, known: KnownValues) -> NDArray[np.int64] | None:
    """An integer constant as stored, flat; None where it is no integer or not at hand."""
    if tensor.dtype not in INTEGERS or tensor.data is None or tensor.data.unavailable is not None:
        return None
    if tensor.data.read not in known.integers:
        values = tensor.data.read().astype(np.int64).reshape(-1)
        values.setflags(write=False)
        known.integers[tensor.data.read] = values
    return known.integers[tensor.data.read]
