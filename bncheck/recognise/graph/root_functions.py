"""SavedModels without signatures: their functions hang on the root object only, so calls to them are made up here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from bncheck.recognise.graph.flatten import flatten
from bncheck.recognise.graph.trace import VARIABLES
from bncheck.recognise.graph.train import find_savers
from bncheck.sources.graph import protos
from bncheck.sources.raw import RawGraph


def with_root_functions(raw: RawGraph, stored: Any | None) -> Any:
    """The graph's GraphDef, with a call of every function of the root object where no signature calls any.

    Bound inputs (object_graph_def.concrete_functions) name the variables that a function captures, by object. Objects
    may share a name, which the graph's variables do not, so they are told by the keys of `stored`, the checkpoint's
    object graph, where there is one.
    """
    objects = raw.object_graph
    if objects is None or raw.served or not objects.nodes:
        return raw.graph_def
    graph_def = protos.GraphDef()
    graph_def.CopyFrom(raw.graph_def)
    handles = {_shared_name(node): node.name for node in graph_def.node if node.op in VARIABLES}
    flat = flatten(raw.path, raw.graph_def)
    by_key = {key: flat.names[node] for node, key in find_savers(flat)[1].items()}
    variables = variables_of_objects(objects, stored, by_key, handles)
    library = {function.signature.name: function for function in graph_def.library.function}
    for child in objects.nodes[0].children:
        for name in objects.nodes[child.node_id].function.concrete_functions:
            if name in library and name in objects.concrete_functions:
                bound = objects.concrete_functions[name].bound_inputs
                _call(graph_def, library[name], f"{child.local_name}/{name}", [variables[i] for i in bound])
    return graph_def


def variables_of_objects(
    objects: Any, stored: Any | None, by_key: Mapping[str, str], by_name: Mapping[str, str]
) -> list[str]:
    """What the graph calls the variable of each object, "" for none: by the object's own name or, where others share
    that, by its checkpoint key. A SavedModel and its checkpoint number their objects alike.
    """
    names = [node.variable.name for node in objects.nodes]
    count = Counter(names)
    keyed = list(stored.nodes) if stored is not None else []
    return [
        _by_key(name, keyed[number].attributes, by_key, by_name)
        if count[name] > 1 and number < len(keyed)
        else by_name.get(name, "")
        for number, name in enumerate(names)
    ]


def _by_key(name: str, attributes: Any, by_key: Mapping[str, str], by_name: Mapping[str, str]) -> str:
    found = (by_key.get(attribute.checkpoint_key) for attribute in attributes if attribute.full_name == name)
    return next((variable for variable in found if variable), by_name.get(name, "")) if name else ""


def _shared_name(node: Any) -> str:
    shared = node.attr.get("shared_name")
    return shared.s.decode("utf-8", "replace") if shared is not None and shared.s else str(node.name)


def _call(graph_def: Any, function: Any, name: str, bound: list[str]) -> None:
    """Adds `name`, a call whose own arguments are placeholders and whose captured ones are variables."""
    free = len(function.signature.input_arg) - len(bound)
    inputs = []
    for number, argument in enumerate(function.signature.input_arg):
        captured = bound[number - free] if number >= free else ""
        if not captured:
            captured = f"{name}/{argument.name}"
            graph_def.node.add(name=captured, op="Placeholder").attr["dtype"].type = argument.type
        inputs.append(captured)
    call = graph_def.node.add(name=name, op="StatefulPartitionedCall", input=inputs)
    call.attr["f"].func.name = function.signature.name
