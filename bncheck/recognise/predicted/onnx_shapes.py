"""Shapes of an ONNX graph's values, as far as the size of maps needs them, and how kernels move over these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from bncheck.numerics.propagation import KernelAxis
from bncheck.recognise.onnx.nodes import OnnxNode, integer
from bncheck.recognise.onnx.values import OnnxWiring

Shape: TypeAlias = tuple[int | None, ...]
"""None: a size that is not known."""
_MOST = 1 << 20
"""What strides, paddings and taps may be at most: a file that tells more is damaged."""
_MOST_MEETINGS = 1 << 22
"""Places along one axis times taps, above which the size counts as not known."""
_WHOLE_MAPS = ("GlobalAveragePool", "GlobalMaxPool")
_OF_MAPS = ("Conv", "AveragePool", "MaxPool", "Pad", *_WHOLE_MAPS)
_DENSE = ("Gemm", "MatMul")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_SAME = frozenset(
    "BatchNormalization Cast Clip DequantizeLinear Dropout Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu "
    "Mish Neg PRelu QuantizeLinear Relu Selu Sigmoid Softmax Softplus Softsign Tanh".split()
)
"""Ops whose output has the shape of their first input."""


def shape_behind(wiring: OnnxWiring, node: OnnxNode, shapes: Mapping[str, Shape]) -> Shape | None:
    """Of a node's first output; None where it cannot be told."""
    op, above = node.op_type, shapes.get(wiring.given(node, 0))
    if op in _ARITHMETIC and len(node.input) == 2:
        return _broadcast(*(wiring.shape(name) or shapes.get(name) for name in node.input))
    if above is None or len(above) < 2:
        return None
    if op in _DENSE:
        kernel = wiring.shape(wiring.given(node, 1))
        leaving = None if kernel is None or len(kernel) != 2 else kernel[0 if integer(node, "transB", 0) else 1]
        return (*above[:-1], leaving)
    if op == "Transpose":
        told = node.attributes.get("perm")
        order = tuple(told.ints) if told is not None else ()
        return tuple(above[axis] for axis in order) if sorted(order) == list(range(len(above))) else None
    if op == "Flatten":
        return (above[0], None if None in above[1:] else _product(above[1:])) if integer(node, "axis", 1) == 1 else None
    if op in ("ReduceMean", "Squeeze"):
        axes = wiring.axes(node)
        gone = {axis % len(above) for axis in axes or ()}
        kept = op == "ReduceMean" and integer(node, "keepdims", 1) != 0
        left = tuple(1 if axis in gone else size for axis, size in enumerate(above) if kept or axis not in gone)
        return left if gone else None
    if op in _OF_MAPS:
        return _moved(wiring, node, above)
    if op == "Concat":
        return (above[0], None, *above[2:])
    return above if op in _SAME else None


def _broadcast(one: Shape | None, other: Shape | None) -> Shape | None:
    """Of two values together; None where either's is not known."""
    if one is None or other is None:
        return None
    rank = max(len(one), len(other))
    pairs = zip(*((1,) * (rank - len(shape)) + shape for shape in (one, other)), strict=True)
    return tuple(b if a == 1 else a if b in (1, a) else None for a, b in pairs)


def _moved(wiring: OnnxWiring, node: OnnxNode, above: Shape) -> Shape | None:
    """Behind an op that looks at the places of maps."""
    op, leaving = node.op_type, above[1]
    sizes: list[int | None]
    if op in _WHOLE_MAPS:
        sizes = [1 for _ in above[2:]]
    elif op == "Pad":
        zeros = with_zeros(wiring, node, len(above) - 2) or ()
        sizes = [None if size is None else size + sum(each) for size, each in zip(above[2:], zeros, strict=False)]
    elif integer(node, "ceil_mode", 0):
        sizes = [None for _ in above[2:]]
    else:
        told, kernel = node.attributes.get("kernel_shape"), wiring.shape(wiring.given(node, 1))
        if op == "Conv":
            leaving = kernel[0] if kernel else None
        taps = (kernel or ())[2:] if op == "Conv" else tuple(told.ints) if told is not None else ()
        sizes = [window.output for window in _windows(node, above, taps) or ()]
    return (above[0], leaving, *sizes) if sizes else None


def windows_of(
    wiring: OnnxWiring, node: OnnxNode, shapes: Mapping[str, Shape], taps: Sequence[int]
) -> list[KernelAxis] | None:
    """How a convolution's kernel moves; None where its border counts and the size of the map is not known."""
    zeros, source = None, node.input[0]
    before = wiring.producers.get(source)
    if before is not None and before.op_type == "Pad":
        zeros, source = with_zeros(wiring, before, len(taps)), before.input[0]
        if zeros is None:
            return None
    windows = _windows(node, shapes.get(source) or (None,) * (len(taps) + 2), taps, zeros)
    if windows is None:
        return None
    unknown = any(window.size is None and (window.kernel > 1 or any(window.zeros)) for window in windows)
    return None if unknown else windows


def _windows(
    node: OnnxNode, above: Shape, taps: Sequence[int], zeros: Sequence[tuple[int, int]] | None = None
) -> list[KernelAxis] | None:
    """Of a kernel with these taps over a map; `zeros`: those that a Pad puts around it before."""
    rank = len(taps)
    told = node.attributes
    strides, dilations = (_each(told, name, rank) for name in ("strides", "dilations"))
    pads = list(told["pads"].ints) if "pads" in told else [0] * 2 * rank
    auto = told["auto_pad"].s if "auto_pad" in told else b"NOTSET"
    if zeros is not None:
        pads = [own + more for own, more in zip(pads, [*(z[0] for z in zeros), *(z[1] for z in zeros)], strict=False)]
        auto = b"NOTSET" if auto == b"VALID" else auto
    sizes = above[2:]
    if len(sizes) != rank or len(pads) != 2 * rank or auto == b"SAME_LOWER" or min((*strides, *dilations, 1)) < 1:
        return None
    if any(abs(one) > _MOST for one in (*strides, *dilations, *pads, *taps)) or min((*pads, *taps), default=0) < 0:
        return None
    return [
        KernelAxis(
            size=_within(sizes[axis], taps[axis]),
            kernel=taps[axis],
            stride=strides[axis],
            padding=None if auto == b"SAME_UPPER" else (0, 0) if auto == b"VALID" else (pads[axis], pads[axis + rank]),
            dilation=dilations[axis],
        )
        for axis in range(rank)
    ]


def _within(size: int | None, taps: int) -> int | None:
    return None if size is None or size * taps > _MOST_MEETINGS else size


def with_zeros(wiring: OnnxWiring, node: OnnxNode, rank: int) -> list[tuple[int, int]] | None:
    """Zeros that a Pad puts before and after each axis of a map; None where it pads otherwise."""
    told = node.attributes
    if told["mode"].s != b"constant" if "mode" in told else False:
        return None
    given = wiring.numbers(wiring.given(node, 1))
    pads = (
        list(told["pads"].ints)
        if "pads" in told
        else []
        if given is None
        else [int(p) for p in given.values.reshape(-1)]
    )
    if (
        len(pads) != 2 * (rank + 2)
        or any(pads[:2])
        or any(pads[rank + 2 : rank + 4])
        or not 0 <= min(pads) <= max(pads) <= _MOST
    ):
        return None
    return list(zip(pads[2 : rank + 2], pads[rank + 4 :], strict=True))


def _each(told: Mapping[str, object], name: str, rank: int) -> list[int]:
    found = list(told[name].ints) if name in told else []  # type: ignore[attr-defined]  # an AttributeProto
    return found if len(found) == rank else [1] * rank


def _product(sizes: Sequence[int | None]) -> int:
    made = 1
    for size in sizes:
        made *= size or 0
    return made
