"""Functions and bodies of ONNX models: written out where they are run, within limits; what is not, is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx_writer import constant, model, statistics, written

import bncheck
from bncheck.facts.errors import Malformed
from bncheck.facts.layers import Facts, Layer, Mode
from bncheck.recognise import recognise
from bncheck.recognise.onnx.flatten import flat_onnx
from bncheck.settings.options import Options
from bncheck.sources import open_model

VECTORS = ("weight", "bias", "running_mean", "running_var")
FORMALS = ("X", *VECTORS)


def facts(path: Path, made: Any) -> Facts:
    """What is recognised in a model."""
    return recognise(open_model(written(path / "m.onnx", made)), Options())


def codes(path: Path, made: Any) -> list[str]:
    """What `inspect` finds."""
    return [finding.code for finding in bncheck.inspect_model(written(path / "m.onnx", made)).findings]


def with_vectors(made: Any, *names: str) -> Any:
    """The same model with the statistics of further layers."""
    for channels, name in enumerate(names, 4):
        for key, array in statistics(channels).items():
            constant(made.graph, f"{name}.{key}", array)
    return made


def norm(graph: Any, entering: str, leaving: str, layer: str, *, training: bool = False) -> Any:
    """A batch norm added to a graph or function; of its formals where `layer` is empty."""
    vectors = [f"{layer}.{key}" for key in VECTORS] if layer else list(VECTORS)
    node = graph.node.add(op_type="BatchNormalization", input=[entering, *vectors], output=[leaving])
    if training:
        node.output.extend(["mean_out", "var_out"])
        node.attribute.add(name="training_mode", i=1)
    return node


def function(made: Any, name: str, *, opset: int = 17) -> Any:
    """An empty function with the inputs of a batch norm."""
    return made.functions.add(
        name=name, domain="my", input=FORMALS, output=["Y"], opset_import=[{"domain": "", "version": opset}]
    )


def call(graph: Any, name: str, entering: str, leaving: str, layer: str) -> Any:
    """A call of such a function."""
    vectors = [f"{layer}.{key}" for key in VECTORS] if layer else list(VECTORS)
    return graph.node.add(op_type=name, domain="my", name=layer, input=[entering, *vectors], output=[leaving])


def layers(found: Facts, first: str) -> list[Layer]:
    """Those whose name begins so, in order."""
    return [layer for layer in found.layers if layer.name.startswith(first)]


def test_a_function_called_twice_has_two_layers(tmp_path: Path) -> None:
    """Epsilon is the call's, or the function's default; the kernel before lies in the function, too."""
    made = with_vectors(model({"a": statistics()}), "p", "q")
    inner, outer = function(made, "norm"), function(made, "block")
    norm(inner, "X", "Y", "").attribute.add(name="epsilon", ref_attr_name="eps")
    inner.attribute_proto.add(name="eps", f=0.5)
    outer.node.add(op_type="Relu", input=["X"], output=["r"])
    call(outer, "norm", "r", "Y", "").attribute.add(name="eps", ref_attr_name="of_call")
    call(made.graph, "block", "y", "z", "p").attribute.add(name="of_call", f=0.25)
    call(made.graph, "block", "z", "end", "q")
    made.graph.output.add(name="end")
    found = facts(tmp_path, made)
    assert [layer.name for layer in found.layers] == ["a.bn", "p", "q"]
    assert [layer.epsilon for layer in found.layers[1:]] == [0.25, 0.5]
    assert [layer.channels for layer in found.layers] == [4, 4, 5]
    assert found.layers[2].sites[0].outputs == ("end",)


@pytest.mark.parametrize(("opset", "mode"), [(17, Mode.EVAL), (9, Mode.TRAIN)])
def test_a_function_has_operator_sets_of_its_own(tmp_path: Path, opset: int, mode: Mode) -> None:
    """Before version 14 more than one output is train mode."""
    made = with_vectors(model({"a": statistics()}), "p")
    norm(function(made, "norm", opset=opset), "X", "Y", "").output.append("saved")
    call(made.graph, "norm", "y", "z", "p")
    made.graph.output.add(name="z")
    (layer,) = layers(facts(tmp_path, made), "p")
    assert layer.sites[0].mode is mode
    assert codes(tmp_path, made) == ([] if mode is Mode.EVAL else ["BN205"])


@pytest.mark.parametrize("op_type", ["If", "Loop", "Scan"])
@pytest.mark.parametrize("training", [False, True])
def test_bodies_see_the_names_around_them(tmp_path: Path, op_type: str, *, training: bool) -> None:
    """Batch norm in them is judged as anywhere: one in train mode that the outputs depend on is an error."""
    made = with_vectors(model({"a": statistics()}), "p")
    node = made.graph.node.add(op_type=op_type, name="run", input=["y"], output=["z"])
    for name in ("then_branch", "else_branch") if op_type == "If" else ("body",):
        body = node.attribute.add(name=name).g
        if op_type != "If":
            body.input.add(name="x")  # the same name as outside, another value
        norm(body, "y" if op_type == "If" else "x", "same", "p", training=training)
        body.output.add(name="same")
    made.graph.output.add(name="z")
    found = facts(tmp_path, made)
    (layer,) = layers(found, "p")
    assert len(layer.sites) == (2 if op_type == "If" else 1)
    assert {site.outputs for site in layer.sites} == {("z",)}
    assert layers(found, "a")[0].sites[0].outputs == ("y", "z")
    assert codes(tmp_path, made) == (["BN205"] if training else [])


def test_statistics_that_a_loop_changes_are_not_constant(tmp_path: Path) -> None:
    """Though they begin with what is stored; a body's own initialisers are."""
    made = with_vectors(model({"a": statistics()}), "p")
    node = made.graph.node.add(op_type="Loop", name="run", input=["", "", "y", "p.running_mean"], output=["z", "m"])
    body = node.attribute.add(name="body").g
    for name in ("step", "go", "x", "mean"):
        body.input.add(name=name)
    constant(body, "own.running_mean", statistics()["running_mean"])
    norm(body, "x", "one", "p").input[3] = "mean"
    norm(body, "one", "two", "p").input[3] = "own.running_mean"
    for name in ("go", "two", "mean"):
        body.output.add(name=name)
    made.graph.output.add(name="z")
    _, *found = facts(tmp_path, made).layers
    assert [layer.mean.values is not None for layer in found] == [False, True]
    assert codes(tmp_path, made) == ["BN004"]


def test_one_that_gives_what_it_is_given(tmp_path: Path) -> None:
    """The function's input is its output."""
    made = model({"a": statistics()})
    made.functions.add(name="same", domain="my", input=["X"], output=["X"])
    made.graph.node.add(op_type="same", domain="my", input=["y"], output=["z"])
    made.graph.output.add(name="z")
    (layer,) = facts(tmp_path, made).layers
    assert layer.sites[0].outputs == ("y", "z")


def test_functions_that_double_are_written_out_to_a_limit(tmp_path: Path) -> None:
    """What is left is named, and no pass."""
    made = with_vectors(model({"a": statistics()}), "p")
    norm(function(made, "f0"), "X", "Y", "")
    for level in range(1, 30):
        twice = function(made, f"f{level}")
        call(twice, f"f{level - 1}", "X", "half", "")
        call(twice, f"f{level - 1}", "half", "Y", "")
    call(made.graph, "f29", "y", "z", "p")
    made.graph.output.add(name="z")
    assert len(flat_onnx(open_model(written(tmp_path / "m.onnx", made))).nodes) < 200_000
    assert "BN002" in codes(tmp_path, made)


def test_functions_too_deep_in_each_other_are_named(tmp_path: Path) -> None:
    """As is a body that the call of a function would give."""
    made = with_vectors(model({"a": statistics()}), "p")
    norm(function(made, "f0"), "X", "Y", "")
    for level in range(1, 2000):
        call(function(made, f"f{level}"), f"f{level - 1}", "X", "Y", "")
    call(made.graph, "f1999", "y", "z", "p")
    held = function(made, "held").node.add(op_type="If", input=["X"], output=["Y"])
    held.attribute.add(name="then_branch", ref_attr_name="branch")
    giving = call(made.graph, "held", "z", "end", "p").attribute.add(name="branch").g
    norm(giving, "y", "w", "p")
    assert len(facts(tmp_path, made).gaps) == 2


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    """The format forbids it."""
    made = with_vectors(model({"a": statistics()}), "p")
    call(function(made, "again"), "again", "X", "Y", "")
    call(made.graph, "again", "y", "z", "p")
    with pytest.raises(Malformed, match="calls itself"):
        facts(tmp_path, made)
