"""Questions about one edge of a flat graph: where its value comes from, what constant it is, when it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bncheck.model import Switch
from bncheck.recognise.flat import CONDITIONALS, PORT_BITS, FlatGraph, edge, node_of, port_of
from bncheck.sources import protos

VARIABLES = frozenset({"VariableV2", "Variable", "VarHandleOp"})
PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
REF_WRITES = frozenset({"Assign", "AssignAdd", "AssignSub"})

_COPIES = """
    Identity RefIdentity ReadVariableOp Enter RefEnter Exit RefExit Switch RefSwitch _SwitchN NextIteration
    RefNextIteration
    Cast Reshape ExpandDims Squeeze BroadcastTo StopGradient PreventGradient CheckNumerics CheckNumericsV2 Snapshot
    Print EnsureShape DeepCopy DebugIdentity DebugIdentityV2 FakeQuantWithMinMaxVars FakeQuantWithMinMaxArgs
    FakeQuantWithMinMaxVarsPerChannel QuantizeAndDequantizeV2 QuantizeAndDequantizeV3 TPUReplicatedInput
    TPUReplicatedOutput XlaSharding Bitcast
"""
PASS = frozenset(_COPIES.split()) | REF_WRITES
"""Ops whose output is, for recognition, their first input: the same numbers in the same order."""

_MERGES = frozenset({"Merge", "RefMerge"})
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_SELECTS = frozenset({"Select", "SelectV2"})
_ENTERS = frozenset({"Enter", "RefEnter"})
_EXITS = frozenset({"Exit", "RefExit"})
_FRAMES = _ENTERS | _EXITS
_STEPS = PASS | _MERGES | _SELECTS | {"IdentityN", "ConcatV2"}
_LIMIT = 400
"""Edges one question may visit; per-channel operands need a few dozen."""


def steps_back(graph: FlatGraph, e: int) -> tuple[int, ...] | None:
    """The edges whose value `e` passes on unchanged (several where a condition chooses); None at a source."""
    node = node_of(e)
    op = graph.ops[node]
    if op not in _STEPS and node not in graph.returns:
        return None
    data = graph.data[node]
    if op in PASS:
        return data[:1] or None
    if op == "IdentityN":
        return data[port_of(e) : port_of(e) + 1] or None
    if op in _MERGES:
        return data or None
    if op in _SELECTS and len(data) == 3:
        return data[1:]
    if op == "ConcatV2":
        return data[:-1] or None
    if node in graph.returns:
        found = tuple(edges[port_of(e)] for edges in graph.returns[node] if port_of(e) < len(edges))
        return tuple(x for x in found if node_of(x) != node) or None
    return None


def sources(graph: FlatGraph, e: int) -> list[int]:
    """Edges at which the value of `e` originates: variables, constants, placeholders, or the op that computes it."""
    # Nearly always there is but one way back.
    for _ in range(_LIMIT):
        way = steps_back(graph, e)
        if way is None:
            return [e]
        if len(way) > 1:
            break
        e = way[0]
    found: list[int] = []
    seen = {e}
    stack = [e]
    while stack and len(seen) < _LIMIT:
        current = stack.pop()
        back = steps_back(graph, current)
        if back is None:
            found.append(current)
            continue
        for x in reversed(back):
            if x not in seen:
                seen.add(x)
                stack.append(x)
    return found


def variable_name(graph: FlatGraph, node: int) -> str:
    """Name of a variable node; resource handles are known by their shared name."""
    known = graph.variable_names.get(node)
    if known is None:
        known = graph.variable_names[node] = _shared_name(graph, node) or graph.names[node]
    return known


def _shared_name(graph: FlatGraph, node: int) -> str:
    shared = graph.attr(node, "shared_name") if graph.ops[node] == "VarHandleOp" else None
    return "" if shared is None else str(shared.s.decode("utf-8", "replace"))


def declared_shape(graph: FlatGraph, node: int) -> tuple[int, ...] | None:
    """Shape attribute of a variable, placeholder or constant (-1 unknown); None where the rank is unknown."""
    if node not in graph.shapes:
        found = _shape(graph, node)
        graph.shapes[node] = None if found is None else tuple([dim.size for dim in found.dim])
    return graph.shapes[node]


def _shape(graph: FlatGraph, node: int) -> Any | None:
    if graph.ops[node] == "Const":
        value = graph.attr(node, "value")
        return None if value is None else value.tensor.tensor_shape
    shape = graph.attr(node, "shape")
    if shape is not None and not shape.shape.unknown_rank:
        return shape.shape
    outputs = graph.attr(node, "_output_shapes")
    if outputs is None or not outputs.list.shape or outputs.list.shape[0].unknown_rank:
        return None
    return outputs.list.shape[0]


_NUMPY: dict[str, tuple[np.dtype[Any], str]] = {
    "float": (np.dtype("<f4"), "float_val"),
    "double": (np.dtype("<f8"), "double_val"),
    "half": (np.dtype("<f2"), "half_val"),
    "int32": (np.dtype("<i4"), "int_val"),
    "int64": (np.dtype("<i8"), "int64_val"),
    "bool": (np.dtype("?"), "bool_val"),
    "uint8": (np.dtype("u1"), "int_val"),
    "int8": (np.dtype("i1"), "int_val"),
    "int16": (np.dtype("<i2"), "int_val"),
}


def tensor_value(proto: Any, limit: int = 1 << 26) -> NDArray[Any] | None:
    """A TensorProto as an array; None for other dtypes, contradictory sizes, or more than `limit` elements.

    The last listed value fills the rest (tensor.proto); half and bfloat16 are stored as 16-bit patterns.
    """
    kind = protos.data_type(proto.dtype)
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if any(size < 0 for size in shape):
        return None
    size = math.prod(shape)
    if size > limit:
        return None
    if kind == "bfloat16":
        if proto.tensor_content:
            if len(proto.tensor_content) != 2 * size:
                return None
            bits = np.frombuffer(proto.tensor_content, "<u2").astype(np.uint32)
        else:
            bits = _filled(np.array(list(proto.half_val), np.uint32), size)
        return (bits << 16).view(np.float32).reshape(shape)
    if kind not in _NUMPY:
        return None
    dtype, listed = _NUMPY[kind]
    if proto.tensor_content:
        if len(proto.tensor_content) != dtype.itemsize * size:
            return None
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values: list[Any] = list(getattr(proto, listed))
    if kind == "half":
        return _filled(np.array(values, np.uint16), size).view(np.float16).reshape(shape)
    if len(values) > max(size, 1):
        return None
    return _filled(np.array(values, dtype), size).reshape(shape)


def _filled(values: NDArray[Any], size: int) -> NDArray[Any]:
    if values.size >= size:
        return values[:size]
    last = values[-1:] if values.size else np.zeros(1, values.dtype)
    return np.concatenate([values, np.repeat(last, size - values.size)])


def constant(graph: FlatGraph, e: int) -> NDArray[Any] | None:
    """The constant array behind an edge, through ops that pass it on; None where it is no constant."""
    found = sources(graph, e)
    if len(found) != 1 or graph.ops[node_of(found[0])] != "Const":
        return None
    value = graph.attr(node_of(found[0]), "value")
    return None if value is None else tensor_value(value.tensor)


def scalar(graph: FlatGraph, e: int) -> float | None:
    """The one number behind an edge: a scalar constant, or one whose elements are all equal."""
    found = sources(graph, e)
    return _scalar_at(graph, node_of(found[0])) if len(found) == 1 else None


def _scalar_at(graph: FlatGraph, node: int) -> float | None:
    attribute = graph.attr(node, "value") if graph.ops[node] == "Const" else None
    if attribute is None:
        return None
    tensor = attribute.tensor
    # One float is what nearly all are; it fills the tensor, however large that is.
    if tensor.dtype == 1 and len(tensor.float_val) == 1 and not tensor.tensor_content:
        return float(tensor.float_val[0]) if all(dim.size > 0 for dim in tensor.tensor_shape.dim) else None
    value = tensor_value(tensor)
    if value is None or value.size == 0 or value.dtype == bool:
        return None
    first = float(value.reshape(-1)[0])
    return first if value.size == 1 or bool(np.all(value == value.reshape(-1)[0])) else None


def uniform_initial(graph: FlatGraph, e: int) -> float | None:
    """The one value that an initialiser gives every element: a uniform constant or a Fill; None if not uniform."""
    found = sources(graph, e)
    if len(found) != 1:
        return None
    node = node_of(found[0])
    return scalar(graph, graph.data[node][1]) if graph.ops[node] == "Fill" else _scalar_at(graph, node)


def predicate(graph: FlatGraph, e: int) -> tuple[int, bool]:
    """(node, negated): the source of a condition, through copies, casts and negations."""
    negated = False
    for _ in range(_LIMIT):
        node = node_of(e)
        op = graph.ops[node]
        if op == "LogicalNot" and graph.data[node]:
            negated = not negated
            e = graph.data[node][0]
            continue
        back = steps_back(graph, e)
        if back is None or len(back) != 1:
            return node, negated
        e = back[0]
    return node_of(e), negated


def describe_switch(graph: FlatGraph, node: int, train_when: bool | None) -> Switch:  # noqa: FBT001  a value of the model
    """What kind of thing the condition at `node` is, with its default where it has one."""
    op = graph.ops[node]
    if op == "PlaceholderWithDefault":
        return Switch(
            predicate=graph.names[node],
            kind="placeholder-with-default",
            default=_truth(graph, graph.data[node][0]),
            train_when=train_when,
        )
    if op in PLACEHOLDERS:
        return Switch(predicate=graph.names[node], kind="placeholder", train_when=train_when)
    if op == "Const":
        return Switch(
            predicate=graph.names[node], kind="constant", default=_truth(graph, edge(node)), train_when=train_when
        )
    kind = "variable" if op in VARIABLES else "computed"
    return Switch(predicate=graph.names[node], kind=kind, train_when=train_when)


def _truth(graph: FlatGraph, e: int) -> bool | None:
    value = constant(graph, e)
    return bool(value.reshape(-1)[0]) if value is not None and value.size == 1 else None


class Context(NamedTuple):
    """When a node runs: the conditions that must hold, as (predicate node, value), and the loops it is in."""

    conditions: frozenset[tuple[int, bool]] = frozenset()
    loops: frozenset[str] = frozenset()

    def __or__(self, other: Context) -> Context:
        if other is _ALWAYS or self is other:
            return self
        if self is _ALWAYS or (self.conditions <= other.conditions and self.loops <= other.loops):
            return other
        if other.conditions <= self.conditions and other.loops <= self.loops:
            return self
        return Context(self.conditions | other.conditions, self.loops | other.loops)

    def value_of(self, node: int) -> bool | None:
        """The value that the condition at `node` must have; None where it does not matter."""
        return next((side for where, side in self.conditions if where == node), None)


_ALWAYS = Context()


class Contexts:
    """Contexts of nodes, computed once each: Switch opens a condition, Merge closes it, Enter and Exit frame loops."""

    def __init__(self, graph: FlatGraph) -> None:
        self._graph = graph
        self._known: dict[int, Context] = {}
        self._open: set[int] = set()
        self._v1 = any(op in graph.by_op for op in ("Switch", "RefSwitch", "Enter", "RefEnter"))

    def of(self, node: int) -> Context:
        """The context of one node."""
        if not self._v1 and not self._graph.frames:
            return _ALWAYS
        known = self._known
        if node in known:
            return known[node]
        stack = [node]
        while stack:
            current = stack[-1]
            if current in known:
                stack.pop()
                continue
            if current not in self._open:
                waiting = self._unknown(current)
                if waiting:
                    self._open.add(current)
                    stack += waiting
                    continue
            known[current] = self._join(current)
            self._open.discard(current)
            stack.pop()
        return known[node]

    def _unknown(self, node: int) -> list[int]:
        """What runs before a node and has no known context yet; back edges of loops do not count."""
        graph, known = self._graph, self._known
        found = [e >> PORT_BITS for e in graph.data[node] if e >> PORT_BITS not in known]
        if node in graph.control:
            found += [waited for waited in graph.control[node] if waited not in known]
        if node in graph.frame_of and graph.frames[graph.frame_of[node]].call not in known:
            found.append(graph.frames[graph.frame_of[node]].call)
        return [source for source in found if graph.ops[source] != "NextIteration"] if found else found

    def _join(self, node: int) -> Context:
        if self._is_plain(node):
            return _ALWAYS
        graph = self._graph
        op = graph.ops[node]
        arriving: list[Context] = []
        for e in graph.data[node]:
            known = self._known.get(e >> PORT_BITS)
            source = graph.ops[e >> PORT_BITS]
            if known is not None and source != "NextIteration":
                arriving.append(self._along(e) if source in _SWITCHES else known)
        if op in _MERGES and len(arriving) > 1:
            joined = Context(
                frozenset.intersection(*(c.conditions for c in arriving)),
                frozenset.intersection(*(c.loops for c in arriving)),
            )
        else:
            joined = _ALWAYS
            for context in arriving:
                joined = joined | context
        for waited in graph.control.get(node, ()):
            joined = joined | self._known.get(waited, _ALWAYS)
        if op in _ENTERS:
            joined = joined | Context(loops=frozenset({self._frame_name(node)}))
        elif op in _EXITS:
            joined = Context(joined.conditions, joined.loops - self._loops_left(node))
        frame = graph.frame_of.get(node)
        return joined if frame is None else joined | self._frame_context(frame)

    def _is_plain(self, node: int) -> bool:
        """Whether nothing bears on a node: what it reads always runs, and it neither waits nor frames a loop."""
        graph, known = self._graph, self._known
        if node in graph.control or node in graph.frame_of or graph.ops[node] in _FRAMES:
            return False
        for e in graph.data[node]:
            source = e >> PORT_BITS
            if known.get(source) is not _ALWAYS or graph.ops[source] in _SWITCHES:
                return False
        return True

    def _along(self, e: int) -> Context:
        graph = self._graph
        node = node_of(e)
        context = self._known[node]
        if len(graph.data[node]) < 2:
            return context
        source, negated = predicate(graph, graph.data[node][1])
        if graph.ops[source] == "LoopCond":
            return context
        side = bool(port_of(e)) != negated
        return context | Context(conditions=frozenset({(source, side)}))

    def _frame_name(self, node: int) -> str:
        name = self._graph.attr(node, "frame_name")
        return "" if name is None else str(name.s.decode("utf-8", "replace"))

    def _loops_left(self, node: int) -> frozenset[str]:
        graph = self._graph
        for _ in range(4):
            if not graph.data[node]:
                break
            node = node_of(graph.data[node][0])
            if graph.ops[node] in _ENTERS:
                return frozenset({self._frame_name(node)})
        return frozenset()

    def _frame_context(self, number: int) -> Context:
        graph = self._graph
        frame = graph.frames[number]
        context = self._known.get(frame.call, _ALWAYS)
        if frame.loop:
            return context | Context(loops=frozenset({graph.names[frame.call]}))
        if frame.branch is None or graph.ops[frame.call] not in CONDITIONALS or not graph.data[frame.call]:
            return context
        source, negated = predicate(graph, graph.data[frame.call][0])
        return context | Context(conditions=frozenset({(source, (frame.branch == 0) != negated)}))


_ARITHMETIC: dict[str, Callable[..., float]] = {
    "Add": lambda a, b: a + b,
    "AddV2": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
    "RealDiv": lambda a, b: a / b,
    "Div": lambda a, b: a / b,
    "Pow": lambda a, b: a**b,
    "Maximum": max,
    "Minimum": min,
    "Neg": lambda a: -a,
    "Square": lambda a: a * a,
    "Sqrt": math.sqrt,
    "Rsqrt": lambda a: 1 / math.sqrt(a),
    "Reciprocal": lambda a: 1 / a,
    "Exp": math.exp,
}


def evaluate(
    graph: FlatGraph,
    e: int,
    leaves: Sequence[dict[int, float]],
    contexts: Contexts,
    assume: dict[int, bool],
    *,
    in_the_end: bool = True,
) -> list[float | None]:
    """The numbers that `e` has, one for each of `leaves` (all of the same edges), as the conditions in `assume` hold.

    Used on updates, which are affine in the variable and the batch moment: with the variable at 1 and the moments at 0
    the new value is the decay, whatever way it is written. An assumed condition that enters as a number (a phase of 0
    or 1) is that number. None where anything else enters, or conditions stay open.
    A minimum with one unknown operand is, `in_the_end`, the known one: `min(decay, (1 + n) / (10 + n))` is `decay` for
    long runs.
    """
    return list(_Evaluation(graph, leaves, contexts, assume, in_the_end=in_the_end).values(e, 0))


class _Evaluation:
    def __init__(
        self,
        graph: FlatGraph,
        leaves: Sequence[dict[int, float]],
        contexts: Contexts,
        assume: dict[int, bool],
        *,
        in_the_end: bool,
    ) -> None:
        self.graph, self.leaves, self.contexts, self.assume = graph, leaves, contexts, assume
        self.in_the_end = in_the_end
        self.unknown: Sequence[float | None] = (None,) * len(leaves)
        self.known: dict[int, Sequence[float | None]] = {}

    def values(self, e: int, depth: int) -> Sequence[float | None]:
        if e in self.known:
            return self.known[e]
        if depth > 60 or len(self.known) > _LIMIT:
            return self.unknown
        self.known[e] = self.unknown
        result = self._values(e, depth + 1)
        self.known[e] = result
        return result

    def _values(self, e: int, depth: int) -> Sequence[float | None]:
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if e in self.leaves[0]:
            return [leaves[e] for leaves in self.leaves]
        if op == "Const":
            return (scalar(graph, e),) * len(self.leaves)
        if node in self.assume and (op in PLACEHOLDERS or op in VARIABLES):
            return (float(self.assume[node]),) * len(self.leaves)
        if op in _ARITHMETIC and data:
            operands = [self.values(x, depth) for x in data]
            return [self._computed(op, one) for one in zip(*operands, strict=True)]
        back = [self.values(x, depth) for x in self._chosen(e)]
        if len(back) == 1:
            return back[0]
        return [one[0] if len(set(one)) == 1 else None for one in zip(*back, strict=True)] or self.unknown

    def _computed(self, op: str, operands: Sequence[float | None]) -> float | None:
        known = [x for x in operands if x is not None]
        if op == "Minimum" and len(known) == 1 and self.in_the_end:
            return known[0]
        if op == "Mul" and 0.0 in known:
            return 0.0
        if len(known) < len(operands):
            return None
        try:
            return float(_ARITHMETIC[op](*known))
        except (ArithmeticError, ValueError):
            return None

    def _chosen(self, e: int) -> tuple[int, ...]:
        """The inputs that pass on under the assumed conditions."""
        graph, node = self.graph, node_of(e)
        op, data = graph.ops[node], graph.data[node]
        if op in _SELECTS and len(data) == 3:
            source, negated = predicate(graph, data[0])
            if source in self.assume:
                return (data[1],) if self.assume[source] != negated else (data[2],)
        if op in CONDITIONALS and node in graph.returns and data:
            source, negated = predicate(graph, data[0])
            if source in self.assume:
                branch = 0 if self.assume[source] != negated else 1
                edges = graph.returns[node][branch : branch + 1]
                return tuple(edges[0][port_of(e) : port_of(e) + 1]) if edges else ()
        back = steps_back(graph, e) or ()
        if op in _MERGES:
            return tuple(x for x in back if self._possible(x))
        return back

    def _possible(self, e: int) -> bool:
        graph = self.graph
        conditions = set(self.contexts.of(node_of(e)).conditions)
        if graph.ops[node_of(e)] in ("Switch", "RefSwitch") and len(graph.data[node_of(e)]) > 1:
            source, negated = predicate(graph, graph.data[node_of(e)][1])
            conditions.add((source, bool(port_of(e)) != negated))
        return all(self.assume.get(where, side) == side for where, side in conditions)
