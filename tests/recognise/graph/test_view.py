"""Graphs of hundreds of train ops: the work grows with their number, not with its product with that of layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bncheck.recognise import recognise
from bncheck.settings.options import Options
from bncheck.sources import open_model
from bncheck.sources.graph import protos


@pytest.mark.parametrize("count", [40, 60, 400])
def test_many_train_ops_are_walked_together(tmp_path: Path, count: int) -> None:
    """Train ops by the hundred, each with its own layer: every update stays wired, and the walks are bounded."""
    meta = protos.MetaGraphDef()
    add = meta.graph_def.node.add
    add(name="x", op="Placeholder")
    add(name="rate", op="Const")
    for number in range(count):
        name = f"l{number}"
        for vector in ("gamma", "beta", "moving_mean", "moving_variance"):
            add(name=f"{name}/{vector}", op="VariableV2").attr["shape"].shape.dim.add(size=4)
        inputs = ["x", *(f"{name}/{vector}" for vector in ("gamma", "beta", "moving_mean", "moving_variance"))]
        site = add(name=f"{name}/bn", op="FusedBatchNormV3", input=inputs)
        site.attr["is_training"].b = True
        for port, vector in ((1, "moving_mean"), (2, "moving_variance")):
            add(name=f"{name}/{vector}/sub", op="Sub", input=[f"{name}/{vector}", f"{name}/bn:{port}"])
            add(name=f"{name}/{vector}/mul", op="Mul", input=[f"{name}/{vector}/sub", "rate"])
            add(name=f"{name}/{vector}/up", op="AssignSub", input=[f"{name}/{vector}", f"{name}/{vector}/mul"])
        add(name=f"{name}/grad", op="Mul", input=[f"{name}/bn", "rate"])
        add(name=f"{name}/apply", op="ApplyGradientDescent", input=[f"{name}/gamma", "rate", f"{name}/grad"])
        waits = [f"^{name}/apply", f"^{name}/moving_mean/up", f"^{name}/moving_variance/up"]
        add(name=f"{name}/train", op="NoOp", input=waits)
        meta.collection_def["train_op"].node_list.value.append(f"{name}/train")
    (tmp_path / "m.meta").write_bytes(meta.SerializeToString())
    facts = recognise(open_model(tmp_path / "m.meta"), Options())
    assert facts.graph is not None
    assert len(facts.graph.train_ops) == min(count, 49)
    assert len(facts.layers) == count
    assert all(update.train_ops for layer in facts.layers for update in layer.updates)
