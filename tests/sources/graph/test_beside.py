"""Graphs in a checkpoint's folder that bear another name or step: used where the variables are the same, else named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from bundle_writer import write_bundle

from bncheck.sources import open_checkpoint, run_dir
from bncheck.sources.graph import protos
from bncheck.sources.graph.beside import graph_in


def meta(path: Path, variables: dict[str, list[int]], saved: list[str] | None = None) -> None:
    """A MetaGraph of these variables, with a Saver of those that are listed."""
    message = protos.MetaGraphDef()
    for name, shape in variables.items():
        node = message.graph_def.node.add(name=name, op="VariableV2")
        node.attr["dtype"].type = 1
        node.attr["shape"].shape.SetInParent()
        for size in shape:
            node.attr["shape"].shape.dim.add(size=size)
    if saved is not None:
        for name, texts in (("save/Const", ["model"]), ("save/names", saved), ("save/slices", [""] * len(saved))):
            node = message.graph_def.node.add(name=name, op="Const")
            node.attr["dtype"].type = 7
            node.attr["value"].tensor.dtype = 7
            node.attr["value"].tensor.tensor_shape.dim.add(size=len(texts))
            node.attr["value"].tensor.string_val.extend(text.encode() for text in texts)
        inputs = ["save/Const", "save/names", "save/slices", *saved]
        message.graph_def.node.add(name="save/SaveV2", op="SaveV2", input=inputs)
    path.write_bytes(message.SerializeToString())


def checkpoint(prefix: Path, *names: str) -> Path:
    """A checkpoint of vectors of four."""
    write_bundle(prefix, {name: np.zeros(4, np.float32) for name in names})
    return prefix


@pytest.mark.parametrize("name", ["model.ckpt-100.meta", "graph-0618-120000.meta", "train.meta"])
def test_fitting_graph_is_used(name: str, tmp_path: Path) -> None:
    """Of another step, of tensorpack, of any name: what has the same variables is the graph, and that is said."""
    meta(tmp_path / name, {"a": [4], "b": [4]})
    model = open_checkpoint(checkpoint(tmp_path / "model.ckpt-300", "a", "b"))
    assert [graph.path.name for graph in model.graphs] == [name]
    assert any(name in note and "fits" in note for note in model.notes)
    assert not open_checkpoint(tmp_path / "model.ckpt-300", use_graph=False).graphs


@pytest.mark.parametrize("variables", [{"a": [4]}, {"a": [4], "b": [5]}, {"a": [4], "b": [4], "c": [4]}])
def test_other_graph_is_named(variables: dict[str, list[int]], tmp_path: Path) -> None:
    """A graph that lacks a variable, or has another shape, or more of them, is that of another network."""
    meta(tmp_path / "old.ckpt-100.meta", variables)
    model = open_checkpoint(checkpoint(tmp_path / "model.ckpt-300", "a", "b"))
    assert not model.graphs
    assert any("old.ckpt-100.meta" in note and "not used" in note for note in model.notes)


def test_saver_of_some_variables(tmp_path: Path) -> None:
    """A graph with more variables fits where its Saver writes just those of the checkpoint, or but the step differs."""
    meta(tmp_path / "graph.meta", {"a": [4], "b": [4], "slot": [4]}, saved=["a", "b"])
    assert open_checkpoint(checkpoint(tmp_path / "best", "a", "b")).graphs
    assert not open_checkpoint(checkpoint(tmp_path / "other", "a")).graphs
    meta(tmp_path / "other-5.meta", {"a": [4], "slot": [4]})
    assert open_checkpoint(tmp_path / "other").graphs


def test_own_graph_comes_first(tmp_path: Path) -> None:
    """The .meta of the same prefix is the checkpoint's, whatever lies beside it."""
    meta(tmp_path / "model.ckpt-100.meta", {"a": [4]})
    meta(tmp_path / "model.ckpt-300.meta", {"other": [4]})
    model = open_checkpoint(checkpoint(tmp_path / "model.ckpt-300", "a"))
    assert [graph.path.name for graph in model.graphs] == ["model.ckpt-300.meta"]


def test_damaged_graphs_are_passed_over(tmp_path: Path) -> None:
    """A file that is no graph keeps no checkpoint from being read."""
    (tmp_path / "notes.meta").write_bytes(b"\x0a\xff\xff")
    assert not open_checkpoint(checkpoint(tmp_path / "model.ckpt-300", "a")).graphs


def test_runs_are_in_step_order_whatever_the_names(tmp_path: Path) -> None:
    """Copies of a browser stand at their step; nets of several names are in one order."""
    for stem in ("model.ckpt-300", "model.ckpt-200 (1)", "model.ckpt-200", "old.ckpt-100", "model.ckpt-1000"):
        checkpoint(tmp_path / stem, "a")
    steps = ["old.ckpt-100", "model.ckpt-200", "model.ckpt-200 (1)", "model.ckpt-300", "model.ckpt-1000"]
    assert [prefix.name for prefix in run_dir(tmp_path)] == steps


def test_graph_of_a_folder(tmp_path: Path) -> None:
    """The newest .meta, else the only graph; nothing where several are there."""
    assert graph_in(tmp_path) is None
    (tmp_path / "frozen.pb").write_bytes(b"")
    assert graph_in(tmp_path) == tmp_path / "frozen.pb"
    (tmp_path / "other.pb").write_bytes(b"")
    assert graph_in(tmp_path) is None
    for step in (90, 100):
        meta(tmp_path / f"model.ckpt-{step}.meta", {"a": [4]})
    assert graph_in(tmp_path) == tmp_path / "model.ckpt-100.meta"
