"""Where a graph's forward pass begins and ends, when nobody says: data that feeds batch norm, logits of the loss."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, replace

from bncheck.compare.outputs import Kind
from bncheck.compare.twins.losses import (
    before_the_loss,
    logits_of_losses,
    logits_of_sigmoids,
    put_out,
    where_labels_join,
)
from bncheck.compare.twins.reach import NO_OUTPUT, Parts, ends, feeding, inputs_beside, parts_of, reached
from bncheck.compare.twins.towers import dealt
from bncheck.facts.errors import UsageError
from bncheck.recognise.graph.flat import CONDITIONALS, FlatGraph, edge, node_of, port_of
from bncheck.recognise.graph.view import GraphView
from bncheck.sources.raw import RawSignature

_RESHAPES = frozenset({"Reshape", "Squeeze", "ExpandDims", "Transpose"})
_RECTIFIERS = frozenset("Relu Relu6 LeakyRelu Elu Selu Minimum Maximum".split())
_HEADS = 8
"""More ends than that are no heads."""


@dataclass(frozen=True, kw_only=True)
class Exit:
    """One output to compare at."""

    name: str
    edge: int
    kind: Kind


def find_input(view: GraphView, named: str | None = None) -> int:
    """The edge at which data enters; raises UsageError where the graph does not tell."""
    flat = view.flat
    signature = _signature(view)
    if named is not None:
        keyed = {} if signature is None else signature.inputs
        return _named(flat, keyed.get(named, named), lambda: [_tensor(flat, find_input(view))])
    counts: dict[int, int] = {}
    for layer in view.layers:
        for site in layer.sites:
            x = site.x if site.x is not None or site.fold is None else site.fold.x
            if x is not None:
                for e in feeding(view.flat, x):
                    counts[e] = counts.get(e, 0) + 1
    if not counts:
        raise UsageError(
            "no placeholder, iterator or queue feeds the batch norm of this graph: name the input with --inputs"
        )
    best = max(counts.values())
    found = [e for e, count in counts.items() if count == best]
    if signature is not None and len(found) > 1:
        found = [e for e in found if e in {flat.lookup(name) for name in signature.inputs.values()}] or found
    if len(found) > 1:
        found = [e for e in found if not reached(flat, [x for x in found if x != e])[node_of(e)]] or found
    if len(found) > 1 and _alike(view, found):
        found = found[:1]  # towers that share their layers (see compare/towers.py): one stands for all
    if len(found) > 1 and set(found[1:]) <= set(inputs_beside(view, found[0])):
        found = found[:1]  # the network takes all of them
    if len(found) > 1:
        names = ", ".join(_tensor(view.flat, e) for e in found)
        raise UsageError(f"several inputs feed batch norm ({names}): choose one with --inputs")
    return found[0]


def find_outputs(view: GraphView, input_edge: int, named: tuple[str, ...] = ()) -> list[Exit]:
    """Where to compare: what is named, else what the signature gives, else what the loss takes, else the ends."""
    flat = view.flat
    signature = _signature(view)
    keyed = {} if signature is None else signature.outputs
    if named:
        found = [_named(flat, keyed.get(name, name), lambda: _ends(view, input_edge)) for name in named]
        return [_exit(view, name, e) for name, e in zip(named, found, strict=True)]
    if signature is not None:
        outputs = {key: _named(flat, tensor, list) for key, tensor in keyed.items()}
        return _served(view, outputs, reached(flat, [input_edge]))
    beside = inputs_beside(view, input_edge)
    entries = [edge(node) for node in dealt(view, input_edge)] or [input_edge]
    parts = parts_of(view, [input_edge, *beside], [*entries, *beside])
    logits = logits_of_losses(parts)
    learned = [*logits, *put_out(parts, [*logits, *where_labels_join(parts)])] or before_the_loss(parts)
    edges = learned or _of_inference(parts)
    if not edges:
        raise UsageError("this graph has no output behind its batch norm: name one with --outputs")
    exits = [_exit(view, _short_name(flat, e), e) for e in dict.fromkeys(edges)]
    binary = logits_of_sigmoids(flat) if learned else frozenset()
    return [replace(e, kind=_by_the_loss(e, logits, binary)) if learned else e for e in exits]


def _short_name(flat: FlatGraph, e: int) -> str:
    """As people write it: the first output of an op without its port."""
    return flat.names[node_of(e)] + (f":{port_of(e)}" if port_of(e) else "")


def _exit(view: GraphView, name: str, e: int) -> Exit:
    flat = view.flat
    sites = {site.node if site.fold is None else site.fold.output for layer in view.layers for site in layer.sites}
    behind = _through_calls(flat, e, also=_RESHAPES)
    if flat.ops[node_of(behind)] == "Sigmoid":
        return Exit(name=name, edge=e, kind=Kind.PROBABILITIES)
    if flat.ops[node_of(behind)] in ("Softmax", "LogSoftmax"):
        return Exit(name=name, edge=e, kind=Kind.SCORES)
    rectified = node_of(behind) in sites or flat.ops[node_of(behind)] in _RECTIFIERS
    return Exit(name=name, edge=e, kind=Kind.FEATURES if rectified else Kind.UNKNOWN)


def _by_the_loss(found: Exit, logits: Container[int], binary: Container[int]) -> Kind:
    if found.kind is Kind.PROBABILITIES:
        return found.kind
    return Kind.SCORES if found.edge in logits else Kind.LOGITS if found.edge in binary else Kind.NUMBERS


def _served(view: GraphView, outputs: dict[str, int], ours: bytearray) -> list[Exit]:
    """The outputs of a signature that are numbers computed from the input; a class's number gives way to its scores."""
    flat = view.flat
    numbers = {
        key: e
        for key, e in outputs.items()
        if ours[node_of(e)] and flat.ops[node_of(_through_calls(flat, e))] not in NO_OUTPUT
    }
    return [_exit(view, key, e) for key, e in (numbers or outputs).items()]


def _through_calls(flat: FlatGraph, e: int, also: Container[str] = ()) -> int:
    """The edge behind a call and what merely passes it on."""
    for _ in range(64):
        node = node_of(e)
        if node in flat.returns and flat.ops[node] not in CONDITIONALS and flat.returns[node]:
            behind = flat.returns[node][0]
            if port_of(e) >= len(behind):
                return e
            e = behind[port_of(e)]
        elif (flat.ops[node] in ("Identity", "IdentityN", "Cast") or flat.ops[node] in also) and flat.data[node]:
            e = flat.data[node][port_of(e) if flat.ops[node] == "IdentityN" else 0]
        else:
            return e
    return e


def _alike(view: GraphView, feeds: list[int]) -> bool:
    """Whether every feed reaches the same layers, at sites of its own."""
    reached: dict[int, set[int]] = {e: set() for e in feeds}
    for number, layer in enumerate(view.layers):
        for site in layer.sites:
            by = [e for e in feeding(view.flat, site.x) if e in reached] if site.x is not None else []
            if len(by) > 1:
                return False
            for e in by:
                reached[e].add(number)
    return len({frozenset(layers) for layers in reached.values()}) == 1


def _signature(view: GraphView) -> RawSignature | None:
    """The signature that serves: `serving_default`, else the first whose run writes no weights."""
    names = [name.partition("/")[0] for name in view.outputs]
    serving = [s for s in view.raw.signatures if s.name in names]
    return next((s for s in serving if s.name == "serving_default"), serving[0] if serving else None)


def _ends(view: GraphView, input_edge: int) -> list[str]:
    """Names of the outputs that are taken where none is named."""
    return [found.name for found in find_outputs(view, input_edge)]


def _named(flat: FlatGraph, name: str, taken: Callable[[], list[str]]) -> int:
    """The edge of that name; `taken` tells what is taken where none is named, for the message."""
    e = flat.lookup(name)
    if e is not None:
        return e
    last = name.partition(":")[0].rpartition("/")[2]
    near = [n for n in flat.names[: flat.main_nodes] if last in n][:3]
    if near:
        raise UsageError(f"the graph has no tensor {name!r}; similar: {', '.join(near)}")
    try:
        own = ", ".join(taken())
    except UsageError:
        own = ""
    raise UsageError(f"the graph has no tensor {name!r}" + (f"; by default bncheck takes {own}" if own else ""))


def _tensor(flat: FlatGraph, e: int) -> str:
    return f"{flat.names[node_of(e)]}:{port_of(e)}"


def _of_inference(parts: Parts) -> list[int]:
    """All ends of a graph, each head of a detector being one; the last, where there are too many to mean that."""
    found = ends(parts)
    return [edge(node) for node in (found if len(found) <= _HEADS else found[-1:])]
