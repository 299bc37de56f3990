"""Batch norm that an exporter wrote out in parts, as tf2onnx does Keras 3's in train mode; other norms are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import INT64, constant, model, statistics, written

import bncheck


def normalised(axes: tuple[int, ...], *, linear: bool = True, divide: bool = False, opset: int = 17) -> Any:
    """A convolution's or ReLU's output over its moments, through the shapes that tf2onnx puts between."""
    made = model({"a": statistics()}, opset=opset)
    constant(made.graph, "kernel", np.ones((4, 4, 1, 1)))
    constant(made.graph, "epsilon", np.full(1, 1e-3))
    made.graph.initializer.add(name="axes", dims=[len(axes)], data_type=INT64, int64_data=axes)
    before = {"op_type": "Conv", "input": ["y", "kernel"]} if linear else {"op_type": "Relu", "input": ["y"]}
    made.graph.node.add(**before, output=["x"])

    def mean(entering: str, leaving: str) -> None:
        node = made.graph.node.add(op_type="ReduceMean", input=[entering], output=[leaving])
        if opset < 18:
            node.attribute.add(name="axes", ints=axes)
        else:
            node.input.append("axes")

    mean("x", "mean")
    squares = [
        ("Reshape", ["mean", "shape"], "shaped"),
        ("Sub", ["x", "shaped"], "apart"),
        ("Mul", ["apart", "apart"], "squared"),
    ]
    for op_type, given, leaving in squares:
        made.graph.node.add(op_type=op_type, input=given, output=[leaving])
    mean("squared", "variance")
    rest = [("Add", ["variance", "epsilon"], "padded"), ("Sqrt", ["padded"], "deviation")]
    if divide:
        rest += [("Div", ["apart", "deviation"], "z")]
    else:
        rest += [("Reciprocal", ["deviation"], "scale"), ("Mul", ["apart", "scale"], "z")]
    for op_type, given, leaving in rest:
        made.graph.node.add(op_type=op_type, name=leaving, input=given, output=[leaving])
    made.graph.output.add(name="z")
    return made


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("divide", [False, True])
def test_moments_of_the_batch(tmp_path: Path, opset: int, *, divide: bool) -> None:
    """An error where the model's outputs depend on it."""
    path = written(tmp_path / "m.onnx", normalised((0, 2, 3), divide=divide, opset=opset))
    report = bncheck.inspect_model(path)
    assert [(finding.code, finding.layers) for finding in report.findings] == [("BN205", ("deviation",))]
    assert [layer.name for layer in report.layers] == ["a.bn", "deviation"]


@pytest.mark.parametrize(("axes", "linear"), [((2, 3), True), ((1, 2, 3), True), ((-1,), True), ((0,), False)])
def test_other_norms(tmp_path: Path, axes: tuple[int, ...], *, linear: bool) -> None:
    """Of instances, of layers, and of features over time, which no layer gives."""
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", normalised(axes, linear=linear)))
    assert [layer.name for layer in report.layers] == ["a.bn"]
    assert not report.findings
