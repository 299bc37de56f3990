"""Layers whose vectors are of different lengths: named, never judged as if they fitted, and never a crash."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle
from keras_writer import batch_norm, bn_values, h5_file, scoped, sequential

import bncheck
from bncheck.facts.findings import Verdict
from bncheck.report.text import text
from bncheck.sources.graph import protos


def keras(path: Path, role: str, size: int) -> Path:
    """A Keras file whose batch norm has five channels, and a vector of another length."""
    values = bn_values(5) | {role: np.ones(size, np.float32)}
    model = sequential(batch_norm("bn", batch_input_shape=[None, 5]))
    return h5_file(path / "m.h5", model, {"bn": scoped("bn", values)})


def graph_and_checkpoint(path: Path, role: str, size: int) -> Path:
    """A frozen form of the same: a site over variables, with a checkpoint in which one of them is of another length."""
    graph = protos.MetaGraphDef()
    node = graph.graph_def.node.add
    node(name="x", op="Placeholder")
    values = bn_values(5)
    for name in values:
        variable = node(name=f"bn/{name}", op="VariableV2")
        variable.attr["shape"].shape.dim.add(size=-1)
        node(name=f"bn/{name}/read", op="Identity", input=[f"bn/{name}"])
    inputs = ["x", *(f"bn/{name}/read" for name in values)]
    site = node(name="bn/FusedBatchNormV3", op="FusedBatchNormV3", input=inputs)
    site.attr["is_training"].b = False
    site.attr["epsilon"].f = 0.001
    write_bundle(path / "m", {f"bn/{name}": vector for name, vector in (values | {role: np.ones(size, "f4")}).items()})
    (path / "m.meta").write_bytes(graph.SerializeToString())
    return path / "m"


@pytest.mark.parametrize("size", [0, 3, 7])
@pytest.mark.parametrize("role", ["moving_mean", "moving_variance"])
@pytest.mark.parametrize("form", [keras, graph_and_checkpoint])
def test_statistics_of_two_lengths_are_no_pass(tmp_path: Path, form: object, role: str, size: int) -> None:
    """Whichever of the two is wrong: the layer is named as not understood, and nothing passes."""
    assert callable(form)
    report = (
        bncheck.inspect_model(form(tmp_path, role, size))
        if form is keras
        else bncheck.inspect_checkpoint(form(tmp_path, role, size))
    )
    text.write(report, io.StringIO(), verbose=True)
    assert report.verdict is not Verdict.PASS
    assert any(finding.code == "BN002" and "do not fit each other" in finding.message for finding in report.findings)


@pytest.mark.parametrize("size", [0, 3, 7])
@pytest.mark.parametrize("role", ["gamma", "beta"])
def test_gamma_or_beta_of_another_length_is_told(tmp_path: Path, role: str, size: int) -> None:
    """The statistics are judged; the vector that fits no channel counts as unread."""
    report = bncheck.inspect_model(keras(tmp_path, role, size))
    text.write(report, io.StringIO(), verbose=True)
    assert [finding.code for finding in report.findings] == ["BN004"]
    assert f"it holds {size} values for 5 channels" in report.findings[0].message


@pytest.mark.parametrize("size", [1, 5, 15])
def test_one_number_or_a_row_a_class_is_fine(tmp_path: Path, size: int) -> None:
    """A scalar gamma, and one of conditional batch norm, are no contradiction."""
    assert not bncheck.inspect_model(keras(tmp_path, "gamma", size)).findings
