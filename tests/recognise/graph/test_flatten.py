"""Numbers of inputs: those of TensorFlow, and what becomes of a graph with others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.recognise.graph.flatten import ARITIES, flatten
from bncheck.sources.graph import protos


@pytest.mark.tensorflow
@pytest.mark.parametrize("op", sorted(ARITIES))
def test_arities_are_those_of_tensorflow(op: str) -> None:
    """Every op of the table takes that many single inputs in TensorFlow's registry."""
    from tensorflow.python.framework import op_def_registry

    arguments = op_def_registry.get(op).input_arg
    assert not any(argument.number_attr or argument.type_list_attr for argument in arguments)
    assert len(arguments) == ARITIES[op]


@pytest.mark.parametrize("inputs", [["a"], ["a", "a", "a"]])
def test_wrong_number_of_inputs(inputs: list[str]) -> None:
    """A subtraction of one or three values is named, with node and op."""
    graph = protos.GraphDef()
    graph.node.add(name="a", op="Placeholder")
    graph.node.add(name="b/sub", op="Sub", input=[*inputs, "^a"])
    with pytest.raises(Malformed, match=rf"node 'b/sub' has {len(inputs)} inputs where Sub takes 2"):
        flatten(Path("x.pb"), graph)


def test_wrong_number_of_inputs_in_a_function() -> None:
    """The same inside a function, where an argument that the call does not pass leaves an input out."""
    graph = protos.GraphDef()
    function = graph.library.function.add()
    function.signature.name = "f"
    function.signature.input_arg.add(name="x")
    function.node_def.add(name="neg", op="Neg", input=["x"])
    call = graph.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "f"
    with pytest.raises(Malformed, match="node 'call/neg' has 0 inputs where Neg takes 1"):
        flatten(Path("x.pb"), graph)


PORTS = ("65536", "131072", "9" * 20, "9" * 5000, "-1", "1x", "²")


@pytest.mark.parametrize("port", PORTS)
def test_ports_that_no_op_has(port: str) -> None:
    """An output beyond what an edge has room for is damage, not the output of another node."""
    graph = protos.GraphDef()
    graph.node.add(name="a", op="Placeholder")
    graph.node.add(name="b", op="Neg", input=[f"a:{port}"])
    with pytest.raises(Malformed, match=r"node 'b' reads 'a:.*', which does not exist"):
        flatten(Path("x.pb"), graph)


@pytest.mark.parametrize("port", PORTS)
def test_ports_in_functions_and_collections(port: str) -> None:
    """The same in the body of a function, and where a signature or a collection names the output."""
    graph = protos.GraphDef()
    function = graph.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="a", op="Const")
    function.node_def.add(name="b", op="Neg", input=[f"a:output:{port}"])
    call = graph.node.add(name="call", op="PartitionedCall")
    call.attr["f"].func.name = "f"
    with pytest.raises(Malformed, match=r"function 'f' names the output 'a:output:.*', which no op can have"):
        flatten(Path("x.pb"), graph)
    function.node_def[1].input[0] = "a:output:0"
    flat = flatten(Path("x.pb"), graph)
    assert flat.lookup("call:65535") == 65535
    assert flat.lookup("nothing:0") is None
    with pytest.raises(Malformed, match="which no op can have"):
        flat.lookup(f"call:{port}")


def _doubling(depth: int) -> Any:
    """A call of a function that calls a second one twice, which calls a third one twice, and so on."""
    graph = protos.GraphDef()
    for level in range(depth):
        function = graph.library.function.add()
        function.signature.name = f"f{level}"
        function.signature.input_arg.add(name="x")
        function.node_def.add(name="n", op="Identity", input=["x"])
        for call in ("a", "b") if level < depth - 1 else ():
            function.node_def.add(name=call, op="PartitionedCall", input=["x"]).attr["f"].func.name = f"f{level + 1}"
    graph.node.add(name="x", op="Placeholder")
    graph.node.add(name="call", op="PartitionedCall", input=["x"]).attr["f"].func.name = "f0"
    return graph


@pytest.mark.parametrize("depth", [16, 22, 60])
def test_functions_that_double(depth: int) -> None:
    """A file of a few kilobytes is refused once it has grown more than any model does, not at millions of nodes."""
    with pytest.raises(TooLarge, match=r"grows past \d\d,\d{3} nodes, from \d+ that are stored"):
        flatten(Path("x.pb"), _doubling(depth))
    assert len(flatten(Path("x.pb"), _doubling(8)).ops) == 2 + 2**8 - 1 + 2**8 - 2
