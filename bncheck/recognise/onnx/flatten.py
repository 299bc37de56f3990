"""An ONNX model as one list of nodes: functions and the bodies of branches and loops written out where they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from bncheck.facts.errors import Malformed
from bncheck.recognise.onnx.nodes import OnnxNode, is_batch_norm, versions_of
from bncheck.sources.onnx.onnx import raw_tensor
from bncheck.sources.raw import RawModel, RawTensor

MOST_WRITTEN_OUT = 20_000_000
"""Characters of nodes written out, some 100,000 nodes: functions that call others twice double with each level."""
_OF_A_NODE = 150
"""Characters that a node counts as beside its names."""
_DEEPEST = 48
"""Functions and bodies within each other that are looked into."""
_LONGEST_PLACE = 200

_Names: TypeAlias = Callable[[str], str]
"""A name where it is used -> the one name of its value in the whole model; "" stays."""
_Key: TypeAlias = tuple[str, str, str]
"""Domain, name and overload of a function."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlatOnnx:
    """A model without functions and bodies."""

    nodes: Sequence[OnnxNode]
    """In topological order, as the format demands of each graph."""
    tensors: Mapping[str, RawTensor]
    """Initialisers of all graphs."""
    inputs: Mapping[str, tuple[int | None, ...]]
    """The model's, with their shapes; None for sizes that are not told."""
    outputs: tuple[str, ...]
    left: Sequence[str]
    """Nodes that stay as they are because of the limits, though batch norm is in their functions or bodies."""


def flat_onnx(raw: RawModel) -> FlatOnnx:
    """The whole model. Raises ReadError where it is damaged, Malformed where functions call each other in a circle.

    A value of a function or body is called "PLACE::NAME", after the node that runs it. A node with bodies stands twice:
    as giving the bodies what they are run on, and, behind them, as made of all that they give.
    """
    model = raw.onnx
    assert model is not None
    functions = {(_domain(f.domain), f.name, f.overload): f for f in model.functions}
    writing = _Writing(raw=raw, functions=functions, with_norm=_with_batch_norm(functions), tensors=dict(raw.tensors))
    writing.nodes_of(model.graph.node, versions_of(model), _same)
    return FlatOnnx(
        nodes=writing.nodes,
        tensors=writing.tensors,
        inputs={given.name: _shape(given) for given in model.graph.input},
        outputs=tuple(output.name for output in model.graph.output),
        left=writing.left,
    )


@dataclass(kw_only=True, eq=False)
class _Writing:
    """What was written out so far."""

    raw: RawModel
    functions: Mapping[_Key, Any]
    with_norm: frozenset[_Key]
    tensors: dict[str, RawTensor]
    nodes: list[OnnxNode] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    places: set[str] = field(default_factory=set)
    written: int = 0
    within: list[_Key | None] = field(default_factory=list)
    """Functions, and None for each body, that are being written out."""

    def nodes_of(
        self,
        nodes: Sequence[Any],
        versions: Mapping[str, int],
        names: _Names,
        place: str = "",
        given: Mapping[str, Any] | None = None,
    ) -> None:
        """Nodes of a graph or function at a place, with the attributes that the function's call gives."""
        for proto in nodes:
            node = OnnxNode(
                op_type=proto.op_type,
                domain=_domain(proto.domain),
                name=place + (proto.name or next(iter(proto.output), "")) if place else proto.name,
                input=tuple(map(names, proto.input)) if place else tuple(proto.input),
                output=tuple(map(names, proto.output)) if place else tuple(proto.output),
                attribute=proto.attribute,
                given=given or {},
                version=versions.get(_domain(proto.domain), 1),
            )
            if place:
                self.written += _OF_A_NODE + len(node.name) + sum(map(len, (*node.input, *node.output)))
            key = (node.domain, node.op_type, proto.overload)
            function = self.functions.get(key) if self.functions else None
            bodies = [body for attribute in proto.attribute for body in _bodies(attribute)]
            referred = [body for one in node.attributes.values() for body in _bodies(one)] if given else bodies
            if len(referred) > len(bodies) and any(map(self._holds_norm, referred)):
                self.left.append(node.name or node.op_type)  # a body that the call of a function gives
            if function is None and not bodies:
                self.nodes.append(node)
            elif self._at_its_limits():
                self.nodes.append(node)
                held = key in self.with_norm or any(map(self._holds_norm, bodies))
                self.left += [node.name or node.op_type] if held else []
            elif function is not None:
                self._call(node, key, function, versions)
            else:
                self._run(node, bodies, versions, names)

    def _at_its_limits(self) -> bool:
        return self.written > MOST_WRITTEN_OUT or len(self.within) >= _DEEPEST

    def _holds_norm(self, body: Any) -> bool:
        return any(is_batch_norm(node) or _key(node) in self.with_norm for node in _all_nodes(body.node))

    def _call(self, node: OnnxNode, key: _Key, function: Any, versions: Mapping[str, int]) -> None:
        if key in self.within:
            raise Malformed(self.raw.path, f"its function {function.name} calls itself")
        place = self._place(node)
        actual = dict(zip(function.input, node.input, strict=False))
        formals = {name: actual.get(name, "") for name in function.input}
        formals |= {
            formal: given
            for formal, given in zip(function.output, node.output, strict=False)
            if given and formal not in formals
        }
        given = {attribute.name: attribute for attribute in function.attribute_proto} | node.attributes
        self.within.append(key)
        names = partial(_of_function, formals, place)
        self.nodes_of(function.node, {**versions, **versions_of(function)}, names, place, given)
        self.within.pop()
        for formal, given_name in zip(function.output, node.output, strict=False):
            if formal in actual and given_name:  # what goes in comes out
                self.nodes.append(_made_of(node, "Identity", (formals[formal],), (given_name,)))

    def _run(self, node: OnnxNode, bodies: Sequence[Any], versions: Mapping[str, int], names: _Names) -> None:
        """An If, Loop, Scan, or another op with graphs: they see the names around them."""
        results: list[str] = []
        place = self._place(node)
        self.within.append(None)
        for number, body in enumerate(bodies):
            prefix = place if len(bodies) == 1 else f"{place}{body.name or number}::"
            if prefix in self.places:
                prefix = f"{place}{number}::"
            self.places.add(prefix)
            own = frozenset(_defined(body))
            inner = partial(_of_body, own, prefix, names)
            entering = tuple(inner(given.name) for given in body.input)
            if entering:
                self.nodes.append(_made_of(node, node.op_type, node.input, entering))
            shards: dict[str, Any] = {}
            for tensor in body.initializer:
                self.tensors[inner(tensor.name)] = raw_tensor(self.raw.path, tensor, shards)
            self.nodes_of(body.node, versions, inner, prefix, node.given)
            results += [inner(output.name) for output in body.output]
        self.within.pop()
        self.nodes.append(_made_of(node, node.op_type, (*node.input, *results), node.output))

    def _place(self, node: OnnxNode) -> str:
        """Where the nodes of a call or a body stand: "NAME::", no two the same."""
        told = node.name or next(iter(node.output), "") or node.op_type
        place = f"{told}::"
        if place in self.places or len(place) > _LONGEST_PLACE:
            place = f"{told[:_LONGEST_PLACE]}#{len(self.places)}::"
        self.places.add(place)
        return place


def _made_of(node: OnnxNode, op_type: str, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> OnnxNode:
    """A node that only tells what is made of what."""
    return OnnxNode(
        op_type=op_type,
        domain=node.domain,
        name=node.name,
        input=inputs,
        output=outputs,
        attribute=(),
        given={},
        version=node.version,
    )


def _shape(value: Any) -> tuple[int | None, ...]:
    return tuple(one.dim_value if one.dim_value > 0 else None for one in value.type.tensor_type.shape.dim)


def _same(name: str) -> str:
    return name


def _of_function(formals: Mapping[str, str], place: str, name: str) -> str:
    if not name:
        return ""
    return formals[name] if name in formals else place + name


def _of_body(own: frozenset[str], place: str, outer: _Names, name: str) -> str:
    return place + name if name in own else outer(name)


def _defined(body: Any) -> Iterator[str]:
    """Names of a body that are its own."""
    for group in (body.input, body.initializer):
        yield from (one.name for one in group if one.name)
    for node in body.node:
        yield from filter(None, node.output)


def _bodies(attribute: Any) -> tuple[Any, ...]:
    return (attribute.g,) if attribute.HasField("g") else tuple(attribute.graphs)


def _all_nodes(nodes: Sequence[Any]) -> Iterator[Any]:
    """These and those of their bodies."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        yield node
        pending += [inner for attribute in node.attribute for body in _bodies(attribute) for inner in body.node]


def _key(node: Any) -> _Key:
    return (_domain(node.domain), node.op_type, node.overload)


def _domain(name: str) -> str:
    """ONNX' own has two names."""
    return "" if name == "ai.onnx" else name


def _with_batch_norm(functions: Mapping[_Key, Any]) -> frozenset[_Key]:
    """Functions in which batch norm is, or that call one in which it is."""
    callers: dict[_Key, set[_Key]] = {}
    pending: list[_Key] = []
    for key, function in functions.items():
        for node in _all_nodes(function.node):
            callers.setdefault(_key(node), set()).add(key)
            if is_batch_norm(node):
                pending.append(key)
    found: set[_Key] = set()
    while pending:
        key = pending.pop()
        if key not in found:
            found.add(key)
            pending += callers.get(key, ())
    return frozenset(found)
