"""While loops that capture variables: in the twins a variable is its value, so the loop's functions take values too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bncheck.errors import BncheckError

RESOURCE = 20
_FUNCTIONS = ("cond", "body")


def take_values(loop: Any, library: Any, values: Mapping[int, int]) -> None:
    """Makes a While (a NodeDef) take values where it took variables: `values` is place among its inputs -> DataType.

    Its functions are copied under names of their own into `library`. Raises BncheckError where a function does more
    with a variable than to read it.
    """
    if not values:
        return
    for key in ("T", "output_types"):
        if key in loop.attr:
            for place, kind in values.items():
                loop.attr[key].list.type[place] = kind
    for key in _FUNCTIONS:
        found = next((f for f in library.function if f.signature.name == loop.attr[key].func.name), None)
        if found is None:
            raise BncheckError(f"{loop.name}: the function {loop.attr[key].func.name} is not in the graph's library")
        copy = library.function.add()
        copy.CopyFrom(found)
        copy.signature.name = f"{found.signature.name}/{loop.name}".replace("/", "_")
        loop.attr[key].func.name = copy.signature.name
        _rewrite(copy, values, loop.name)


def _rewrite(function: Any, values: Mapping[int, int], loop: str) -> None:
    kinds = {}
    for place, kind in values.items():
        argument = function.signature.input_arg[place]
        argument.type = kind
        kinds[argument.name] = kind
    for place, result in enumerate(function.signature.output_arg):
        if place in values and result.type == RESOURCE:
            result.type = values[place]
    read = {}
    for node in function.node_def:
        taken = [source for source in node.input if source in kinds]
        if not taken:
            continue
        if node.op == "ReadVariableOp":
            read[f"{node.name}:value:0"] = f"{node.name}:output:0"
            node.op = "Identity"
            node.attr["T"].type = kinds[taken[0]]
            del node.attr["dtype"]
        elif node.op == "Identity":
            node.attr["T"].type = kinds[taken[0]]
        else:
            raise BncheckError(
                f"{loop}: its {node.op} {node.name} takes a variable itself, which is not understood by compare: give "
                "--outputs that leave the loop out"
            )
    for node in function.node_def:
        for place, source in enumerate(node.input):
            node.input[place] = read.get(source, source)
    for name in list(function.ret):
        function.ret[name] = read.get(function.ret[name], function.ret[name])
