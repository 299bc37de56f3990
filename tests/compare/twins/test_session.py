"""Partitioned variables: the graph has the parts, the checkpoint the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bncheck.compare.prepared import prepare
from bncheck.compare.twins.twins import open_twins
from bncheck.settings.options import Options
from bncheck.sources import open_model

pytestmark = pytest.mark.tensorflow

MODEL = Path(__file__).parents[3] / "fixtures/tiny/healthy/partitioned/model.ckpt-80"


def test_parts_are_slices_of_the_whole() -> None:
    """As the Saver of the graph cuts them; the twins run."""
    raw = open_model(MODEL, graph=None, use_graph=True)
    prepared = prepare(raw, Options())
    held = {
        node.name.rpartition("/")[2]: np.frombuffer(node.attr["value"].tensor.tensor_content, "<f4").reshape(
            [dim.size for dim in node.attr["value"].tensor.tensor_shape.dim]
        )
        for node in prepared.forward.graph_def.node
        if node.op == "Const" and node.name.startswith("weights/conv/weights/part_")
    }
    whole = raw.tensors["conv/weights"].read()
    parts = [held[name] for name in sorted(held)]
    assert len(parts) == 2
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), whole)
    with open_twins(prepared.forward) as twins:
        shape = [4, *(size or 8 for size in (twins.inputs[0].shape or (None, 8, 8, 3))[1:])]
        run = twins.run(np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))
    assert all(np.all(np.isfinite(output)) for output in (*run.train_outputs, *run.eval_outputs))
