"""Questions about edges, on graphs written in the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.facts.errors import Malformed, TooLarge
from bncheck.recognise.graph.control_flow import Contexts
from bncheck.recognise.graph.evaluate import evaluate
from bncheck.recognise.graph.flat import FlatGraph, node_of
from bncheck.recognise.graph.flatten import flatten
from bncheck.recognise.graph.trace import constant, describe_switch, predicate, sources, tensor_value, uniform_initial
from bncheck.sources.graph import protos

FLOAT, INT32, BOOL, HALF, BFLOAT16 = 1, 3, 10, 19, 14


def graph(*nodes: tuple[str, str, list[str]], **values: Any) -> FlatGraph:
    """A flat graph of (name, op, inputs); keywords give constants their values."""
    graph_def = protos.GraphDef()
    for name, op, inputs in nodes:
        graph_def.node.add(name=name, op=op, input=inputs)
    for name, value in values.items():
        node = graph_def.node.add(name=name, op="Const")
        array = np.asarray(value)
        tensor = node.attr["value"].tensor
        tensor.dtype = {"f": FLOAT, "i": INT32, "b": BOOL}[array.dtype.kind]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        {"f": tensor.float_val, "i": tensor.int_val, "b": tensor.bool_val}[array.dtype.kind].extend(
            array.ravel().tolist()
        )
    return flatten(Path("graph.pb"), graph_def)


def at(flat: FlatGraph, name: str) -> int:
    """Edge of a node's first output."""
    e = flat.lookup(name)
    assert e is not None
    return e


def test_a_dangling_input_is_damage() -> None:
    """A graph cut off at a node's boundary still parses; the input that leads nowhere tells."""
    with pytest.raises(Malformed, match="'b' reads 'a', which does not exist"):
        graph(("b", "Relu", ["a"]))


def test_two_nodes_of_one_name_are_damage() -> None:
    """Node names are unique."""
    with pytest.raises(Malformed, match="two nodes of one name"):
        graph(("a", "Placeholder", []), ("a", "Placeholder", []))


def test_sources_pass_copies_and_merges() -> None:
    """A value behind a condition has both of its origins."""
    flat = graph(
        ("v", "VariableV2", []),
        ("read", "Identity", ["v"]),
        ("p", "Placeholder", []),
        ("x", "Placeholder", []),
        ("m", "Merge", ["read", "x"]),
    )
    assert {flat.names[e >> 16] for e in sources(flat, at(flat, "m"))} == {"v", "x"}


def test_sources_end_on_a_cycle() -> None:
    """Loops do not keep the walk going."""
    flat = graph(("a", "Identity", ["b"]), ("b", "Identity", ["a"]))
    assert sources(flat, at(flat, "a")) == []


def test_predicate_counts_negations() -> None:
    """Two negations and a copy lead to the placeholder itself; one is reported."""
    flat = graph(
        ("p", "Placeholder", []),
        ("n", "LogicalNot", ["p"]),
        ("i", "Identity", ["n"]),
        ("nn", "LogicalNot", ["i"]),
    )
    assert predicate(flat, at(flat, "i")) == (node_of(flat.index["p"]), True)
    assert predicate(flat, at(flat, "nn")) == (node_of(flat.index["p"]), False)


def test_switch_default_is_read_from_the_graph() -> None:
    """The default of a placeholder_with_default decides what happens when nobody feeds it."""
    flat = graph(("p", "PlaceholderWithDefault", ["off"]), off=np.array(False))  # noqa: FBT003 - a value of the graph
    switch = describe_switch(flat, node_of(flat.index["p"]), train_when=True)
    assert (switch.kind, switch.default, switch.train_when) == ("placeholder-with-default", False, True)


def test_contexts_open_at_switch_and_close_at_merge() -> None:
    """A node in the true branch needs the predicate; the merge of both branches needs nothing."""
    flat = graph(
        ("p", "Placeholder", []),
        ("x", "Placeholder", []),
        ("s", "Switch", ["x", "p"]),
        ("on", "Relu", ["s:1"]),
        ("off", "Neg", ["s"]),
        ("m", "Merge", ["off", "on"]),
        ("after", "Relu", ["m"]),
        ("waits", "NoOp", ["^on"]),
    )
    contexts = Contexts(flat)
    p = node_of(flat.index["p"])
    assert contexts.of(node_of(flat.index["on"])).conditions == {(p, True)}
    assert contexts.of(node_of(flat.index["off"])).conditions == {(p, False)}
    assert contexts.of(node_of(flat.index["waits"])).conditions == {(p, True)}
    assert contexts.of(node_of(flat.index["after"])).conditions == frozenset()


@pytest.mark.parametrize(
    ("nodes", "values", "decay"),
    [
        # the variable loses a share of its distance to the batch
        ([("d", "Sub", ["v", "b"]), ("out", "Mul", ["d", "k"])], {"k": 0.25}, 0.25),
        # (1 - decay) spelled as 1 - 0.75
        (
            [("d", "Sub", ["v", "b"]), ("r", "Sub", ["one", "k"]), ("out", "Mul", ["d", "r"])],
            {"one": 1.0, "k": 0.75},
            0.25,
        ),
        # the weighted sum of both
        (
            [("l", "Mul", ["v", "k"]), ("r", "Mul", ["b", "q"]), ("out", "AddV2", ["l", "r"])],
            {"k": 0.75, "q": 0.25},
            0.75,
        ),
        # min(decay, something that grows)
        (
            [("m", "Minimum", ["k", "step"]), ("out", "Mul", ["v", "m"])],
            {"k": 0.75},
            0.75,
        ),
    ],
)
def test_evaluate_reads_the_decay_however_it_is_written(nodes: Any, values: Any, decay: float) -> None:
    """With the variable at 1 and the batch moment at 0, the expression has its coefficient of the variable."""
    given = (("v", "VariableV2", []), ("step", "Placeholder", []), ("b", "Mean", ["step", "step"]))
    flat = graph(*given, *nodes, **values)
    leaves = {at(flat, "v"): 1.0, at(flat, "b"): 0.0}
    assert evaluate(flat, at(flat, "out"), [leaves], Contexts(flat), {}) == pytest.approx([decay])


def test_evaluate_gives_up_on_what_it_does_not_know() -> None:
    """A decay that comes from a placeholder is unknown, not zero."""
    flat = graph(("v", "VariableV2", []), ("p", "Placeholder", []), ("out", "Mul", ["v", "p"]))
    assert evaluate(flat, at(flat, "out"), [{at(flat, "v"): 1.0}], Contexts(flat), {}) == [None]


def test_evaluate_takes_the_branch_that_is_assumed() -> None:
    """Under a condition the decay is that of the branch taken."""
    flat = graph(
        ("p", "Placeholder", []),
        ("s", "Switch", ["low", "p"]),
        ("t", "Switch", ["high", "p"]),
        ("m", "Merge", ["s", "t:1"]),
        low=0.5,
        high=1.0,
    )
    p = node_of(flat.index["p"])
    values = [evaluate(flat, at(flat, "m"), [{}], Contexts(flat), {p: side})[0] for side in (False, True)]
    assert values == [0.5, 1.0]


@pytest.mark.parametrize(("value", "uniform"), [([0.0, 0.0], 0.0), ([1.0], 1.0), ([0.0, 1.0], None)])
def test_uniform_initial(value: list[float], uniform: float | None) -> None:
    """An initial value counts only where every element has it."""
    assert uniform_initial(graph(c=np.array(value)), at(graph(c=np.array(value)), "c")) == uniform


def test_constant_repeats_its_last_value() -> None:
    """A TensorProto may list fewer values than its shape has: the last one fills the rest."""
    node = protos.GraphDef().node.add(op="Const")
    tensor = node.attr["value"].tensor
    tensor.dtype = FLOAT
    tensor.tensor_shape.dim.add(size=4)
    tensor.float_val.extend([2.0, 3.0])
    assert tensor_value(tensor).tolist() == [2, 3, 3, 3]


@pytest.mark.parametrize(("dtype", "bits", "value"), [(HALF, 0x3C00, 1.0), (BFLOAT16, 0x4000, 2.0)])
def test_constants_of_sixteen_bits(dtype: int, bits: int, value: float) -> None:
    """Half and bfloat16 are stored as bit patterns."""
    tensor = protos.GraphDef().node.add(op="Const").attr["value"].tensor
    tensor.dtype = dtype
    tensor.tensor_shape.dim.add(size=2)
    tensor.half_val.append(bits)
    assert tensor_value(tensor).tolist() == [value, value]


def test_constant_with_too_few_bytes_is_no_constant() -> None:
    """Contradictory sizes give no numbers rather than wrong ones."""
    tensor = protos.GraphDef().node.add(op="Const").attr["value"].tensor
    tensor.dtype = FLOAT
    tensor.tensor_shape.dim.add(size=3)
    tensor.tensor_content = b"\0" * 8
    assert tensor_value(tensor) is None


def test_constant_is_found_behind_a_reshape() -> None:
    """Constants count through ops that only copy."""
    flat = graph(("r", "Reshape", ["c", "shape"]), c=np.array([1.0, 2.0]), shape=np.array([2]))
    assert constant(flat, at(flat, "r")).tolist() == [1.0, 2.0]


def test_functions_are_inlined_with_their_arguments() -> None:
    """A call's body reads the caller's tensors, and the call's output leads back into the body."""
    graph_def = protos.GraphDef()
    graph_def.node.add(name="v", op="VarHandleOp")
    call = graph_def.node.add(name="call", op="PartitionedCall", input=["v"])
    call.attr["f"].func.name = "body"
    function = graph_def.library.function.add()
    function.signature.name = "body"
    function.signature.input_arg.add(name="handle")
    function.signature.output_arg.add(name="out")
    function.node_def.add(name="read", op="ReadVariableOp", input=["handle"])
    function.ret["out"] = "read:value:0"
    flat = flatten(Path("graph.pb"), graph_def)
    assert [flat.names[e >> 16] for e in sources(flat, flat.index["call"])] == ["v"]
    assert flat.names[-1] == "call/read"


def test_endless_recursion_is_refused() -> None:
    """A function that calls itself ends in a named error."""
    graph_def = protos.GraphDef()
    graph_def.node.add(name="call", op="PartitionedCall").attr["f"].func.name = "f"
    function = graph_def.library.function.add()
    function.signature.name = "f"
    function.node_def.add(name="again", op="PartitionedCall").attr["f"].func.name = "f"
    with pytest.raises(TooLarge, match="calls functions more than 64 deep"):
        flatten(Path("graph.pb"), graph_def)
