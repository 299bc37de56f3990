"""Batch norm that an exporter wrote out as a scale and a shift; the same arithmetic of other norms is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import constant, written

import bncheck
from bncheck.facts.findings import Report, Severity
from bncheck.sources.onnx.messages import ModelProto

SCALE, SHIFT = np.array([0.5, 2.0, 1.5, 0.7]), np.array([0.1, -0.4, 0.0, 0.3])
BATCH_NORM = "net/batch_normalization_3/batchnorm"

Nodes = list[tuple[str, list[str], str]]


def model(nodes: Nodes, **constants: np.ndarray) -> Any:
    """X -> these nodes (op, inputs, output), named after their outputs -> the last output."""
    made = ModelProto(ir_version=8, producer_name="tf2onnx")
    made.opset_import.add(domain="", version=17)
    made.graph.input.add(name="x")
    for name, values in constants.items():
        constant(made.graph, name, values)
    for op_type, given, output in nodes:
        made.graph.node.add(op_type=op_type, name=output, input=given, output=[output])
    made.graph.output.add(name=nodes[-1][2])
    return made


def inspected(tmp_path: Path, nodes: Nodes, **constants: np.ndarray) -> Report:
    """With a scale and a shift for 4 channels, channels first."""
    known = {"scale": SCALE.reshape(1, 4, 1, 1), "shift": SHIFT.reshape(4, 1, 1), "two": np.full(1, 2.0)}
    return bncheck.inspect_model(written(tmp_path / "m.onnx", model(nodes, **(known | constants))))


def pair(entering: str = "r", name: str = BATCH_NORM) -> Nodes:
    """A scale and a shift, and something behind."""
    return [("Mul", [entering, "scale"], f"{name}/mul_1"), ("Add", [f"{name}/mul_1", "shift"], f"{name}/add_1")]


BEHIND: Nodes = [("MaxPool", [f"{BATCH_NORM}/add_1"], "y")]
RELU: Nodes = [("Relu", ["x"], "r")]
LAYER_NORM: Nodes = [
    ("ReduceMean", ["x"], "mean"),
    ("Sub", ["x", "mean"], "apart"),
    ("Mul", ["apart", "apart"], "squared"),
    ("ReduceMean", ["squared"], "variance"),
    ("Sqrt", ["variance"], "deviation"),
    ("Div", ["apart", "deviation"], "n"),
]
"""As exporters write it out."""


@pytest.mark.parametrize(
    "nodes",
    [
        [*RELU, *pair(), *BEHIND],
        [*RELU, ("Cast", ["r"], "c"), *pair("c"), *BEHIND],
        [*RELU, ("Transpose", ["r"], "t"), ("Mul", ["t", "two"], "h"), *pair("h"), *BEHIND],
        [*RELU, ("Div", ["r", "scale"], "d"), ("Sub", ["d", "shift"], f"{BATCH_NORM}/add_1"), *BEHIND],
    ],
)
def test_left_standing(tmp_path: Path, nodes: Nodes) -> None:
    """Named as a batch norm that was not folded; as its statistics are gone, nothing is passed."""
    report = inspected(tmp_path, nodes)
    ((code, severity, layers),) = [(f.code, f.severity, f.layers) for f in report.findings]
    assert (code, severity, layers) == ("BN406", Severity.WARNING, (f"{BATCH_NORM}/add_1",))
    assert "Relu" in report.findings[0].message
    assert report.exit_code == 3
    assert any("--reference" in entry.how for entry in report.not_checked)


def test_without_a_name(tmp_path: Path) -> None:
    """A note, for nets have scales and shifts of their own; the model is told to have no batch norm."""
    report = inspected(tmp_path, [*RELU, *pair(name="affine"), ("MaxPool", ["affine/add_1"], "y")])
    assert {(f.code, f.severity) for f in report.findings} == {("BN001", Severity.WARNING), ("BN406", Severity.INFO)}


def test_never_updated(tmp_path: Path) -> None:
    """A scale alone; without a name it is a temperature or a layer scale."""
    initial = np.full((1, 4, 1, 1), 1 / np.sqrt(1.001)).astype("f4")

    def told(name: str) -> list[str]:
        nodes = [*RELU, ("Mul", ["r", "scale"], name), ("MaxPool", [name], "y")]
        return [f.message for f in inspected(tmp_path, nodes, scale=initial).findings if f.code == "BN406"]

    assert "never updated" in told(f"{BATCH_NORM}/mul_1")[0]
    assert told("temperature") == []


@pytest.mark.parametrize(
    "nodes",
    [
        [("LayerNormalization", ["x", "two"], "n"), *pair("n")],
        [("InstanceNormalization", ["x", "two", "two"], "n"), ("Reshape", ["n", "two"], "s"), *pair("s")],
        [*LAYER_NORM, *pair("n")],
        [*RELU, ("Mul", ["r", "scale"], "layer_scale")],
        [*RELU, ("Add", ["r", "shift"], "bias")],
        [*RELU, ("Add", ["r", "shift"], "bias"), ("Mul", ["bias", "scale"], "layer_scale")],
        [*RELU, ("Mul", ["r", "two"], "a"), ("Add", ["a", "two"], "b")],
        [*RELU, ("Mul", ["r", "map"], "a"), ("Add", ["a", "map"], "b")],
        [*RELU, ("Sub", ["scale", "r"], "a"), ("Mul", ["a", "two"], "b")],
    ],
)
def test_other_arithmetic(tmp_path: Path, nodes: Nodes) -> None:
    """Norms of samples and layers, a layer scale, a bias, both, one number for all, a map of positions."""
    report = inspected(tmp_path, [*nodes, ("MaxPool", [nodes[-1][2]], "y")], map=np.ones((1, 4, 5, 5)))
    assert [f.code for f in report.findings] == ["BN001"]


def test_constants_that_are_not_at_hand(tmp_path: Path) -> None:
    """Are left: the file beside the model that holds them is lost."""
    made = model([*RELU, *pair(), *BEHIND], scale=SCALE.reshape(1, 4, 1, 1), shift=SHIFT.reshape(4, 1, 1))
    lost = made.graph.initializer[0]
    lost.raw_data = b""
    lost.data_location = 1
    lost.external_data.add(key="location", value="lost.bin")
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", made))
    assert [f.code for f in report.findings] == ["BN001"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("op_type", ["Mul", "Div"])
def test_damaged_numbers(tmp_path: Path, op_type: str) -> None:
    """Zeros, infinite and huge ones: nothing but the leftover itself is told."""
    scale = np.array([0.0, np.inf, 3e38, np.nan], "f4").reshape(1, 4, 1, 1)
    nodes = [*RELU, (op_type, ["r", "scale"], f"{BATCH_NORM}/mul_1"), ("Mul", [f"{BATCH_NORM}/mul_1", "scale"], "m")]
    nodes += [("Add", ["m", "shift"], f"{BATCH_NORM}/add_1"), *BEHIND]
    assert [f.code for f in inspected(tmp_path, nodes, scale=scale).findings] == ["BN406"]


def test_on_integers(tmp_path: Path) -> None:
    """As onnxruntime's quantizer writes them: stored integers, scale and zero point for each operand."""
    name = f"{BATCH_NORM}/mul_1"
    nodes: Nodes = [
        ("QLinearConv", ["x"], "c"),
        ("QLinearMul", ["c", "step", "zero", "scale", "step", "zero", "step", "zero"], name),
        ("QLinearAdd", ["shift", "step", "zero", name, "step", "zero", "step", "zero"], f"{BATCH_NORM}/add_1"),
        *BEHIND,
    ]
    report = inspected(tmp_path, nodes, step=np.full((), 0.1), zero=np.full((), 3.0))
    assert [(f.code, f.layers) for f in report.findings] == [("BN406", (f"{BATCH_NORM}/add_1",))]
    assert "QLinearMul and QLinearAdd" in report.findings[0].message
