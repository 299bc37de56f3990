"""The tree of a Keras configuration -> every application of a layer in forward order, nested models resolved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from bncheck.facts.errors import TooLarge
from bncheck.sources.keras.config import Entry, Node, Ref
from bncheck.sources.raw import RawKerasCall

MAX_CALLS = 100_000
"""Models that hold one shared model twice, and so on, double with each level."""

_TRANSPARENT = frozenset(
    {"TimeDistributed", "SpectralNormalization", "QuantizeWrapper", "QuantizeWrapperV2", "PruneLowMagnitude"}
)
"""Wrappers that apply the one layer they hold to their own input."""


@dataclass(kw_only=True)
class _Calls:
    """What was emitted so far."""

    path: Path
    emitted: list[RawKerasCall] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=dict)


def calls(path: Path, model: Entry) -> tuple[RawKerasCall, ...]:
    """Applications in forward order; raises TooLarge above MAX_CALLS."""
    done = _Calls(path=path)
    if model.functional or model.sequential:
        _apply(done, model, (), training=None)
    else:  # a subclassed model: its code tells how it wires what it holds
        for child in model.children:
            _apply(done, child, (), training=None)
    return tuple(done.emitted)


def _apply(
    done: _Calls, entry: Entry, inbound: tuple[str, ...], *, training: bool | None, number: float | None = None
) -> tuple[str, ...]:
    """Applies an entry to the outputs of these calls; the names of the calls that give its outputs."""
    if entry.functional:
        return _functional(done, entry, inbound, training=training)
    if entry.sequential:
        return _sequential(done, entry, inbound, training=training)
    if entry.class_name in _TRANSPARENT and len(entry.children) == 1:
        return _apply(done, entry.children[0], inbound, training=training)
    output = _emit(done, entry, inbound, training=training, number=number)
    for child in entry.children:  # how a layer wires what it holds stands in its code
        _apply(done, child, (), training=training)
    return output


def _emit(
    done: _Calls, entry: Entry, inbound: tuple[str, ...], *, training: bool | None, number: float | None
) -> tuple[str, ...]:
    if len(done.emitted) >= MAX_CALLS:
        raise TooLarge(done.path, f"more than {MAX_CALLS:,} applications of layers")
    earlier = done.count.get(entry.path, 0)
    done.count[entry.path] = earlier + 1
    name = f"{entry.path}:{earlier}" if earlier else entry.path
    call = RawKerasCall(name=name, layer=entry.path, inbound=inbound, training=training, number=number)
    done.emitted.append(call)
    return (name,)


def _sequential(done: _Calls, model: Entry, inbound: tuple[str, ...], *, training: bool | None) -> tuple[str, ...]:
    for position, child in enumerate(model.children):
        if position == 0 and inbound and child.class_name == "InputLayer":
            continue
        inbound = _apply(done, child, inbound, training=training)
    return inbound


def _functional(done: _Calls, model: Entry, inbound: tuple[str, ...], *, training: bool | None) -> tuple[str, ...]:
    """Every call of every layer once all its inputs are there; calls whose inputs never come go last, unwired."""
    layers = {child.name: child for child in model.children}
    offsets = _offsets(model)
    given = dict(zip((ref.layer for ref in model.inputs), inbound, strict=False))
    outputs: dict[tuple[str, int], tuple[str, ...]] = {}
    waiting: dict[tuple[str, int], list[tuple[str, int]]] = {}
    open_inputs: dict[tuple[str, int], int] = {}
    nodes = {(child.name, index): node for child in model.children for index, node in enumerate(_nodes(child))}

    def source(ref: Ref) -> tuple[str, int]:
        return ref.layer, ref.node - offsets.get(ref.layer, 0)

    for item, node in nodes.items():
        sources = {source(ref) for ref in node.refs} & nodes.keys()
        open_inputs[item] = len(sources)
        for needed in sources:
            waiting.setdefault(needed, []).append(item)
    ready = deque(item for item, count in open_inputs.items() if not count)
    while ready:
        item = ready.popleft()
        child, node = layers[item[0]], nodes[item]
        if child.name in given:
            outputs[item] = (given[child.name],)
        else:
            takes = tuple(name for ref in node.refs if (name := _output(outputs, source(ref), ref)))
            mode = training if node.training is None else node.training
            outputs[item] = _apply(done, child, takes, training=mode, number=node.number)
        for consumer in waiting.get(item, ()):
            open_inputs[consumer] -= 1
            if not open_inputs[consumer]:
                ready.append(consumer)
    for item in [item for item in nodes if item not in outputs]:
        outputs[item] = _apply(done, layers[item[0]], (), training=training)
    return tuple(name for ref in model.outputs if (name := _output(outputs, source(ref), ref)))


def _nodes(child: Entry) -> tuple[Node, ...]:
    return child.nodes or (Node(refs=()),)


def _output(outputs: dict[tuple[str, int], tuple[str, ...]], source: tuple[str, int], ref: Ref) -> str | None:
    names = outputs.get(source, ())
    if not names:
        return None
    return names[ref.tensor] if 0 <= ref.tensor < len(names) else names[0]


def _offsets(model: Entry) -> dict[str, int]:
    """1 for nested models whose calls are counted from 1 (their own graph is call 0), by layer name.

    Which models count so differs by Keras version and class; that a call beyond the last is referred to tells it.
    """
    calls_of = {child.name: len(_nodes(child)) for child in model.children}
    referred = [ref for child in model.children for node in child.nodes for ref in node.refs]
    return {ref.layer: 1 for ref in (*referred, *model.outputs) if ref.node >= calls_of.get(ref.layer, ref.node + 1)}
