"""ONNX models written without onnx: a convolution, batch norm and ReLU for each layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bncheck.sources.onnx.messages import ModelProto

FLOAT, INT64 = 1, 7


def model(layers: Mapping[str, Mapping[str, np.ndarray]], *, opset: int = 17, training: bool = False) -> Any:
    """A chain: x -> Conv -> BatchNormalization -> Relu -> ... -> y, with PyTorch's names of initialisers."""
    made = ModelProto(ir_version=8, producer_name="pytorch")
    made.opset_import.add(domain="", version=opset)
    made.graph.input.add(name="x")
    at = "x"
    for name, arrays in layers.items():
        channels = arrays["weight"].size
        constant(made.graph, f"{name}.conv.weight", np.ones((channels, 3, 1, 1), "f4"))
        made.graph.node.add(
            op_type="Conv", name=f"{name}/Conv", input=[at, f"{name}.conv.weight"], output=[f"{name}_c"]
        )
        keys = ("weight", "bias", "running_mean", "running_var")
        for key in keys:
            constant(made.graph, f"{name}.bn.{key}", arrays[key])
        outputs = [f"{name}_n", *([f"{name}_m", f"{name}_v"] if training else [])]
        inputs = [f"{name}_c", *(f"{name}.bn.{key}" for key in keys)]
        node = made.graph.node.add(op_type="BatchNormalization", name=f"{name}/BN", input=inputs, output=outputs)
        node.attribute.add(name="epsilon", f=1e-3)
        if training and opset >= 14:
            node.attribute.add(name="training_mode", i=1)
        made.graph.node.add(op_type="Relu", input=[f"{name}_n"], output=[f"{name}_r"])
        at = f"{name}_r"
    made.graph.node.add(op_type="Identity", input=[at], output=["y"])
    made.graph.output.add(name="y")
    return made


def constant(graph: Any, name: str, array: np.ndarray) -> None:
    """An initialiser of float32."""
    graph.initializer.add(name=name, dims=array.shape, data_type=FLOAT, raw_data=array.astype("<f4").tobytes())


def written(path: Path, made: Any) -> Path:
    """The file."""
    path.write_bytes(made.SerializeToString())
    return path


def statistics(channels: int = 4, *, moved: bool = True) -> dict[str, np.ndarray]:
    """Vectors of a trained layer."""
    rng = np.random.default_rng(channels)
    found = {"weight": rng.uniform(0.5, 1.5, channels), "bias": rng.normal(0, 0.1, channels)}
    mean, variance = (rng.normal(0, 1, channels), rng.uniform(0.5, 2, channels)) if moved else (0, 1)
    return found | {"running_mean": np.full(channels, mean), "running_var": np.full(channels, variance)}
