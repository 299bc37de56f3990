"""Each operator by itself: both files with their operators unchained, so that each is given the clean input.

An operator's own loss is what it gives against what the float operator gives for the same input: the float file's
tensor, rounded to the type that the quantized operator reads. Both get the rounded values, since rounding them is the
loss of the operator before. Between two matched tensors there may be several operators (a PAD that the other file has
fused, say): they stay chained and count as one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bncheck.compare.litert.edit import Reading, unchain
from bncheck.compare.litert.interpreter import IntegerScale, affine
from bncheck.compare.litert.match import Matching
from bncheck.compare.litert.net import Net
from bncheck.sources.raw import RawLiteOperator


@dataclass(frozen=True, kw_only=True)
class Feed:
    """One fresh input of an unchained file."""

    number: int
    """Its tensor number."""
    like: int
    """The tensor of the same file that it stands for, and whose shape it has."""
    source: int
    """The float file's tensor whose values it takes, ..."""
    rounded: IntegerScale | None
    """... rounded to this type; None: as they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LossPart:
    """What is measured as one: the operators between matched tensors that make a matched tensor."""

    operator: int
    """Of the quantized file: the one with the kernel where there is one, else the last."""
    output: int
    """Tensor of the quantized file."""
    reference: int
    """Tensor of the float file."""
    counterpart: int | None
    """Operator of the float file; None for a QUANTIZE, which should give what it is given."""
    rerun: bool
    """Whether the float operator has to be run on rounded input; else its clean output is the reference."""
    given: IntegerScale | None
    """For a QUANTIZE of integers: the type that it reads."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Local:
    """Both files unchained."""

    quantized: bytes
    quantized_feeds: tuple[Feed, ...]
    reference: bytes | None
    """None where no input is rounded: the clean tensors are the references then."""
    reference_feeds: tuple[Feed, ...]
    parts: tuple[LossPart, ...]


def unchained(quantized: bytes, reference: bytes, matching: Matching) -> Local:
    """Unchains two matched files; their bytes may have been edited, as long as tensor numbers are the same."""
    ours, theirs = matching.quantized, matching.reference
    cut = {number for number in matching.tensors if _can_be_fed(ours, number)}
    images = {matching.tensors[number] for number in cut}
    keys: dict[Reading, tuple[int, int | None]] = {}
    parts = []
    for pair in matching.pairs:
        operator = ours.graph.operators[pair.quantized]
        for output in ours.data_outputs(operator):
            if output not in cut:
                continue
            members, readings = _region(ours, output, cut)
            edges = sorted({ours.graph.operators[o].inputs[p] for o, p in readings})
            rounding = {matching.tensors[n]: n for n in edges if affine(ours.tensor(n)) is not None}
            identity = operator.kind == "QUANTIZE"
            if rounding and not identity:
                for reading in _region(theirs, matching.tensors[output], images)[1]:
                    source = theirs.graph.operators[reading[0]].inputs[reading[1]]
                    keys.setdefault(reading, (source, rounding.get(source)))
            parts.append(
                LossPart(
                    operator=_main(ours, members, operator).index,
                    output=output,
                    reference=matching.tensors[output],
                    counterpart=pair.reference,
                    rerun=bool(rounding) and not identity,
                    given=affine(ours.tensor(next(iter(rounding.values())))) if identity and rounding else None,
                )
            )

    def read(reading: Reading) -> int | None:
        number = ours.graph.operators[reading[0]].inputs[reading[1]]
        return number if number in cut else None

    tensors = ours.graph.tensors
    content, fresh = unchain(quantized, read, [part.output for part in parts])
    feeds = (
        Feed(number=number, like=tensor, source=matching.tensors[tensor], rounded=affine(tensors[tensor]))
        for tensor, number in fresh.items()
    )
    rerun = [part.reference for part in parts if part.rerun]
    float_content: bytes | None = None
    float_fresh: dict[tuple[int, int | None], int] = {}
    if rerun:
        float_content, float_fresh = unchain(reference, keys.get, rerun)
    float_feeds = (
        Feed(number=number, like=source, source=source, rounded=None if like is None else affine(tensors[like]))
        for (source, like), number in float_fresh.items()
    )
    return Local(
        quantized=content,
        quantized_feeds=tuple(feeds),
        reference=float_content,
        reference_feeds=tuple(float_feeds),
        parts=tuple(parts),
    )


def _can_be_fed(wiring: Net, number: int) -> bool:
    """Whether the numbers of the float file can be given in the tensor's type."""
    tensor = wiring.tensor(number)
    # images that a CAST inside the model makes real numbers of are fed as the integers that they are
    return tensor.dtype in ("float32", "float16") or affine(tensor) is not None or number in wiring.graph.inputs


def _region(wiring: Net, output: int, cut: set[int]) -> tuple[list[RawLiteOperator], list[Reading]]:
    """The operators behind a tensor as far as the next tensors of `cut`, and where they read those."""
    members: list[RawLiteOperator] = []
    readings: list[Reading] = []
    stack, seen = [output], {output}
    while stack:
        maker = wiring.makers.get(stack.pop())
        if maker is None or any(member.index == maker.index for member in members):
            continue
        members.append(maker)
        for position, number in enumerate(maker.inputs):
            if number in cut:
                readings.append((maker.index, position))
            elif number not in seen:
                seen.add(number)
                stack.append(number)
    return members, readings


def _main(wiring: Net, members: Iterable[RawLiteOperator], last: RawLiteOperator) -> RawLiteOperator:
    """The operator that a group is called by: the nearest one with a kernel, else the last."""
    return next((member for member in members if wiring.kernel_tensor(member) is not None), last)
