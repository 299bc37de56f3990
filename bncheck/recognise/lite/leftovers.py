"""Batch norm that the converter left standing: per-channel MUL and ADD by constants, or moments of the batch at hand.

What looks the same and is none, and how it is told apart:
- a scalar multiply or add (preprocessing, hard swish, attention scaling): the constant has one element;
- a residual add, a gate, squeeze and excite: no constant;
- a bias after an operator without one, a positional embedding: nothing is multiplied, or more than one axis varies;
- the gamma and beta of layer, group and instance norm, RMS norm, L2 norm: right behind a product or quotient with an
  RSQRT, SQRT or POW, or behind L2_NORMALIZATION.
Normalisation of the input and denormalisation of the output are arithmetic of the same form: `after` and `feeds` of the
leftover tell where it stands, and the rule is less sure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.lite import Leftover
from bncheck.recognise.lite.values import FLOATS, INTEGERS, Wiring, real, rounding, stored
from bncheck.sources.raw import RawLiteOperator, RawLiteTensor

AFFINE = ("MUL", "DIV", "ADD", "SUB")
RESHAPING = frozenset(
    """
    RESHAPE TRANSPOSE SQUEEZE EXPAND_DIMS CAST QUANTIZE DEQUANTIZE PAD PADV2 MIRROR_PAD STRIDED_SLICE SLICE REVERSE_V2
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND
    """.split()
)
"""Operators that move values or change their type: looked through for what stands before a leftover."""
_ROOTS = frozenset({"RSQRT", "SQRT", "POW"})
_HOPS = 16
"""Operators looked through in one direction."""
_MOST_CHANNELS = 1 << 16
"""No batch norm has more; longer constants are not read."""


@dataclass(frozen=True, eq=False)
class Step:
    """One MUL, DIV, ADD or SUB of an activation and a constant, `multiplier * x + addend`."""

    operator: RawLiteOperator
    data: int
    """The activation's tensor."""
    axis: int | None
    """The axis along which the constant varies; None: it is one number."""
    multiplier: NDArray[np.float64] | None
    addend: NDArray[np.float64] | None
    rounding: NDArray[np.float64] | float = 0.0
    """How far the constant's values may lie from those that were quantized."""


class Constants(Protocol):
    """What a step multiplies by or adds."""

    @property
    def multiplier(self) -> NDArray[np.float64] | None:
        """None where it adds."""

    @property
    def addend(self) -> NDArray[np.float64] | None:
        """None where it multiplies."""

    @property
    def rounding(self) -> NDArray[np.float64] | float:
        """How far these may lie from those that were quantized."""


@dataclass(frozen=True, eq=False)
class Affine:
    """Several steps as one, `multiplier * x + addend`, each (channels,), with what rounding may have done to them."""

    multiplier: NDArray[np.float64]
    addend: NDArray[np.float64]
    multiplier_rounding: NDArray[np.float64]
    addend_rounding: NDArray[np.float64]

    @classmethod
    def identity(cls, channels: int) -> Affine:
        """No step yet."""
        nothing = np.zeros(channels)
        return cls(np.ones(channels), nothing, nothing, nothing)

    def then(self, step: Constants) -> Affine:
        """With one more step behind it."""
        if step.multiplier is not None:
            factor, most = step.multiplier, np.abs(step.multiplier) + step.rounding
            return Affine(
                self.multiplier * factor,
                self.addend * factor,
                self.multiplier_rounding * most + np.abs(self.multiplier) * step.rounding,
                self.addend_rounding * most + np.abs(self.addend) * step.rounding,
            )
        addend = self.addend if step.addend is None else self.addend + step.addend
        return Affine(self.multiplier, addend, self.multiplier_rounding, self.addend_rounding + step.rounding)


@dataclass(frozen=True, eq=False)
class Search:
    """A subgraph's wiring and its affine steps by operator number."""

    wiring: Wiring
    steps: Mapping[int, Step]

    @classmethod
    def of(cls, wiring: Wiring) -> Search:
        """Reads the constants of all steps. Raises ReadError where one cannot be read."""
        found = ((operator.index, _step(operator, wiring)) for operator in wiring.graph.operators)
        return cls(wiring, {index: step for index, step in found if step is not None})


def leftovers(wiring: Wiring, prefix: str = "") -> Iterator[Leftover]:
    """Batch norms left in a subgraph, in execution order. Raises ReadError where a constant's data cannot be read."""
    search = Search.of(wiring)
    for chain in chains(search):
        left = _affine(chain, search, prefix)
        if left is not None:
            yield left
    yield from _batch_moments(search, prefix)


def _step(operator: RawLiteOperator, wiring: Wiring) -> Step | None:
    """The operator as an affine step; None where it is none."""
    if operator.kind not in AFFINE or len(operator.inputs) != 2 or len(operator.outputs) != 1:
        return None
    sources = [wiring.source(number) for number in operator.inputs]
    slot = 1 if sources[1] is not None else 0
    constant, data = sources[slot], wiring.optional(operator.inputs[1 - slot])
    # A constant that is divided by, or subtracted from, is no affine map of this form.
    if constant is None or sources[1 - slot] is not None or data is None or not _carries_numbers(data):
        return None
    if slot == 0 and operator.kind in ("DIV", "SUB"):
        return None
    axis = _varying_axis(constant.shape, data.shape)
    values = None if axis == _NO_AXIS else real(constant)
    if values is None:
        return None
    half = rounding(constant, np.abs(values)).reshape(-1)
    values = values.reshape(-1)
    along = None if axis == _ONE_NUMBER else axis
    if operator.kind == "MUL":
        return Step(operator, data.index, along, values, None, half)
    if operator.kind == "DIV":
        with np.errstate(divide="ignore", invalid="ignore"):
            return Step(operator, data.index, along, 1.0 / values, None, half / values**2)
    return Step(operator, data.index, along, None, values if operator.kind == "ADD" else -values, half)


def _carries_numbers(tensor: RawLiteTensor) -> bool:
    """Whether it is a real-valued activation, rather than a shape or an index."""
    return tensor.dtype in FLOATS or (tensor.dtype in INTEGERS and tensor.quantization is not None)


_NO_AXIS, _ONE_NUMBER = -2, -1


def _varying_axis(constant: Sequence[int], data: Sequence[int]) -> int:
    """The only axis of `data` along which `constant` varies, `_ONE_NUMBER`, or `_NO_AXIS` where it is not per channel.

    Of one element, a constant counts as per channel where the data has one channel and the constant is not a scalar.
    """
    rank = len(data)
    if rank < 2 or len(constant) > rank or any(size < 1 for size in constant):
        return _NO_AXIS
    varying = [axis for axis, size in enumerate(constant, rank - len(constant)) if size > 1]
    if not varying:
        return rank - 1 if constant and data[-1] == 1 else _ONE_NUMBER
    # Channels come last, or, in models converted from channels-first, right after the batch.
    axis, size = varying[0], constant[varying[0] - rank]
    fits = len(varying) == 1 and data[axis] == size <= _MOST_CHANNELS and axis in (rank - 1, 1)
    return axis if fits else _NO_AXIS


def chains(search: Search) -> Iterator[list[Step]]:
    """Runs of affine steps in which each feeds only the next, cut to those between two per-channel ones."""
    used: set[int] = set()
    for index, first in search.steps.items():
        if index in used or first.axis is None:
            continue
        chain = [first]
        used.add(index)
        while (follower := only_reader(chain[-1].operator, search.wiring)) is not None:
            step = search.steps.get(follower.index)
            if step is None or step.operator.index in used or step.axis not in (None, first.axis):
                break
            if chain[-1].operator.activation != "NONE" or step.data != chain[-1].operator.outputs[0]:
                break
            chain.append(step)
            used.add(step.operator.index)
        while chain[-1].axis is None:
            chain.pop()
        yield chain


def only_reader(operator: RawLiteOperator, wiring: Wiring) -> RawLiteOperator | None:
    """The one operator that reads the output; None where there are several or it leaves the subgraph."""
    readers = wiring.readers.get(operator.outputs[0], ())
    return readers[0] if len(readers) == 1 and operator.outputs[0] not in wiring.graph.outputs else None


def _affine(chain: list[Step], search: Search, prefix: str) -> Leftover | None:
    """The chain as a leftover; None where it is no batch norm."""
    data = search.wiring.optional(chain[0].data)
    multiplied = any(step.multiplier is not None and step.axis is not None for step in chain)
    added = any(step.addend is not None for step in chain)
    axis = chain[0].axis
    if data is None or axis is None or not multiplied or _normalised_before(chain[0].data, search):
        return None
    # A lone product along the second axis is a window or a gain, not channels.
    if not added and axis != len(data.shape) - 1:
        return None
    whole = Affine.identity(data.shape[axis])
    for step in chain:
        whole = whole.then(step)
    for values in (whole.multiplier, whole.addend, whole.multiplier_rounding, whole.addend_rounding):
        values.setflags(write=False)
    last = chain[-1].operator
    return Leftover(
        name=prefix + chain_name(chain, search.wiring),
        operators=tuple(step.operator.kind for step in chain),
        channels=data.shape[axis],
        after=_before(chain[0].data, search),
        multiplier=whole.multiplier,
        addend=whole.addend if added else None,
        multiplier_rounding=whole.multiplier_rounding,
        addend_rounding=whole.addend_rounding,
        feeds=_after(last, search.wiring),
    )


def chain_name(chain: Sequence[Step], wiring: Wiring) -> str:
    """The part of the outputs' fused names that tells a batch norm, else the last output's name."""
    outputs = [wiring.graph.tensors[step.operator.outputs[0]].name for step in reversed(chain)]
    parts = [part for name in outputs for part in name.split(";")]
    telling = [part for part in parts if "batch" in part.lower() and "norm" in part.lower()]
    return (telling or [part for part in parts if part] or [f"operator {chain[-1].operator.index}"])[0]


def _before(number: int, search: Search) -> str:
    """Kind of the operator that made the tensor, reshapes and scalar arithmetic looked through; "" for the input."""
    for _ in range(_HOPS):
        writer = search.wiring.makers.get(number)
        if writer is None:
            return ""
        through = _looks_through(writer, search)
        if through is None:
            return writer.kind if writer.activation == "NONE" else f"{writer.kind} + {writer.activation}"
        number = through
    return "RESHAPE"


def _looks_through(operator: RawLiteOperator, search: Search) -> int | None:
    """The tensor that a reshape or a step by one number passes on; None for everything else."""
    if operator.activation != "NONE" or not operator.inputs:
        return None
    if operator.kind in RESHAPING:
        return operator.inputs[0]
    step = search.steps.get(operator.index)
    return step.data if step is not None and step.axis is None else None


def _after(operator: RawLiteOperator, wiring: Wiring) -> str | None:
    """Kind of the one operator that reads the output, reshapes looked through; "" for the subgraph's output."""
    for _ in range(_HOPS):
        number = operator.outputs[0] if operator.outputs else -1
        readers = wiring.readers.get(number, ())
        if number in wiring.graph.outputs or not readers:
            return "" if not readers else None
        if len(readers) > 1:
            return None
        operator = readers[0]
        if operator.kind not in RESHAPING or operator.inputs[0] != number:
            return operator.kind
    return None


def _normalised_before(number: int, search: Search) -> bool:
    """Whether the tensor was just normalised by moments or norms of the data itself."""
    for _ in range(_HOPS):
        writer = search.wiring.makers.get(number)
        if writer is None:
            return False
        if writer.kind in _ROOTS or writer.kind == "L2_NORMALIZATION":
            return True
        if writer.kind in ("MUL", "DIV") and writer.index not in search.steps:
            return any(_reaches_root(operand, search.wiring) for operand in writer.inputs)
        through = _looks_through(writer, search)
        if through is None:
            return False
        number = through
    return False


def _reaches_root(number: int, wiring: Wiring) -> bool:
    """Whether the factor comes from an RSQRT, SQRT or POW, arithmetic with constants looked through."""
    for _ in range(_HOPS):
        writer = wiring.makers.get(number)
        if writer is None:
            return False
        if writer.kind in _ROOTS:
            return True
        moving = [operand for operand in writer.inputs if wiring.source(operand) is None and operand >= 0]
        if writer.kind not in RESHAPING | {*AFFINE, "MAXIMUM", "NEG", "BROADCAST_TO"} or len(moving) != 1:
            return False
        number = moving[0]
    return False


def _batch_moments(search: Search, prefix: str) -> Iterator[Leftover]:
    """Normalisation by a variance over the batch: RSQRT or SQRT of a MEAN over axis 0 of squares, channels kept."""
    wiring = search.wiring
    for root in wiring.graph.operators:
        if root.kind not in ("RSQRT", "SQRT") or not root.inputs or not root.outputs:
            continue
        mean = _mean_below(root.inputs[0], wiring)
        squares = None if mean is None else wiring.makers.get(mean.inputs[0])
        channels = None if mean is None else _channels_kept(mean, wiring)
        if mean is None or squares is None or channels is None or not squares.inputs:
            continue
        if squares.kind in ("SQUARED_DIFFERENCE", "SQUARE") or (squares.kind == "MUL" and len({*squares.inputs}) == 1):
            name = wiring.graph.tensors[root.outputs[0]].name.split(";")[0] or f"operator {root.index}"
            yield Leftover(
                name=prefix + name,
                operators=(squares.kind, "MEAN", root.kind),
                channels=channels,
                after=_before(squares.inputs[0], search),
                multiplier=None,
                addend=None,
            )


def _mean_below(number: int, wiring: Wiring) -> RawLiteOperator | None:
    """The MEAN that feeds the tensor through at most an epsilon and reshapes."""
    for _ in range(_HOPS):
        writer = wiring.makers.get(number)
        if writer is None or (writer.kind == "MEAN" and len(writer.inputs) == 2):
            return writer
        moving = [operand for operand in writer.inputs if wiring.source(operand) is None and operand >= 0]
        if writer.kind not in RESHAPING | {"ADD", "MAXIMUM"} or len(moving) != 1:
            return None
        number = moving[0]
    return None


def _channels_kept(mean: RawLiteOperator, wiring: Wiring) -> int | None:
    """Number of channels where it averages over the batch and all but them; None for layer, group and instance norm.

    Of rank 2, one axis may as well be time (speech features normalised over an utterance): not counted.
    """
    data, axes = wiring.optional(mean.inputs[0]), wiring.constant(mean, 1)
    values = None if axes is None or axes.dtype not in ("int32", "int64") else stored(axes)
    if data is None or values is None or len(data.shape) < 3:
        return None
    rank = len(data.shape)
    over = {int(axis) % rank for axis in values.reshape(-1)}
    kept = [axis for axis in range(rank) if axis not in over]
    return data.shape[kept[0]] if kept in ([rank - 1], [1]) else None
