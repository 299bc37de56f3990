"""Layers of ONNX models, by their nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import constant, model, statistics, written

import bncheck
from bncheck.facts.layers import Facts, Mode
from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model

LAYERS = {"a": statistics(4), "b": statistics(5)}


def facts(path: Path, made: Any) -> Facts:
    """What is recognised in a model."""
    return recognise(open_model(written(path / "m.onnx", made)), Options())


def codes(path: Path, made: Any) -> list[str]:
    """What `inspect` finds."""
    return [finding.code for finding in bncheck.inspect_model(written(path / "m.onnx", made)).findings]


@pytest.mark.parametrize("opset", [6, 9, 13, 14, 17])
@pytest.mark.parametrize("training", [False, True])
def test_modes_of_all_years(tmp_path: Path, opset: int, *, training: bool) -> None:
    """By the attribute since 14, by the number of outputs before."""
    made = model(LAYERS, opset=opset, training=training)
    found = facts(tmp_path, made)
    assert [layer.name for layer in found.layers] == ["a.bn", "b.bn"]
    modes = {site.mode for layer in found.layers for site in layer.sites}
    assert modes == {Mode.TRAIN if training else Mode.EVAL}
    assert [layer.epsilon for layer in found.layers] == pytest.approx([1e-3] * 2)
    assert codes(tmp_path, made) == (["BN205"] if training else [])


def test_vectors_and_kernels(tmp_path: Path) -> None:
    """Gamma, beta, mean and variance in the op's order; kernels with their output channels last."""
    first, _ = facts(tmp_path, model(LAYERS)).layers
    for vector, key in ((first.gamma, "weight"), (first.beta, "bias"), (first.mean, "running_mean")):
        np.testing.assert_allclose(vector.values, LAYERS["a"][key], rtol=1e-6)
    assert first.linear is not None
    assert first.linear.channel_max is not None
    assert first.linear.channel_max.tolist() == [1] * 4
    assert first.sites[0].outputs == ("y",)


def test_never_moved(tmp_path: Path) -> None:
    """Is what it is in any format; the fix is PyTorch's, which exported it."""
    made = model({"a": statistics(moved=False)})
    (found,) = bncheck.inspect_model(written(tmp_path / "m.onnx", made)).findings
    assert found.code == "BN101"
    assert "update_bn" in found.fix
    made.producer_name = "tf2onnx"
    (found,) = bncheck.inspect_model(written(tmp_path / "m.onnx", made)).findings
    assert "exported from" in found.fix


def test_constants_of_nodes(tmp_path: Path) -> None:
    """A vector that a Constant node gives, through an Identity."""
    made = model({"a": statistics()})
    (kept,) = [tensor for tensor in made.graph.initializer if tensor.name == "a.bn.running_mean"]
    node = made.graph.node.add(op_type="Constant", output=["held"])
    node.attribute.add(name="value").t.CopyFrom(kept)
    made.graph.node.add(op_type="Identity", input=["held"], output=["a.mean"])
    made.graph.node[1].input[3] = "a.mean"
    (layer,) = facts(tmp_path, made).layers
    assert layer.mean.values is not None
    assert layer.mean.values.size == 4


def test_computed_vectors_are_unread(tmp_path: Path) -> None:
    """And said to be."""
    made = model({"a": statistics()})
    made.graph.node[1].input[3] = "computed"
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", made))
    assert "BN004" in [finding.code for finding in report.findings]


def test_one_layer_applied_twice(tmp_path: Path) -> None:
    """Has two sites."""
    made = model({"a": statistics()})
    again = made.graph.node.add()
    again.CopyFrom(made.graph.node[1])
    again.name, again.output[0] = "again", "again_y"
    made.graph.output.add(name="again_y")
    (layer,) = facts(tmp_path, made).layers
    assert [site.outputs for site in layer.sites] == [("y",), ("again_y",)]


def test_other_domains_are_not_batch_norm(tmp_path: Path) -> None:
    """An op of one's own may do anything."""
    made = model({"a": statistics()})
    made.graph.node[1].domain = "com.example"
    constant(made.graph, "unused", np.ones(1))
    assert facts(tmp_path, made).layers == ()


def test_it_is_said_what_is_not_run(tmp_path: Path) -> None:
    """No command is recommended that would refuse the file."""
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", model(LAYERS)))
    assert "does not run" in str(report.not_checked)
    assert "compare" not in str(report.not_checked)


def test_weights_that_are_standardised(tmp_path: Path) -> None:
    """NFNets do so with a BatchNormalization in train mode; it is no batch norm, as no data go in."""
    made = model({"a": statistics()}, training=True)
    made.graph.node[0].op_type = "Identity"
    del made.graph.node[0].input[0]
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", made))
    assert [finding.code for finding in report.findings] == ["BN001"]


def test_nodes_without_outputs(tmp_path: Path) -> None:
    """Of a damaged file: a batch norm that gives nothing and has no name is a layer all the same."""
    made = model({"a": statistics(), "b": statistics()})
    for node in made.graph.node:
        if node.input[0] == "b_c" or node.op_type == "Identity":
            node.ClearField("output")
            node.ClearField("name")
    report = bncheck.inspect_model(written(tmp_path / "m.onnx", made))
    assert len(report.layers) == 2
