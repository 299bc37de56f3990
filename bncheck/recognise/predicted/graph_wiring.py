"""What lies between the batch norms of a graph: kernels, paddings, sizes, without any value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from bncheck.numerics.propagation import KernelAxis
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.trace import VARIABLES, constant, declared_shape, sources, steps_back
from bncheck.recognise.graph.upstream import LINEAR
from bncheck.recognise.graph.variables import Stored
from bncheck.recognise.kernel_sizes import is_read

_RESHAPES = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_POOLS = frozenset({"AvgPool", "MaxPool", "MaxPoolV2"})
_TO_OTHER_LAYOUT = ((0, 2, 3, 1), (0, 3, 1, 2))
_DEPTH = 80


class GraphWiring:
    """Found once for all checkpoints of one graph and layout, as far as it is asked for."""

    def __init__(self, flat: FlatGraph, stored: Stored) -> None:
        self.flat, self._stored = flat, stored
        self._shapes: dict[int, tuple[int | None, ...] | None] = {}
        self._variables: dict[int, int | None] = {}
        self._backs: dict[int, tuple[int, ...]] = {}
        self._inputs: dict[int, tuple[int, list[KernelAxis]]] = {}

    def variable(self, e: int) -> int | None:
        """The variable or constant that a tensor is, if one that is read; None else."""
        if e not in self._variables:
            found = sources(self.flat, e)
            node = node_of(found[0]) if len(found) == 1 else None
            known = node is not None and self.flat.ops[node] in VARIABLES | {"Const"}
            tensor = self._stored.tensor(node) if node is not None and known else None
            self._variables[e] = node if tensor is not None and is_read(tensor) else None
        return self._variables[e]

    def back(self, e: int) -> tuple[int, ...]:
        """What a tensor is, but for its layout; empty where that is not told."""
        if e not in self._backs:
            self._backs[e] = self._back(e)
        return self._backs[e]

    def kernel_input(self, node: int, kernel: Sequence[int]) -> tuple[int, list[KernelAxis]]:
        """(the tensor that a convolution reads, how its kernel of these taps moves along it)."""
        if node not in self._inputs:
            padded, x = self._padding(self.flat.data[node][0])
            self._inputs[node] = x, self._windows(node, x, kernel, padded)
        return self._inputs[node]

    def _back(self, e: int) -> tuple[int, ...]:
        node = node_of(e)
        if self.flat.ops[node] == "Transpose":
            order = constant(self.flat, self.flat.data[node][1])
            same = order is not None and tuple(order.reshape(-1)) in _TO_OTHER_LAYOUT
            return self.flat.data[node][:1] if same else ()
        return steps_back(self.flat, e) or ()

    def _padding(self, e: int) -> tuple[NDArray[Any] | None, int]:
        """((axes, 2) zeros put around by an op of its own, what they are put around)."""
        node = node_of(e)
        if self.flat.ops[node] != "Pad" or len(self.flat.data[node]) != 2:
            return None, e
        zeros = constant(self.flat, self.flat.data[node][1])
        return (None, e) if zeros is None or zeros.shape != (4, 2) else (zeros, self.flat.data[node][0])

    def _windows(
        self, node: int, x: int, kernel: Sequence[int], padded: NDArray[Any] | None = None
    ) -> list[KernelAxis]:
        flat, shape = self.flat, self._shape_of(x)
        first = 2 if _channels_first(flat, node) else 1
        strides, dilations = (numbers_of(flat, node, name) for name in ("strides", "dilations"))
        given = flat.attr(node, "padding")
        same = given is not None and given.s == b"SAME"
        found = []
        for axis, taps in enumerate(kernel, first):
            zeros = (0, 0) if padded is None else (int(padded[axis][0]), int(padded[axis][1]))
            found.append(
                KernelAxis(
                    size=None if shape is None or len(shape) != 4 else shape[axis],
                    kernel=taps,
                    stride=max(strides[axis], 1),
                    padding=None if same and padded is None else zeros,
                    dilation=max(dilations[axis], 1),
                )
            )
        return found

    def _shape_of(self, e: int) -> tuple[int | None, ...] | None:
        """The shape of a tensor, None for sizes that are not known, or as a whole."""
        if e not in self._shapes:
            self._shapes[e] = None
            self._shapes[e] = self._shape(e)
        return self._shapes[e]

    def _shape(self, e: int) -> tuple[int | None, ...] | None:
        flat = self.flat
        passed: list[int] = []
        while True:  # most ops pass the shape on: no recursion for those
            node = node_of(e)
            declared = declared_shape(flat, node) if flat.ops[node] not in VARIABLES else None
            if declared is not None and all(size > 0 for size in declared[1:]):
                return tuple(None if size < 0 else size for size in declared)
            op, data = flat.ops[node], flat.data[node]
            if op in LINEAR or op in _POOLS or op == "Pad" or op in _RESHAPES or not data or len(passed) > _DEPTH:
                break
            back = steps_back(flat, e) or data[:1]
            passed.append(e)
            e = back[0]
        if op in _POOLS and data:
            size = numbers_of(flat, node, "ksize")
            first = 2 if _channels_first(flat, node) else 1
            return self._moved(node, data[0], size[first : first + 2])
        if op == "Pad":
            padded, x = self._padding(e)
            shape = self._shape_of(x)
            if padded is None or shape is None or len(shape) != 4:
                return None
            return tuple(None if s is None else s + int(sum(p)) for s, p in zip(shape, padded, strict=True))
        if op in ("Conv2D", "DepthwiseConv2dNative") and len(data) == 2:
            kernel = self.variable(data[1])
            tensor = None if kernel is None else self._stored.tensor(kernel)
            return None if tensor is None else self._moved(node, data[0], tensor.shape[:2])
        return None

    def _moved(self, node: int, x: int, kernel: Sequence[int]) -> tuple[int | None, ...] | None:
        shape = self._shape_of(x)
        if shape is None or len(shape) != 4 or len(kernel) != 2:
            return None
        first = 2 if _channels_first(self.flat, node) else 1
        found = list(shape)
        for axis, window in enumerate(self._windows(node, x, kernel), first):
            found[axis] = window.output
        return tuple(found)


def _channels_first(flat: FlatGraph, node: int) -> bool:
    layout = flat.attr(node, "data_format")
    return layout is not None and layout.s.startswith(b"NC")


def numbers_of(flat: FlatGraph, node: int, name: str) -> list[int]:
    """An attribute of four numbers, one an axis; ones where there is none."""
    given = flat.attr(node, name)
    found = [] if given is None else [int(one) for one in given.list.i]
    return found if len(found) == 4 else [1, 1, 1, 1]
