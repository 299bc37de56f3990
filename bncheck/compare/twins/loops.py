"""While loops: where they capture variables, which are values in the twins; where TFLite wants their batch settled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bncheck.facts.errors import BncheckError

RESOURCE = 20
_FUNCTIONS = ("cond", "body")
_ELEMENT_SHAPE = {"TensorListReserve": 0, "TensorListFromTensor": 1, "TensorListStack": 1}
"""Op -> position of the shape of an element among its inputs."""
_INPUT_SHAPES, _SHAPES = "_input_shapes", "_output_shapes"
"""Shapes that were known when the graph was written: that of a handle is not its value's."""


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
    for place, shape in enumerate(loop.attr["output_shapes"].list.shape):
        if place in values:  # that of the handle, a scalar
            shape.Clear()
            shape.unknown_rank = True
    for key in _FUNCTIONS:
        found = next((f for f in library.function if f.signature.name == loop.attr[key].func.name), None)
        if found is None:
            raise BncheckError(f"{loop.name}: the function {loop.attr[key].func.name} is not in the graph's library")
        copy = library.function.add()
        copy.CopyFrom(found)
        copy.signature.name = f"{found.signature.name}/{loop.name}".replace("/", "_")
        loop.attr[key].func.name = copy.signature.name
        _rewrite(copy, values, loop.name)


def settle_lists(graph_def: Any) -> bool:
    """Makes the elements of the graph's lists of tensors, [batch, units], those of one sample; whether there are any.

    TFLite has lists of tensors of known shape alone, and a recurrent layer's steps are such a list.
    """
    nodes = {node.name: node for node in graph_def.node}
    settled = False
    for node in graph_def.node:
        position = _ELEMENT_SHAPE.get(node.op)
        constant = None if position is None else nodes.get(node.input[position].partition(":")[0])
        if constant is None or constant.op != "Const":
            continue
        held = constant.attr["value"].tensor
        sizes = np.frombuffer(held.tensor_content, "<i4") if held.tensor_content else np.array(held.int_val, "<i4")
        if sizes.size > 1 and sizes[0] == -1:
            held.tensor_content = np.concatenate(([1], sizes[1:])).astype("<i4").tobytes()
            held.ClearField("int_val")
            settled = True
        settled = settled or (sizes.size > 1 and sizes[0] == 1)
    return settled


def _rewrite(function: Any, values: Mapping[int, int], loop: str) -> None:
    kinds = _take_arguments(function, values)
    read = {}
    for node in function.node_def:
        taken = [source for source in node.input if source in kinds]
        if not taken:
            continue
        _forget(node.attr, _SHAPES)
        if node.op == "ReadVariableOp":
            read[f"{node.name}:value:0"] = f"{node.name}:output:0"
            node.op = "Identity"
            node.attr["T"].type = kinds[taken[0]]
            del node.attr["dtype"]
        elif node.op == "Identity":
            node.attr["T"].type = kinds[taken[0]]
        else:
            raise BncheckError(
                f"{loop}: its {node.op} {node.name} takes a variable itself, which compare cannot run: choose "
                "outputs that do not need the loop with --outputs"
            )
    for node in function.node_def:
        for place, source in enumerate(node.input):
            node.input[place] = read.get(source, source)
    for name in list(function.ret):
        function.ret[name] = read.get(function.ret[name], function.ret[name])


def _take_arguments(function: Any, values: Mapping[int, int]) -> dict[str, int]:
    """Gives arguments and results the types of the values; argument -> DataType."""
    _forget(function.attr, _INPUT_SHAPES)
    kinds = {}
    for place, kind in values.items():
        argument = function.signature.input_arg[place]
        argument.type = kind
        _forget(function.arg_attr, place)
        kinds[argument.name] = kind
    for place, result in enumerate(function.signature.output_arg):
        if place in values and result.type == RESOURCE:
            result.type = values[place]
    return kinds


def _forget(held: Any, key: str | int) -> None:
    if key in held:
        del held[key]
