"""ONNX files of folded layers, in the forms that exporters and onnxruntime's quantizer write. For tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fold_models import Operator
from onnx_writer import written

from bncheck.sources import open_model
from bncheck.sources.onnx.messages import DTYPES, ModelProto
from bncheck.sources.raw import RawModel

FORMS = ("float32", "float16", "qdq", "qdq-per-tensor", "qoperator")
_CODES = {name: code for code, name in DTYPES.items()}


class Graph:
    """A chain of nodes from `x`, and its constants."""

    def __init__(self) -> None:
        self.made = ModelProto(ir_version=8, producer_name="pytorch")
        self.made.opset_import.add(domain="", version=17)
        self.last = "x"

    def constant(self, name: str, values: Any) -> str:
        """An initialiser."""
        array = np.asarray(values)
        code = _CODES[str(array.dtype)]
        self.made.graph.initializer.add(name=name, dims=array.shape, data_type=code, raw_data=array.tobytes())
        return name

    def node(self, kind: str, inputs: list[str], **attributes: int) -> str:
        """A node; the last one's output where an input is ""."""
        name = f"n{len(self.made.graph.node)}"
        read = [one or self.last for one in inputs]
        node = self.made.graph.node.add(op_type=kind, name=f"{name}/{kind}", input=read, output=[name])
        for key, value in attributes.items():
            node.attribute.add(name=key, i=value)
        return name

    def step(self, kind: str, inputs: list[str], **attributes: int) -> None:
        """A node whose output the next one reads."""
        self.last = self.node(kind, inputs, **attributes)

    def read(self, folder: Path) -> RawModel:
        """The file, read."""
        self.made.graph.output.add(name=self.last)
        return open_model(written(folder / "model.onnx", self.made))


def channels_first(kernel: np.ndarray) -> np.ndarray:
    """A kernel in TFLite's layout as ONNX has it; of a depthwise one a group a channel."""
    if kernel.shape[0] == 1:
        return np.ascontiguousarray(np.moveaxis(kernel, -1, 0)[:, 0][:, None])
    return np.ascontiguousarray(np.moveaxis(kernel, -1, 1))


def _groups(kernel: np.ndarray) -> int:
    return int(kernel.shape[0]) if kernel.shape[1] == 1 else 1


def converted(folder: Path, form: str, *operators: Operator) -> RawModel:
    """The ONNX file of these operators, one behind another, each with a ReLU."""
    graph = Graph()
    for one in operators:
        kernel = channels_first(np.asarray(one.kernel))
        bias = np.asarray(one.bias, np.float32)
        if form in ("float32", "float16"):
            inputs = [graph.constant(f"{one.name}.w", kernel.astype(form))]
            inputs.append(graph.constant(f"{one.name}.b", bias.astype(form)))
            graph.step("Conv", ["", *inputs], group=_groups(kernel))
        else:
            _quantized(graph, form, one.name, kernel, bias)
        graph.step("Relu", [""])
    return graph.read(folder)


def _quantized(graph: Graph, form: str, name: str, kernel: np.ndarray, bias: np.ndarray) -> None:
    axes = None if form == "qdq-per-tensor" else tuple(range(1, kernel.ndim))
    steps = np.asarray(np.abs(kernel).max(axis=axes) / 127, np.float32)
    along = steps.reshape(-1, *[1] * (kernel.ndim - 1)) if steps.ndim else steps
    x = graph.constant(f"{name}.x_scale", np.float32(0.02))
    zero = graph.constant(f"{name}.x_zero", np.uint8(0))
    w = graph.constant(f"{name}.w", np.round(kernel / along).astype(np.int8))
    w_scale = graph.constant(f"{name}.w_scale", steps)
    w_zero = graph.constant(f"{name}.w_zero", np.zeros(steps.shape, np.int8))
    b_scale = np.asarray(steps * np.float32(0.02), np.float32)
    b = graph.constant(f"{name}.b", np.round(bias / b_scale).astype(np.int32))
    if form == "qoperator":
        inputs = ["", x, zero, w, w_scale, w_zero, x, zero, b]
        graph.step("QLinearConv", inputs, group=_groups(kernel))
        return
    scale_of_bias = graph.constant(f"{name}.b_scale", b_scale)
    kernel_of = graph.node("DequantizeLinear", [w, w_scale, w_zero], axis=0)
    bias_of = graph.node("DequantizeLinear", [b, scale_of_bias], axis=0)
    graph.step("QuantizeLinear", ["", x, zero])
    graph.step("DequantizeLinear", ["", x, zero])
    graph.step("Conv", ["", kernel_of, bias_of], group=_groups(kernel))
