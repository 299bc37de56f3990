"""The main graph of a TFLite file as wiring: who makes a tensor, who reads it, what stands behind it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bncheck.compare.litert.interpreter import ACTIVATIONS
from bncheck.recognise.lite.by_lite import LINEAR
from bncheck.recognise.lite.rotations import Rotation, rotations
from bncheck.recognise.lite.values import Wiring, real
from bncheck.sources.raw import RawLiteOperator, RawLiteTensor

VIEWS = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
"""Operators that change a tensor's shape and nothing else."""
CARRIERS = VIEWS | {"QUANTIZE", "DEQUANTIZE"}
"""Operators whose output stands for the same numbers as their input."""
_SCALES = frozenset({"MUL", "ADD", "SUB", "DIV"})
Kernel: TypeAlias = NDArray[np.float64]
"""(output channels, values a channel)."""


@dataclass(frozen=True, eq=False)
class Net(Wiring):
    """The wiring of a graph that is run: constants may also be reshaped before they are used."""

    through: ClassVar[frozenset[str]] = Wiring.through | VIEWS

    @cached_property
    def rotations(self) -> Mapping[int, Rotation]:
        """Dense operator -> what its input, and its kernel with it, is turned by."""
        return rotations(self)

    @cached_property
    def turning(self) -> frozenset[int]:
        """Operators that only turn the input of another."""
        return frozenset(rotation.by.index for rotation in self.rotations.values())

    def before_rotation(self, operator: RawLiteOperator, number: int) -> int:
        """An input as it was before it was turned for this operator."""
        rotation = self.rotations.get(operator.index)
        return number if rotation is None or number != operator.inputs[0] else rotation.source

    def data_inputs(self, operator: RawLiteOperator) -> tuple[int, ...]:
        """Inputs that carry activations: neither constants (stored or unpacked by DEQUANTIZE) nor shapes."""
        return tuple(
            number
            for number in operator.inputs
            if number >= 0 and self.tensor(number).dtype in ACTIVATIONS and self.source(number) is None
        )

    def data_outputs(self, operator: RawLiteOperator) -> tuple[int, ...]:
        """Outputs that are activations."""
        return tuple(n for n in operator.outputs if n >= 0 and self.tensor(n).dtype in ACTIVATIONS)

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
        values = None if tensor is None or operator.shuffled else real(tensor)
        if values is None:
            return None
        axis = LINEAR[operator.kind].axis
        kernel = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
        rotation = self.rotations.get(operator.index)
        return kernel if rotation is None else rotation.undone(kernel)

    def kernel_tensor(self, operator: RawLiteOperator) -> RawLiteTensor | None:
        """The stored tensor of a linear operator's kernel."""
        slots = None if operator.index in self.turning else LINEAR.get(operator.kind)
        tensor = None if slots is None else self.constant(operator, slots.kernel)
        return tensor if slots is not None and tensor is not None and len(tensor.shape) > slots.axis else None

    def bias(self, operator: RawLiteOperator) -> NDArray[np.float64] | None:
        """The constant bias of a linear operator in real numbers, None where there is none."""
        slots = LINEAR.get(operator.kind)
        tensor = None if slots is None else self.constant(operator, slots.bias)
        values = None if tensor is None else real(tensor)
        return None if values is None else values.reshape(-1)

    def elements(self, number: int) -> int | None:
        """Elements of one sample of a tensor; None where the file leaves them open."""
        tensor = self.tensor(number)
        shape = tensor.shape_signature or tensor.shape
        return math.prod(tensor.shape[1:]) if -1 not in shape[1:] else None


def scaling_operators(wiring: Net, known: Collection[int]) -> list[str]:
    """Kinds of the operators that scale the input, other than the known ones."""
    entries, kinds = {*wiring.graph.inputs}, []
    for operator in wiring.graph.operators:
        data = wiring.data_inputs(operator)
        scales = operator.kind in _SCALES and operator.index not in known and len(data) == 1
        if scales and wiring.behind(data[0], CARRIERS) in entries:
            kinds.append(operator.kind)
            entries.add(operator.outputs[0])
    return kinds
