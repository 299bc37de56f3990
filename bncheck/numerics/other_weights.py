"""Whether a quantized file is of other weights than the model beside it: no rounding moves them so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncheck.facts.measurements import OperatorLoss, QuantizedComparison

BEYOND = 0.01
"""Share of a kernel's weights further off than half a step, which rounding moves none by; a guess."""
MOST = 0.5
"""Share of the kernels from which the whole file is of other weights; a guess."""


def of_other_weights(operator: OperatorLoss) -> bool:
    """Whether its integer kernel is no rounding of the model's."""
    return operator.weights_beyond is not None and operator.weights_beyond > BEYOND


def file_of_other_weights(measured: QuantizedComparison) -> bool:
    """Whether most kernels of a file that was given are no rounding of the model's."""
    known = [operator for operator in measured.operators if operator.weights_beyond is not None]
    others = sum(map(of_other_weights, known))
    return measured.was_given and bool(known) and others >= MOST * len(known)
