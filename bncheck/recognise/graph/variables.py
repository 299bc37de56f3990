"""Variables of a graph -> their stored values: checkpoint keys, constants of a frozen graph, kernels, parts joined."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bncheck.facts.layers import Linear, Presence, Role, Vector
from bncheck.recognise.graph.flat import FlatGraph
from bncheck.recognise.graph.trace import VARIABLES, declared_shape, tensor_value, uniform_initial, variable_name
from bncheck.recognise.graph.upstream import Upstream
from bncheck.recognise.kernel_sizes import linear_before
from bncheck.recognise.stored_vectors import declared, missing, unread, vector
from bncheck.sources.graph import protos
from bncheck.sources.raw import RawGraph, RawModel, RawTensor

_PART = re.compile(r"(.+)/part_(\d+)\Z")
"""How TensorFlow itself names parts (variable_scope.py, _get_partitioned_variable); a Saver stores them as one."""


class Stored:
    """Reads what a graph's variables hold."""

    def __init__(self, raw: RawModel, flat: FlatGraph, keys: Mapping[int, str], graph: RawGraph) -> None:
        self._tensors = raw.tensors
        self.flat = flat
        self._keys = keys
        self._initializers = graph.initializers
        self._by_full_name = _full_names(raw)
        self._graph = graph

    def of(self, raw: RawModel) -> Stored:
        """The same variables in another checkpoint of the graph."""
        return Stored(raw, self.flat, self._keys, self._graph)

    @property
    def names(self) -> Mapping[str, RawTensor]:
        """The checkpoint's tensors."""
        return self._tensors

    def name(self, node: int) -> str:
        """Name of a variable, or of the constant that froze it."""
        return variable_name(self.flat, node)

    def tensor(self, node: int) -> RawTensor | None:
        """The stored tensor of a variable or constant node; None where the checkpoint has none."""
        if self.flat.ops[node] == "Const":
            return _constant_tensor(self.flat, node)
        name = self.name(node)
        for key in (self._keys.get(node), name, self._by_full_name.get(name)):
            if key is not None and key in self._tensors:
                return self._tensors[key]
        return None

    def vector(self, role: Role, node: int | None, initial: float | None) -> Vector:
        """The vector of one role, `declared`; ABSENT without a variable, MISSING where the checkpoint lacks it.

        A frozen variable's is read, as it is none of the checkpoint's.
        """
        if node is None:
            return Vector(role=role, presence=Presence.ABSENT, reason="the layer has no such variable")
        name, shape = self.name(node), _known_shape(declared_shape(self.flat, node))
        initial = self._initial(name) if initial is None else initial
        tensor = self.tensor(node)
        if tensor is not None:
            made = vector if self.flat.ops[node] == "Const" else declared
            return made(role, tensor, name=name, initial=initial)
        if not self._tensors:
            return unread(role, name, "no checkpoint was given", shape=shape, initial=initial)
        return missing(role, name, "the checkpoint has no such key", shape=shape)

    def _initial(self, name: str) -> float | None:
        e = self.flat.lookup(self._initializers[name]) if name in self._initializers else None
        return None if e is None else uniform_initial(self.flat, e)


def _known_shape(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    return None if shape is None or any(size < 0 for size in shape) else shape


def _full_names(raw: RawModel) -> dict[str, str]:
    """Variable name -> key, from the object graph of a TF2 checkpoint; names that are not unique are left out."""
    found: dict[str, str] = {}
    ambiguous: set[str] = set()
    for node in raw.object_graph.nodes if raw.object_graph is not None else ():
        for attribute in node.attributes:
            if attribute.full_name in found and found[attribute.full_name] != attribute.checkpoint_key:
                ambiguous.add(attribute.full_name)
            found[attribute.full_name] = attribute.checkpoint_key
    return {name: key for name, key in found.items() if name not in ambiguous}


def _constant_tensor(flat: FlatGraph, node: int) -> RawTensor | None:
    value = flat.attr(node, "value")
    if value is None:
        return None
    shape = tuple(dim.size for dim in value.tensor.tensor_shape.dim)
    kind = protos.data_type(value.tensor.dtype)
    array = tensor_value(value.tensor)
    return RawTensor(
        name=flat.names[node],
        dtype={"float": "float32", "double": "float64", "half": "float16"}.get(kind, kind),
        shape=shape,
        read=lambda: np.empty(shape) if array is None else array,
        unavailable="a constant of a type that was not read" if array is None else None,
    )


def linear_of(stored: Stored, before: Upstream) -> Linear | None:
    """The op that the site is folded into, with the range of its kernel where that could be read."""
    if before.linear is None:
        return None
    flat = stored.flat
    op, name = flat.ops[before.linear], flat.names[before.linear]
    if before.kernel is None:
        return Linear(name=name, op=op, kernel="", reason="the kernel is computed by the graph")
    kernel, tensor = stored.name(before.kernel), stored.tensor(before.kernel)
    if tensor is None:
        return Linear(name=name, op=op, kernel=kernel, reason="no checkpoint holds the kernel")
    return replace(linear_before(name, op, tensor), kernel=kernel)


def join_parts(graph: FlatGraph) -> None:
    """Gives every part of a partitioned variable the name and the shape of the whole, and notes its first part."""
    parts: defaultdict[str, dict[int, list[int]]] = defaultdict(dict)
    for op in sorted(VARIABLES):
        for node in graph.by_op.get(op, ()):
            name = variable_name(graph, node)
            found = _PART.match(name) if "/part_" in name else None
            if found is not None:
                parts[found[1]].setdefault(int(found[2]), []).append(node)
    for name, numbered in parts.items():
        if sorted(numbered) != list(range(len(numbered))) or any(len(nodes) != 1 for nodes in numbered.values()):
            continue
        nodes = [numbered[number][0] for number in range(len(numbered))]
        whole = _joined([declared_shape(graph, node) for node in nodes])
        if whole is None:
            continue
        for node in nodes:
            graph.variable_names[node], graph.shapes[node] = name, whole
            graph.whole[node] = nodes[0]


def _joined(shapes: list[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """The shape of all parts in a row, along the axis in which they differ, else the first, TensorFlow's default."""
    known = [shape for shape in shapes if shape]
    if len(known) != len(shapes) or len({len(shape) for shape in known}) != 1:
        return None
    differing = [axis for axis, sizes in enumerate(zip(*known, strict=True)) if len(set(sizes)) > 1]
    if len(differing) > 1:
        return None
    axis = differing[0] if differing else 0
    whole = list(known[0])
    whole[axis] = sum(shape[axis] for shape in known)
    return tuple(whole)
