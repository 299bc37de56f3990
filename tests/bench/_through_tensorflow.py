"""The facts of `inspect checkpoint`, read through TensorFlow.

python -m tests.bench._through_tensorflow PREFIX WAY

What a careful person would write: the statistics, gammas and betas of all layers, which op updates each statistic,
whether the train op runs it, and the two checks that follow (moved at all, wired at all). WAY "parse" walks the parsed
MetaGraphDef, the quickest that TensorFlow offers; "import" builds the graph as `import_meta_graph` and tutorials do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
_FUSED = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
_WRITES = ("AssignSubVariableOp", "AssignVariableOp", "AssignSub", "Assign")


def facts(prefix: str, way: str) -> dict[str, Any]:
    """Layer -> what is known of it."""
    reader = tf.train.load_checkpoint(prefix)
    inputs, ops, train = (_parsed if way == "parse" else _imported)(Path(f"{prefix}.meta"))
    runs = _ancestors(inputs, train)
    updates: dict[str, list[str]] = {}
    for name, op in ops.items():
        if op in _WRITES and inputs[name]:
            updates.setdefault(inputs[name][0], []).append(name)
    layers: dict[str, Any] = {}
    for name, op in ops.items():
        if op not in _FUSED:
            continue
        scope = name.rpartition("/")[0]
        found: dict[str, Any] = {}
        for key in ("moving_mean", "moving_variance", "gamma", "beta"):
            value = reader.get_tensor(f"{scope}/{key}")
            found[key] = [float(value.min()), float(value.max())]
            if key.startswith("moving"):
                start = 0.0 if key == "moving_mean" else 1.0
                writing = [u for u in updates.get(f"{scope}/{key}", ()) if not u.endswith("/Assign")]
                found[f"{key} moved"] = not bool(np.all(value == start))
                found[f"{key} wired"] = any(u in runs for u in writing)
        layers[scope] = found
    return {"step": int(reader.get_tensor("global_step")), "layers": layers}


def _parsed(path: Path) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    meta = v1.MetaGraphDef.FromString(path.read_bytes())
    inputs = {n.name: [i.lstrip("^").partition(":")[0] for i in n.input] for n in meta.graph_def.node}
    ops = {n.name: n.op for n in meta.graph_def.node}
    collection = meta.collection_def["train_op"].node_list.value
    return inputs, ops, [name.partition(":")[0] for name in collection]


def _imported(path: Path) -> tuple[dict[str, list[str]], dict[str, str], list[str]]:
    with tf.Graph().as_default() as graph:
        v1.train.import_meta_graph(str(path), clear_devices=True)
        operations = graph.get_operations()
        inputs = {o.name: [t.op.name for t in o.inputs] + [c.name for c in o.control_inputs] for o in operations}
        return inputs, {o.name: o.type for o in operations}, [_name(item) for item in v1.get_collection("train_op")]


def _name(item: Any) -> str:
    return str(getattr(item, "op", item).name)


def _ancestors(inputs: dict[str, list[str]], ends: Iterable[str]) -> set[str]:
    seen: set[str] = set(ends)
    stack = list(seen)
    while stack:
        for name in inputs[stack.pop()]:
            if name not in seen:
                seen.add(name)
                stack.append(name)
    return seen


if __name__ == "__main__":
    print(json.dumps(facts(sys.argv[1], sys.argv[2])))
