"""A Keras configuration (Keras 1, 2, 3; legacy and current form) -> the tree of its layers and how they are wired."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from bncheck.facts.errors import Malformed, TooLarge

MAX_DEPTH = 64
"""Nesting of models in models."""

MAX_VALUES, VALUES_A_BYTE = 1_000_000, 1
"""Values of a configuration, and more for every byte of the file: one of 10,000 layers has half a million."""

_FUNCTIONAL = frozenset({"Functional", "Model"})
_CONTAINER_KEYS = frozenset({"name", "layers", "build_input_shape", "trainable", "dtype"})
"""A configuration of these keys alone is that of a Sequential, whatever its class is called."""

_OPERATION_MODULES = ("keras.src.ops", "keras.ops")


class Ref(NamedTuple):
    """One tensor inside a functional model: output `tensor` of call `node` of a layer."""

    layer: str
    node: int
    tensor: int


@dataclass(frozen=True, kw_only=True)
class Node:
    """One call of a layer inside a functional model."""

    refs: tuple[Ref, ...]
    training: bool | None = None
    shape: tuple[int | None, ...] | None = None
    """Of the first input, where the configuration records it."""
    number: float | None = None
    """What an operator takes beside its input, where that is a number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One layer, model or operation of the configuration, with what it holds."""

    path: str
    """"/"-joined names from the outermost model, which itself has the empty path."""
    name: str
    class_name: str
    """Without the registered package."""
    config: Mapping[str, Any]
    slot: str = ""
    """Attribute of the holder: "layers" of models, "layer" of wrappers."""
    listed: bool = False
    """Whether that attribute is a list."""
    operation: bool = False
    """One of `keras.ops`: not among a model's layers, without weights."""
    functional: bool = False
    sequential: bool = False
    children: tuple[Entry, ...] = ()
    nodes: tuple[Node, ...] = ()
    inputs: tuple[Ref, ...] = ()
    """Of a functional model."""
    outputs: tuple[Ref, ...] = ()
    input_shape: tuple[int | None, ...] | None = None


def read_json(path: Path, text: str | bytes, what: str) -> Any:
    """A JSON text. Raises TooLarge for more values than its file has room for, Malformed for what is no JSON.

    A value takes up to a hundred bytes in memory, and of a packed text less than one in the file.
    """
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    most = MAX_VALUES + VALUES_A_BYTE * path.stat().st_size
    if values > most:
        raise TooLarge(path, f"{what} has {values:,} values; bncheck reads at most {most:,} of such a file")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        told = "it is nested deeper than any model's" if isinstance(error, RecursionError) else error
        raise Malformed(path, f"{what} is not JSON: {told}") from error


def parse(path: Path, text: str | bytes) -> Entry:
    """The outermost model of a configuration in JSON; raises Malformed."""
    found = read_json(path, text, "the model configuration")
    if not _is_layer(found):
        raise Malformed(path, "the model configuration names no model class with its configuration")
    try:
        return _entry(path, found, "", {}, 0)
    except RecursionError:
        raise Malformed(path, "the model configuration is nested deeper than any model's") from None


def walk(entry: Entry) -> Iterator[Entry]:
    """All entries below, in the order of the configuration, holders before what they hold."""
    for child in entry.children:
        yield child
        yield from walk(child)


def _is_layer(found: Any) -> bool:
    return (
        isinstance(found, Mapping)
        and isinstance(found.get("class_name"), str)
        and isinstance(found.get("config"), (Mapping, list))
    )


def _is_held_layer(found: Any) -> bool:
    """A layer in another layer's configuration; initialisers, regularisers and dtype policies lack these keys."""
    if not _is_layer(found):
        return False
    config = found["config"]
    return isinstance(config, list) or ("name" in config and ("trainable" in config or "layers" in config))


def _entry(
    path: Path,
    found: Mapping[str, Any],
    prefix: str,
    shared: dict[Any, Entry],
    depth: int,
    *,
    slot: str = "",
    listed: bool = False,
) -> Entry:
    if depth > MAX_DEPTH:
        raise Malformed(path, f"models are nested more than {MAX_DEPTH} deep at {prefix[:100]!r}")
    config = found["config"]
    if isinstance(config, list):  # a Sequential before Keras 2.2.3
        config = {"layers": config}
    class_name = found["class_name"].rpartition(">")[2].rpartition(".")[2]
    name = next((n for n in (config.get("name"), found.get("name")) if isinstance(n, str) and n), class_name.lower())
    nodes = tuple(_node(node) for node in _list(found.get("inbound_nodes")))
    known = shared.get((found.get("shared_object_id"), class_name, name))
    if known is not None:
        return replace(known, nodes=nodes, slot=slot, listed=listed)
    own_path = "" if not depth else f"{prefix}/{name}" if prefix else name
    functional, sequential = _kind(class_name, config)
    children = tuple(
        _entry(path, child, own_path, shared, depth + 1, slot=attribute, listed=in_list)
        for attribute, in_list, child in _held(config, model=functional or sequential)
    )
    if (functional or sequential) and len({child.name for child in children}) < len(children):
        raise Malformed(path, f"two layers of model {own_path or name!r} have the same name")
    entry = Entry(
        path=own_path,
        name=name,
        class_name=class_name,
        config=config,
        slot=slot,
        listed=listed,
        operation=str(found.get("module") or "").startswith(_OPERATION_MODULES),
        functional=functional,
        sequential=sequential,
        children=children,
        nodes=nodes,
        inputs=tuple(_refs(config.get("input_layers"))) if functional else (),
        outputs=tuple(_refs(config.get("output_layers"))) if functional else (),
        input_shape=_input_shape(found, config, nodes),
    )
    if found.get("shared_object_id") is not None:
        shared[(found["shared_object_id"], class_name, name)] = entry
    return entry


def _kind(class_name: str, config: Mapping[str, Any]) -> tuple[bool, bool]:
    """(functional, sequential): by the configuration, since models are subclassed under any name."""
    layers = config.get("layers")
    if not isinstance(layers, list) or class_name == "Merge" or not all(_is_layer(layer) for layer in layers):
        return False, False
    if "input_layers" in config and "output_layers" in config:
        return True, False
    return False, class_name == "Sequential" or (class_name not in _FUNCTIONAL and config.keys() <= _CONTAINER_KEYS)


def _held(config: Mapping[str, Any], *, model: bool) -> Iterator[tuple[str, bool, Mapping[str, Any]]]:
    """(attribute, whether it is a list, layer) for each layer that a configuration holds."""
    if model:
        for layer in config["layers"]:
            yield "layers", True, layer
        return
    for attribute, value in config.items():
        if _is_held_layer(value):
            yield attribute, False, value
        elif isinstance(value, list):
            for item in value:
                if _is_held_layer(item):
                    yield attribute, True, item


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _node(found: Any) -> Node:
    """One entry of `inbound_nodes`: {"args", "kwargs"} in Keras 3, nested lists [name, node, tensor, kwargs] before."""
    refs = tuple(dict.fromkeys(_refs(found)))
    training = next((value for value in _arguments(found, "training") if isinstance(value, bool)), None)
    shape = next((_shape(value) for value in _tensor_shapes(found)), None)
    number = next((value for value in _arguments(found, "y") if isinstance(value, (int, float))), None)
    return Node(refs=refs, training=training, shape=shape, number=number)


def _refs(found: Any) -> Iterator[Ref]:
    """Tensors named anywhere in a structure of lists and mappings, in order."""
    if isinstance(found, Mapping):
        if found.get("class_name") == "__keras_tensor__" and isinstance(found.get("config"), Mapping):
            yield from _refs(found["config"].get("keras_history"))
            return
        for value in found.values():
            yield from _refs(value)
    elif isinstance(found, list):
        if len(found) >= 3 and isinstance(found[0], str) and all(type(index) is int for index in found[1:3]):
            yield Ref(found[0], found[1], found[2])
            found = found[3:]
        for value in found:
            yield from _refs(value)


def _arguments(found: Any, name: str) -> Iterator[Any]:
    """Values of a keyword argument of this call."""
    if isinstance(found, Mapping):
        yield from (value for key, value in found.items() if key == name)
        if "args" in found and isinstance(found.get("kwargs"), Mapping):
            yield from _arguments(found["kwargs"], name)
    elif isinstance(found, list):
        for value in found:
            yield from _arguments(value, name)


def _tensor_shapes(found: Any) -> Iterator[Any]:
    if isinstance(found, Mapping):
        if found.get("class_name") == "__keras_tensor__" and isinstance(found.get("config"), Mapping):
            yield found["config"].get("shape")
            return
        for value in found.values():
            yield from _tensor_shapes(value)
    elif isinstance(found, list):
        for value in found:
            yield from _tensor_shapes(value)


def _input_shape(
    found: Mapping[str, Any], config: Mapping[str, Any], nodes: tuple[Node, ...]
) -> tuple[int | None, ...] | None:
    built = found.get("build_config")
    candidates = (
        built.get("input_shape") if isinstance(built, Mapping) else None,
        config.get("batch_input_shape"),
        config.get("batch_shape"),
    )
    known = next((shape for shape in map(_shape, candidates) if shape is not None), None)
    return known or next((node.shape for node in nodes if node.shape is not None), None)


def _shape(found: Any) -> tuple[int | None, ...] | None:
    if isinstance(found, Mapping) and found.get("class_name") == "__tuple__":
        found = found.get("items")
    if isinstance(found, list) and found and all(length is None or type(length) is int for length in found):
        return tuple(found)
    return None
