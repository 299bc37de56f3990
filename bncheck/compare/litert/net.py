"""The main graph of a TFLite file as wiring: who makes a tensor, who reads it, what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.interpreter import ACTIVATIONS
from bncheck.recognise.lite.by_lite import LINEAR
from bncheck.sources.raw import RawLiteOperator, RawLiteSubgraph, RawLiteTensor

VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Operators that change a tensor's shape and nothing else."""
CARRIERS = VIEWS | {"QUANTIZE", "DEQUANTIZE"}
"""Operators whose output stands for the same numbers as their input."""
_SCALES = frozenset({"MUL", "ADD", "SUB", "DIV"})
Kernel: TypeAlias = NDArray[np.float64]
"""(output channels, values a channel)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Net:
    """A graph with its wiring."""

    graph: RawLiteSubgraph
    makers: Mapping[int, RawLiteOperator]
    """Tensor -> the operator whose output it is."""
    readers: Mapping[int, tuple[RawLiteOperator, ...]]

    def tensor(self, number: int) -> RawLiteTensor:
        """A tensor by its number."""
        return self.graph.tensors[number]

    def data_inputs(self, operator: RawLiteOperator) -> tuple[int, ...]:
        """Inputs that carry activations: neither constants (stored or unpacked by DEQUANTIZE) nor shapes."""
        return tuple(
            number
            for number in operator.inputs
            if number >= 0 and self.tensor(number).dtype in ACTIVATIONS and self.constant(number) is None
        )

    def data_outputs(self, operator: RawLiteOperator) -> tuple[int, ...]:
        """Outputs that are activations."""
        return tuple(n for n in operator.outputs if n >= 0 and self.tensor(n).dtype in ACTIVATIONS)

    def constant(self, number: int) -> RawLiteTensor | None:
        """The stored tensor behind a constant input, None for what is computed from data.

        Float exports of models that were trained quantization-aware round their constants when they run.
        """
        for _ in range(8):
            if number < 0:
                return None
            tensor = self.tensor(number)
            if tensor.data is not None:
                return tensor
            maker = self.makers.get(number)
            if maker is None or maker.kind not in ("DEQUANTIZE", "QUANTIZE", *VIEWS):
                return None
            number = maker.inputs[0]
        return None

    def behind(self, number: int, through: frozenset[str] = VIEWS | {"DEQUANTIZE"}) -> int:
        """The tensor of the same numbers that some operator computed, or that is the graph's input."""
        while True:
            maker = self.makers.get(number)
            if maker is None or maker.kind not in through or maker.inputs[0] < 0:
                return number
            number = maker.inputs[0]

    def kernel(self, operator: RawLiteOperator) -> Kernel | None:
        """The constant kernel of a linear operator in real numbers, None where there is none or it is not read."""
        tensor = self.kernel_tensor(operator)
        if tensor is None or operator.shuffled or tensor.data is None or tensor.data.unavailable is not None:
            return None
        axis = LINEAR[operator.kind].axis
        if tensor.data.dtype not in ("float32", "float16", "bfloat16", "int8", "uint8", "int4", "int16"):
            return None
        return np.moveaxis(real_constant(tensor), axis, 0).reshape(tensor.shape[axis], -1)

    def kernel_tensor(self, operator: RawLiteOperator) -> RawLiteTensor | None:
        """The stored tensor of a linear operator's kernel."""
        slots = LINEAR.get(operator.kind)
        if slots is None or len(operator.inputs) <= slots.kernel:
            return None
        tensor = self.constant(operator.inputs[slots.kernel])
        return tensor if tensor is not None and len(tensor.shape) > slots.axis else None

    def bias(self, operator: RawLiteOperator) -> NDArray[np.float64] | None:
        """The constant bias of a linear operator in real numbers, None where there is none."""
        slots = LINEAR.get(operator.kind)
        if slots is None or len(operator.inputs) <= slots.bias:
            return None
        tensor = self.constant(operator.inputs[slots.bias])
        if tensor is None or tensor.data is None or tensor.data.unavailable is not None:
            return None
        return real_constant(tensor).reshape(-1)

    def elements(self, number: int) -> int | None:
        """Elements of one sample of a tensor; None where the file leaves them open."""
        tensor = self.tensor(number)
        shape = tensor.shape_signature or tensor.shape
        return math.prod(tensor.shape[1:]) if -1 not in shape[1:] else None


def net(graph: RawLiteSubgraph) -> Net:
    """Wires a graph."""
    makers: dict[int, RawLiteOperator] = {}
    readers: dict[int, list[RawLiteOperator]] = {}
    for operator in graph.operators:
        for number in operator.outputs:
            makers[number] = operator
        for number in dict.fromkeys(operator.inputs):
            readers.setdefault(number, []).append(operator)
    return Net(graph=graph, makers=makers, readers={number: tuple(found) for number, found in readers.items()})


def real_constant(tensor: RawLiteTensor) -> NDArray[np.float64]:
    """`scale * (stored - zero_point)` of a stored tensor, float64; raises ReadError where it cannot be read."""
    assert tensor.data is not None
    values: NDArray[Any] = np.asarray(tensor.data.read(), np.float64)
    how = tensor.quantization
    if how is None or tensor.data.dtype.startswith("float"):
        return values
    along = [1] * values.ndim
    if how.scales.size > 1:
        along[how.axis] = how.scales.size
    return (values - how.zero_points.reshape(along)) * how.scales.astype(np.float64).reshape(along)


def scaling_operators(wiring: Net, known: Collection[int]) -> list[str]:
    """Kinds of the operators that scale the input, other than the known ones."""
    entry, kinds = wiring.graph.inputs[0], []
    for operator in wiring.graph.operators:
        data = wiring.data_inputs(operator)
        scales = operator.kind in _SCALES and operator.index not in known and len(data) == 1
        if scales and wiring.behind(data[0], CARRIERS) == entry:
            kinds.append(operator.kind)
            entry = operator.outputs[0]
    return kinds
