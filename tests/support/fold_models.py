"""Models and TFLite files of theirs, made by the formulas of folding alone: no converter, no TensorFlow. For tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from lite_writer import G, Op, T, constant, lite_bytes
from numpy.typing import NDArray

from bncheck.facts.formats import FileKind, Format
from bncheck.sources.raw import RawModel, RawTensor
from bncheck.sources.tflite.tflite import read_lite

Array = NDArray[np.float32]
INITIAL = (np.float32(0), np.float32(1))


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution `name` with a batch norm in the scope `name/BatchNorm`, as TF-slim names them."""

    name: str
    kernel: Array
    """Height, width, inputs, outputs; depthwise: height, width, inputs, multiplier."""
    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    bias: Array | None = None
    depthwise: bool = False

    @property
    def channels(self) -> int:
        """Of the output."""
        return int(self.gamma.size)


def conv(name: str, *, seed: int = 0, inputs: int = 3, outputs: int = 8, size: int = 3, **more: Any) -> Conv:
    """A convolution and batch norm of random numbers; further keywords are fields of `Conv`."""
    random = np.random.default_rng(seed)
    known: dict[str, Any] = {
        "kernel": random.normal(size=(size, size, inputs, 1 if more.get("depthwise") else outputs)),
        "gamma": random.normal(1, 0.4, outputs),
        "beta": random.normal(0, 0.3, outputs),
        "mean": random.normal(0, 0.7, outputs),
        "variance": random.gamma(1.2, 0.8, outputs) + 0.01,
    }
    known |= more
    return Conv(name=name, **{key: _float32(value) for key, value in known.items()})


def _float32(value: Any) -> Any:
    return value if isinstance(value, bool) or value is None else np.asarray(value, np.float32)


def checkpoint(*layers: Conv, **others: Any) -> RawModel:
    """A bare checkpoint of these layers; further tensors by keyword, "__" standing for "/"."""
    tensors: dict[str, Any] = {}
    for layer in layers:
        tensors[f"{layer.name}/{'depthwise_weights' if layer.depthwise else 'weights'}"] = layer.kernel
        if layer.bias is not None:
            tensors[f"{layer.name}/biases"] = layer.bias
        for role in ("gamma", "beta"):
            tensors[f"{layer.name}/BatchNorm/{role}"] = getattr(layer, role)
        tensors[f"{layer.name}/BatchNorm/moving_mean"] = layer.mean
        tensors[f"{layer.name}/BatchNorm/moving_variance"] = layer.variance
    tensors |= {name.replace("__", "/"): np.asarray(values, np.float32) for name, values in others.items()}
    return of_arrays(tensors)


def averaged(layer: Conv, seed: int, *, statistics: bool) -> tuple[Conv, dict[str, Any]]:
    """(the layer with its weights a little off, the same as averages beside the layer's own in a checkpoint)."""
    random = np.random.default_rng(seed)
    fields = ("kernel", "gamma", "beta") + (("mean", "variance") if statistics else ())
    moved: dict[str, Any] = {
        name: (getattr(layer, name) * random.uniform(0.8, 1.2, getattr(layer, name).shape)).astype(np.float32)
        for name in fields
    }
    names = {"kernel": "weights", "gamma": "BatchNorm/gamma", "beta": "BatchNorm/beta"}
    names |= {"mean": "BatchNorm/moving_mean", "variance": "BatchNorm/moving_variance"}
    keys = {f"{layer.name}/{names[field]}/ExponentialMovingAverage".replace("/", "__"): moved[field] for field in moved}
    return replace(layer, **moved), keys


def of_arrays(arrays: Mapping[str, Any]) -> RawModel:
    """A TF1 checkpoint that holds these arrays."""
    tensors = {
        name: RawTensor(name=name, dtype=str(values.dtype), shape=values.shape, read=lambda values=values: values)
        for name, values in arrays.items()
    }
    return RawModel(path=Path("model.ckpt-1"), format=Format(FileKind.TF1_CHECKPOINT), tensors=tensors)


def fold(layer: Conv, epsilon: float = 1e-3) -> tuple[Array, Array]:
    """(folded kernel in TFLite's layout, folded bias), in float32 as the converter computes them."""
    scale = layer.gamma / np.sqrt(layer.variance + np.float32(epsilon))
    bias = layer.beta - layer.mean * scale
    if layer.bias is not None:
        bias = bias + layer.bias * scale
    if layer.depthwise:
        joined = layer.kernel.reshape(*layer.kernel.shape[:2], -1)
        return (joined * scale)[None].astype(np.float32), bias.astype(np.float32)
    return np.moveaxis(layer.kernel * scale, -1, 0).astype(np.float32), bias.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator of a TFLite file."""

    kind: str
    name: str
    kernel: Any
    bias: Any = None
    scheme: str = "float32"
    """"float32", "float16", "int8" (a scale a channel), "int8-per-tensor", or "aware": trained quantization-aware and
    exported in float, so that kernels were rounded to int8 before the fold and are again when the file runs."""
    behind: Sequence[tuple[str, Any]] = field(default_factory=tuple)
    """(kind, constant) of operators behind it."""


def operator(layer: Conv, epsilon: float = 1e-3, **more: Any) -> Operator:
    """The operator that a layer is folded into."""
    kernel, bias = fold(layer, epsilon)
    kind = "DEPTHWISE_CONV_2D" if layer.depthwise else "CONV_2D"
    known: dict[str, Any] = {"kind": kind, "name": f"net/{layer.name}/Conv2D", "kernel": kernel, "bias": bias}
    return Operator(**(known | more))


def lite(folder: Path, *operators: Operator) -> RawModel:
    """The TFLite file of these operators, one behind another."""
    tensors = [T(name="images", shape=(1, 8, 8, 3))]
    ops: list[Op] = []
    last = 0

    def add(tensor: T) -> int:
        tensors.append(tensor)
        return len(tensors) - 1

    def constant_of(name: str, values: Array, scheme: str, axis: int, steps: Any = None) -> int:
        stored, more = _stored(values, "int8" if scheme == "aware" else scheme, axis, steps)
        if scheme == "aware":
            along = [1] * stored.ndim
            along[axis] = -1
            stored_real = (stored * np.reshape(more["scales"], along)).astype(np.float32)
            number, rounded = (
                add(constant(name, stored_real)),
                add(T(name="", dtype="int8", shape=values.shape, **more)),
            )
            ops.append(Op(kind="QUANTIZE", inputs=(number,), outputs=(rounded,)))
            wide = add(T(name=f"{name}_dequantize", shape=values.shape))
            ops.append(Op(kind="DEQUANTIZE", inputs=(rounded,), outputs=(wide,)))
            return wide
        number = add(constant(name, stored, **more))
        if scheme != "float16":
            return number
        wide = add(T(name=f"{name}_dequantize", shape=values.shape))
        ops.append(Op(kind="DEQUANTIZE", inputs=(number,), outputs=(wide,)))
        return wide

    for one in operators:
        axis = 3 if one.kind == "DEPTHWISE_CONV_2D" else 0
        channels = one.kernel.shape[axis]
        shape = (1, channels) if one.kind == "FULLY_CONNECTED" else (1, 8, 8, channels)
        inputs = [last, constant_of(f"{one.name}/kernel", one.kernel, one.scheme, axis)]
        if one.bias is not None:
            scales = np.asarray(tensors[inputs[1]].scales, np.float64) * 0.02 if "int8" in one.scheme else None
            kind = "int32" if "int8" in one.scheme else one.scheme.replace("aware", "float32")
            inputs.append(constant_of(f"{one.name}/bias", one.bias, kind, 0, scales))
        last = add(T(name=one.name, shape=shape))
        ops.append(Op(kind=one.kind, inputs=inputs, outputs=(last,)))
        for kind, values in one.behind:
            other = add(constant(f"{one.name}/{kind}", np.asarray(values, np.float32)))
            result = add(T(name=f"{one.name}/{kind}_1", shape=shape))
            ops.append(Op(kind=kind, inputs=(last, other), outputs=(result,)))
            last = result
        relu = add(T(name=f"{one.name}/Relu", shape=shape))
        ops.append(Op(kind="RELU", inputs=(last,), outputs=(relu,)))
        last = relu
    path = folder / "model.tflite"
    path.write_bytes(lite_bytes(G(tensors=tensors, operators=ops, outputs=(last,))))
    return read_lite(path)


def _stored(values: Array, scheme: str, axis: int, steps: Any) -> tuple[NDArray[Any], dict[str, Any]]:
    """(as stored, quantization) of a constant."""
    if scheme in ("float32", "float16"):
        with np.errstate(over="ignore"):
            return values.astype(scheme), {}
    if steps is None:
        others = tuple(number for number in range(values.ndim) if number != axis)
        largest = np.abs(values).max(axis=others if scheme == "int8" else None)
        steps = np.atleast_1d(np.maximum(largest, 1e-9) / 127)
    steps = np.asarray(steps, np.float32)
    along = [1] * values.ndim
    along[axis] = steps.size
    most = 2**31 - 1 if scheme == "int32" else 127  # beyond, a bias is cut off: BN405
    stored = np.clip(np.round(values.astype(np.float64) / steps.reshape(along)), -most, most)
    return stored.astype("int32" if scheme == "int32" else "int8"), {"scales": steps.tolist(), "axis": axis}
