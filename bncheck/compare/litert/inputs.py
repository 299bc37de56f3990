"""Which input of a quantized TFLite file is which of the float one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bncheck.compare.litert.interpreter import LiteFile
from bncheck.facts.errors import BncheckError
from bncheck.sources.raw import RawLiteTensor


def fed_alike(quantized: LiteFile, reference: LiteFile) -> LiteFile:
    """The quantized file with its inputs told apart as the float file's are: by name, else by their order.

    Raises BncheckError where it takes other samples.
    """
    if len(quantized.inputs) != len(reference.inputs):
        raise BncheckError(
            f"{quantized.path} takes {len(quantized.inputs)} inputs, but the float model {len(reference.inputs)}: it "
            "is another model"
        )
    order = reference.fields
    if set(quantized.names) == set(reference.names) and len(set(reference.names)) == len(order):
        order = tuple(reference.fields[reference.names.index(name)] for name in quantized.names)
    theirs = dict(zip(reference.fields, reference.inputs, strict=True))
    for entry, field_ in zip(quantized.inputs, order, strict=True):
        _same_input(quantized.path, entry, theirs[field_])
    return replace(quantized, fields=order)


def _same_input(path: str, entry: RawLiteTensor, other: RawLiteTensor) -> None:
    ours, theirs = ((tensor.shape_signature or tensor.shape)[1:] for tensor in (entry, other))
    agree = len(ours) == len(theirs) and all(a == b or -1 in (a, b) for a, b in zip(ours, theirs, strict=True))
    if not agree:
        turned = "the channels are on another axis, which compare cannot transpose: convert both in one layout"
        why = turned if sorted(ours) == sorted(theirs) else "it is another model"
        raise BncheckError(f"{path} takes samples of {_by(ours)}, but the float model of {_by(theirs)}: {why}")


def _by(shape: Iterable[int]) -> str:
    return "x".join(str(size) for size in shape) or "one number"
