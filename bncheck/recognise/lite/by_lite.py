"""TFLite -> facts: the operators that batch norm was folded into, and the arithmetic that was left over."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from bncheck.facts.layers import Facts
from bncheck.facts.lite import FoldedOperator, Leftover, LiteFacts
from bncheck.recognise.lite.leftovers import leftovers
from bncheck.recognise.lite.rotations import Rotation, rotations
from bncheck.recognise.lite.values import KnownValues, Wiring, integers, largest_by_channel, per_channel_scales
from bncheck.settings.options import Options
from bncheck.sources.raw import RawLite, RawLiteOperator, RawLiteTensor, RawModel


@dataclass(frozen=True)
class Slots:
    """Where a linear operator keeps its kernel and bias, and the kernel's output channel axis."""

    kernel: int
    bias: int
    axis: int
    rank: int


LINEAR = {
    "CONV_2D": Slots(1, 2, 0, 4),
    "DEPTHWISE_CONV_2D": Slots(1, 2, 3, 4),
    "FULLY_CONNECTED": Slots(1, 2, 0, 2),
    "TRANSPOSE_CONV": Slots(1, 3, 0, 4),
    "CONV_3D": Slots(1, 2, 4, 5),
    "CONV_3D_TRANSPOSE": Slots(1, 3, 3, 5),
}
"""Operators that can absorb a batch norm. Kernel layouts: the kernels in `tensorflow/lite/kernels/`."""

MAX_CHANNELS = 1 << 24
"""Channels of one subgraph whose ranges are kept; a damaged file could declare the same kernel a million times."""

_BIAS_BITS = {"int8": 8, "int16": 16, "int32": 32, "int64": 64}
_LINEAR_NAME = re.compile(r"(?:^|/)[^/]*(?:conv|depthwise|matmul|dense|einsum|separable)[^/]*$", re.IGNORECASE)
_BIAS_NAME = re.compile(r"BiasAdd|ReadVariableOp|FusedBatchNorm|batchnorm/", re.IGNORECASE)
"""Parts of a fused name that tell of something else than the operator."""

_NORM_NAME = re.compile(r"batch_?norm|_Fold(?:_bias)?(?:$|[/;])", re.IGNORECASE)
"""TensorFlow's and Keras's operations and layers of batch norm, and what training for quantization folds."""


def recognise_lite(raw: RawModel, hints: Options) -> Facts:
    """Facts of a TFLite file; `layers` stays empty, for folded layers leave no name and no count behind.

    Raises ReadError where a kernel's data cannot be read although it is declared.
    """
    del hints  # decay and steps mean nothing once statistics are folded
    if raw.lite is None:
        return Facts(path=str(raw.path), format=raw.format, notes=raw.notes)
    folded: list[FoldedOperator] = []
    left: list[Leftover] = []
    known = KnownValues()
    # Infinite or huge numbers are the rules' to judge, not numpy's to warn of.
    with np.errstate(over="ignore", invalid="ignore"):
        for number, subgraph in enumerate(raw.lite.subgraphs):
            wiring = Wiring.of(subgraph)
            prefix = f"subgraph {number}: " if number else ""
            folded.extend(_folded(wiring, prefix, known))
            left.extend(leftovers(wiring, prefix))
    unread = [operator.name for operator in folded if operator.channel_max is None]
    lacking = without_weights(raw.lite)
    notes = [*raw.notes, lacking] if lacking else [*raw.notes]
    if unread:
        notes.append(f"ranges of {len(unread)} kernel(s) were not read, the first of {unread[0]}")
    lite = LiteFacts(
        folded=tuple(folded),
        leftovers=_told_apart(left),
        integer=any(operator.weight_scales is not None for operator in folded),
        operators=sum(len(subgraph.operators) for subgraph in raw.lite.subgraphs),
        named=any(_NORM_NAME.search(tensor.name) for subgraph in raw.lite.subgraphs for tensor in subgraph.tensors),
    )
    return Facts(path=str(raw.path), format=raw.format, lite=lite, notes=tuple(notes))


def without_weights(lite: RawLite) -> str:
    """That a file's weights are not in it, as a sentence; empty where they are.

    The converter writes them as variables where it cannot freeze them, and then loses what they hold.
    """
    kinds = Counter(operator.kind for subgraph in lite.subgraphs for operator in subgraph.operators)
    if not kinds["READ_VARIABLE"] or kinds["ASSIGN_VARIABLE"]:
        return ""
    return (
        "its weights are variables that it reads and never sets, so it answers NaN: convert it again "
        "from a model whose variables are frozen, as TFLiteConverter.from_keras_model does"
    )


@dataclass(frozen=True, eq=False)
class LinearOperator:
    """One linear operator with a constant kernel, under a name that no other of the file has."""

    name: str
    operator: RawLiteOperator
    slots: Slots
    kernel: RawLiteTensor
    bias: RawLiteTensor | None
    rotation: Rotation | None = None
    """What its input is turned by, and its kernel with it."""


def linear_operators(wiring: Wiring, prefix: str = "") -> Iterator[LinearOperator]:
    """Operators of a subgraph that can absorb a batch norm, in execution order; none that only turns its input."""
    seen: set[str] = set()
    turned = rotations(wiring)
    turning = {rotation.by.index for rotation in turned.values()}
    for operator in wiring.graph.operators:
        slots = LINEAR.get(operator.kind)
        kernel = None if slots is None else wiring.constant(operator, slots.kernel)
        if slots is None or kernel is None or len(kernel.shape) != slots.rank or not operator.outputs:
            continue
        if operator.index in turning:
            continue
        name = prefix + _name(operator, kernel, wiring)
        name = f"{name} #{operator.index}" if name in seen else name
        seen.add(name)
        bias = wiring.constant(operator, slots.bias)
        yield LinearOperator(name, operator, slots, kernel, bias, turned.get(operator.index))


def _folded(wiring: Wiring, prefix: str, known: KnownValues) -> Iterator[FoldedOperator]:
    """Facts of the linear operators, in execution order."""
    channels = 0
    for found in linear_operators(wiring, prefix):
        operator, slots, kernel, bias = found.operator, found.slots, found.kernel, found.bias
        channels += kernel.shape[slots.axis]
        readable = not operator.shuffled and channels <= MAX_CHANNELS and found.rotation is None
        values = None if bias is None or bias.dtype not in _BIAS_BITS else integers(bias, known)
        yield FoldedOperator(
            name=found.name,
            kind=operator.kind,
            channels=kernel.shape[slots.axis],
            weight_scales=per_channel_scales(kernel),
            channel_max=largest_by_channel(kernel, slots.axis, known) if readable else None,
            bias=values,
            bias_bits=None if values is None or bias is None else _BIAS_BITS[bias.dtype],
            bias_scales=None if values is None or bias is None else per_channel_scales(bias),
            tensor="" if (output := wiring.optional(operator.outputs[0])) is None else output.name,
        )


def _told_apart(left: list[Leftover]) -> tuple[Leftover, ...]:
    """The same, with a number behind names that come up again."""
    seen: Counter[str] = Counter()
    told = []
    for one in left:
        seen[one.name] += 1
        told.append(one if seen[one.name] == 1 else replace(one, name=f"{one.name} #{seen[one.name]}"))
    return tuple(told)


def _name(operator: RawLiteOperator, kernel: RawLiteTensor, wiring: Wiring) -> str:
    """The part of the converter's fused names ("a/Relu;a/BiasAdd;a/Conv2D") that tells the linear operator."""
    output = wiring.optional(operator.outputs[0])
    named = "" if output is None else output.name
    for text in (kernel.name, named):
        for part in text.split(";"):
            if _LINEAR_NAME.search(part) and not _BIAS_NAME.search(part):
                return part
    return named.split(";")[0] or kernel.name or f"{operator.kind} {operator.index}"
