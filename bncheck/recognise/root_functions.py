"""SavedModels without signatures: their functions hang on the root object only, so calls to them are made up here."""

from __future__ import annotations

from typing import Any

from bncheck.recognise.trace import VARIABLES
from bncheck.sources import protos
from bncheck.sources.raw import RawGraph


def with_root_functions(raw: RawGraph) -> Any:
    """The graph's GraphDef, with a call of every function of the root object where no signature calls any.

    Bound inputs (object_graph_def.concrete_functions) name the variables that a function captures, by object.
    """
    objects = raw.object_graph
    served = [s for s in raw.signatures if not s.name.startswith("__saved_model")]
    if objects is None or served or not objects.nodes:
        return raw.graph_def
    graph_def = protos.GraphDef()
    graph_def.CopyFrom(raw.graph_def)
    handles = {_shared_name(node): node.name for node in graph_def.node if node.op in VARIABLES}
    library = {function.signature.name: function for function in graph_def.library.function}
    for child in objects.nodes[0].children:
        for name in objects.nodes[child.node_id].function.concrete_functions:
            if name in library and name in objects.concrete_functions:
                bound = [objects.nodes[i].variable.name for i in objects.concrete_functions[name].bound_inputs]
                _call(graph_def, library[name], f"{child.local_name}/{name}", [handles.get(v, "") for v in bound])
    return graph_def


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
