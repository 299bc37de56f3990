"""Dense operators that read a rotated input: quantizers spread large weights over a kernel by Hadamard matrices.

ai-edge-quantizer's `transformations/insert_decomposed_hadamard_rotation.py` writes W x as (W H') (H x): a RESHAPE to
rows of H's size, a dense operator that holds H alone, a RESHAPE back, and the dense operator with the rotated kernel.
`insert_hadamard_rotation.py` writes one operator of LiteRT's own instead, ROTATION, without the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bncheck.recognise.lite.values import Wiring, real
from bncheck.sources.raw import RawLiteOperator

ROTATION = "aeq.hadamard_rotation"
_DENSE = "FULLY_CONNECTED"
_LARGEST = 1 << 14
"""Rows of a matrix that is looked at; ai-edge-quantizer's are powers of two that divide the fan-in."""
_EQUAL = 1e-4
"""Of an entry: float16 is the coarsest type that a matrix is stored in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rotation:
    """What turns the input of one dense operator."""

    source: int
    """The tensor that is turned."""
    by: RawLiteOperator
    matrix: NDArray[np.float64] | None
    """(size, size), orthogonal, applied to each run of `size` numbers; None: by an operator that does not show it."""

    def undone(self, kernel: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """(channels, fan-in): the kernel as it would read the tensor unturned; None where that cannot be told."""
        if self.matrix is None or kernel.shape[1] % len(self.matrix):
            return None
        turned = kernel.reshape(len(kernel), -1, len(self.matrix)) @ self.matrix
        return turned.reshape(kernel.shape)


def rotations(wiring: Wiring) -> dict[int, Rotation]:
    """Number of a dense operator -> what its input is turned by, of those whose input is."""
    found: dict[int, Rotation] = {}
    for operator in wiring.graph.operators:
        if operator.kind != _DENSE or not operator.inputs:
            continue
        maker = wiring.makers.get(_before_reshapes(wiring, operator.inputs[0]))
        rotation = None if maker is None else _rotation(wiring, maker)
        if rotation is not None:
            found[operator.index] = rotation
    return found


def _rotation(wiring: Wiring, maker: RawLiteOperator) -> Rotation | None:
    if maker.kind == ROTATION and maker.inputs:
        return Rotation(source=maker.inputs[0], by=maker, matrix=None)
    matrix = _matrix(wiring, maker) if maker.kind == _DENSE else None
    if matrix is None:
        return None
    return Rotation(source=_before_reshapes(wiring, maker.inputs[0]), by=maker, matrix=matrix)


def _matrix(wiring: Wiring, operator: RawLiteOperator) -> NDArray[np.float64] | None:
    """An orthogonal matrix of entries of one size, which is all that a dense operator does; None for any other."""
    bias = len(operator.inputs) > 2 and operator.inputs[2] >= 0
    kernel = wiring.constant(operator, 1)
    if bias or operator.activation != "NONE" or kernel is None or len(kernel.shape) != 2:
        return None
    if kernel.shape[0] != kernel.shape[1] or not 1 < kernel.shape[0] <= _LARGEST:
        return None
    values = real(kernel)
    if values is None or not np.all(np.abs(np.abs(values) * len(values) ** 0.5 - 1) < _EQUAL):
        return None
    return values if np.allclose(values @ values.T, np.eye(len(values)), atol=_EQUAL) else None


def _before_reshapes(wiring: Wiring, number: int) -> int:
    while (maker := wiring.makers.get(number)) is not None and maker.kind == "RESHAPE" and maker.inputs[0] >= 0:
        number = maker.inputs[0]
    return number
