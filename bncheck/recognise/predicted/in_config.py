"""A Keras configuration between two batch norms -> what the second one's weights predict to arrive at it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Layer
from bncheck.facts.predicted import Predicted
from bncheck.numerics.kernel_layouts import DEPTHWISE, TRANSPOSED
from bncheck.numerics.propagation import (
    FUNCTIONS,
    Function,
    KernelAxis,
    Signal,
    applied,
    averaged,
    gated,
    joined,
    largest,
    of_images,
    summed,
    through_kernel,
)
from bncheck.recognise.kernel_sizes import is_read
from bncheck.recognise.named.config_sites import ConfigWiring, bias_of, identity_at_inference, is_linear, named_function
from bncheck.recognise.predicted.after_batch_norm import after_batch_norm, guessed
from bncheck.sources.raw import RawKerasCall, RawKerasLayer, RawTensor

_POOLS = frozenset(f"{name}{n}D" for name in ("AveragePooling", "AvgPool") for n in (1, 2, 3))
_MAX_POOLS = frozenset(f"{name}{n}D" for name in ("MaxPooling", "MaxPool") for n in (1, 2, 3))
_GLOBAL = frozenset(f"Global{name}{n}D" for name in ("AveragePooling", "AvgPool") for n in (1, 2, 3))
_PADS = frozenset(f"ZeroPadding{n}D" for n in (1, 2, 3))
_KEEPS_CHANNELS = frozenset({"Flatten", "Reshape", *(f"UpSampling{n}D" for n in (1, 2, 3))})
_CONVOLUTIONS = (
    frozenset(f"{kind}{name}{n}D" for kind in ("", "Separable") for name in ("Conv", "Convolution") for n in (1, 2, 3))
    | DEPTHWISE
)
_OPERATORS = {"add": np.add, "multiply": np.multiply, "subtract": np.subtract, "truediv": np.divide}
_CHANNELS_FIRST = ("channels_first", "th")
_MOST_PLACES = 1 << 20
"""Along one axis; a configuration that tells more is damaged."""


def with_predictions(wiring: ConfigWiring, layers: Sequence[Layer]) -> list[Layer]:
    """The layers, those with `predicted` whose input comes from other batch norms through layers that are understood.

    Raises ReadError where a kernel is damaged.
    """
    walk = _ConfigWalk(wiring, {layer.name: layer for layer in layers})
    return [
        replace(layer, predicted=walk.at(wiring.calls[layer.sites[0].name], layer))
        if len(layer.sites) == 1 and layer.mean.values is not None
        else layer
        for layer in layers
    ]


class _ConfigWalk:
    """Signals and sizes by call: each found once, in forward order."""

    def __init__(self, wiring: ConfigWiring, layers: Mapping[str, Layer]) -> None:
        self.wiring, self.layers = wiring, layers
        self.signals: dict[str, Signal | None] = {}
        self.sizes: dict[str, tuple[int | None, ...] | None] = {}
        self.arriving: dict[str, Predicted | None] = {}
        for call in wiring.keras.calls:
            layer = wiring.layers[call.layer]
            self.sizes[call.name] = self._size(call, layer)
            self.signals[call.name] = self._signal(call, layer)

    def at(self, call: RawKerasCall, stored: Layer) -> Predicted | None:
        """What arrives at a batch norm."""
        while len(call.inbound) == 1:
            above = self.wiring.calls.get(call.inbound[0])
            if above is None:
                return None
            layer = self.wiring.layers[above.layer]
            if is_linear(layer):
                return self.arriving.get(above.name) or self._behind_images(above, layer, stored)
            if not identity_at_inference(layer):
                return None
            call = above
        return None

    def _above(self, call: RawKerasCall) -> list[Signal | None]:
        return [self.signals.get(name) for name in call.inbound]

    def _signal(self, call: RawKerasCall, layer: RawKerasLayer) -> Signal | None:
        kind = layer.class_name
        if layer.path in self.layers:
            return after_batch_norm(self.layers[layer.path])
        above = self._above(call)
        if len(above) != 1:
            return self._of_several(call, layer)
        one = above[0]
        if identity_at_inference(layer) or kind in _PADS or kind in _KEEPS_CHANNELS:
            return one
        if kind in _GLOBAL:
            return averaged(one, of=call.name)
        if kind in _POOLS | _MAX_POOLS:
            places = math.prod(_pooled(layer, int(kind[-2])))
            return (averaged if kind in _POOLS else largest)(one, places, of=call.name)
        function = _operator(layer, call) if kind == "TFOpLambda" else _function(layer)
        if kind in _CONVOLUTIONS or kind == "Dense":
            found = self.arriving[call.name] = self._linear(call, layer)
            if found is None:
                return None
            made = guessed(found, of=call.name)
            return made if is_linear(layer) else None if function is None else applied(function, made)
        return None if function is None else applied(function, one)

    def _of_several(self, call: RawKerasCall, layer: RawKerasLayer) -> Signal | None:
        """Where several calls meet: a sum, a gate, or channels side by side."""
        above, kind = self._above(call), layer.class_name
        if kind == "Add":
            return summed(above, of=call.name)
        if kind == "Multiply" and len(above) == 2:
            return gated(*above, of=call.name)
        if kind == "Concatenate":
            last = layer.config.get("axis", -1) in (-1, len(self.sizes.get(call.name) or ()) + 1)
            return joined(above, of=call.name) if last else None
        return None

    def _linear(self, call: RawKerasCall, layer: RawKerasLayer) -> Predicted | None:
        """What a convolution or dense layer makes of its input, bias included."""
        kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
        if not kernels or layer.class_name in TRANSPOSED or any(not is_read(kernel) for kernel in kernels):
            return None
        source, zeros = self._padding(call)
        arriving = self.signals.get(source)
        if arriving is None:
            return None
        windows = _windows(layer, self.sizes.get(source), kernels[0], zeros)
        depthwise = layer.class_name in DEPTHWISE or layer.class_name.startswith("Separable")
        found = through_kernel(arriving, kernels[0].read(), windows, depthwise=depthwise)
        if found is not None and layer.class_name.startswith("Separable"):
            if len(kernels) != 2:
                return None
            between = guessed(found, of=call.name)
            pointwise: NDArray[Any] = kernels[1].read()
            found = through_kernel(between, pointwise.reshape(pointwise.shape[-2:]))
        bias = bias_of(layer)
        if found is None or bias is None:
            return found
        added = bias.read().astype(np.float64)
        return None if added.shape != found.mean.shape else replace(found, mean=found.mean + added)

    def _behind_images(self, call: RawKerasCall, layer: RawKerasLayer, stored: Layer) -> Predicted | None:
        """Of a convolution whose input is no batch norm's: as of images, near the layer's stored statistics."""
        kernels = [weight for weight in layer.weights if len(weight.shape) > 1]
        plain = layer.class_name in _CONVOLUTIONS - DEPTHWISE and len(kernels) == 1
        mean, variance = stored.mean.values, stored.variance.values
        if not plain or not call.inbound or mean is None or variance is None or not is_read(kernels[0]):
            return None
        source, zeros = self._padding(call)
        bias = bias_of(layer)
        added = 0.0 if bias is None else bias.read().astype(np.float64)
        windows = _windows(layer, self.sizes.get(source), kernels[0], zeros)
        found = of_images(mean - added, variance, kernels[0].read(), windows)
        return None if found is None else replace(found, mean=found.mean + added)

    def _padding(self, call: RawKerasCall) -> tuple[str, tuple[tuple[int, int], ...] | None]:
        """(the call behind any zero padding of its own layer, the zeros an axis)."""
        name = call.inbound[0]
        above = self.wiring.calls.get(name)
        layer = None if above is None else self.wiring.layers[above.layer]
        if above is None or layer is None or layer.class_name not in _PADS or len(above.inbound) != 1:
            return name, None
        return above.inbound[0], _pairs(layer.config.get("padding"), int(layer.class_name[-2]))

    def _size(self, call: RawKerasCall, layer: RawKerasLayer) -> tuple[int | None, ...] | None:
        """Places along each axis of a call's output, neither batch nor channels; None unknown."""
        kind = layer.class_name
        if kind == "InputLayer":
            shape = layer.input_shape or layer.config.get("batch_input_shape") or layer.config.get("batch_shape")
            places = shape[1:-1] if isinstance(shape, (tuple, list)) else ()
            known = all(size is None or (type(size) is int and 0 < size <= _MOST_PLACES) for size in places)
            return tuple(places) if places and known else None
        above = self.sizes.get(call.inbound[0]) if call.inbound else None
        if above is None or kind in _GLOBAL or kind in ("Flatten", "Reshape") or kind.startswith("UpSampling"):
            return None
        if kind in _PADS:
            zeros = _pairs(layer.config.get("padding"), len(above))
            if zeros is None or len(zeros) != len(above):
                return None
            return tuple(None if size is None else size + sum(pair) for size, pair in zip(above, zeros, strict=True))
        if kind in _POOLS | _MAX_POOLS:
            return tuple(window.output for window in _moving(layer, above, _pooled(layer, len(above)), None))
        kernel = next((weight for weight in layer.weights if len(weight.shape) == len(above) + 2), None)
        if kind in _CONVOLUTIONS:
            return None if kernel is None else tuple(window.output for window in _windows(layer, above, kernel, None))
        return above


def _pooled(layer: RawKerasLayer, axes: int) -> list[int]:
    """Places along each axis that a pooling takes together."""
    return _each(layer.config.get("pool_size"), axes) or [2] * axes


def _windows(
    layer: RawKerasLayer,
    size: tuple[int | None, ...] | None,
    kernel: RawTensor,
    zeros: tuple[tuple[int, int], ...] | None,
) -> list[KernelAxis]:
    taps = list(kernel.shape[:-2])
    return _moving(layer, size if size is not None and len(size) == len(taps) else (None,) * len(taps), taps, zeros)


def _moving(
    layer: RawKerasLayer, size: tuple[int | None, ...], taps: list[int], zeros: tuple[tuple[int, int], ...] | None
) -> list[KernelAxis]:
    config = layer.config
    if config.get("data_format", config.get("dim_ordering")) in _CHANNELS_FIRST:
        size = (None,) * len(taps)
    default = taps if "pool_size" in config else [1] * len(taps)
    strides = _each(config.get("strides", config.get("subsample")), len(taps)) or default
    dilations = _each(config.get("dilation_rate"), len(taps)) or [1] * len(taps)
    same = config.get("padding", config.get("border_mode")) in ("same", "SAME") and zeros is None
    known = zeros if zeros is not None and len(zeros) == len(taps) else ((0, 0),) * len(taps)
    return [
        KernelAxis(size=s, kernel=k, stride=max(step, 1), padding=None if same else zero, dilation=max(dilation, 1))
        for s, k, step, zero, dilation in zip(size, taps, strides, known, dilations, strict=True)
    ]


def _each(given: Any, axes: int) -> list[int] | None:
    """A number for each axis, from one for all or a list."""
    if type(given) is int:
        return [given] * axes
    if isinstance(given, (list, tuple)) and len(given) == axes and all(type(one) is int for one in given):
        return list(given)
    return None


def _pairs(given: Any, axes: int) -> tuple[tuple[int, int], ...] | None:
    """Zeros before and after along each axis, from a number, a pair, or pairs."""
    each = _each(given, axes)
    if axes == 1 and isinstance(given, (list, tuple)) and len(given) == 2 and _each(given, 2) is not None:
        return ((given[0], given[1]),)
    if each is not None:
        return tuple((one, one) for one in each)
    pairs = [_each(one, 2) for one in given] if isinstance(given, (list, tuple)) and len(given) == axes else []
    return tuple((pair[0], pair[1]) for pair in pairs if pair is not None) if pairs and None not in pairs else None


def _operator(layer: RawKerasLayer, call: RawKerasCall) -> Function | None:
    """What an operator of tf.keras does with a number; None for any other."""
    number, name = call.number, str(layer.config.get("function"))
    operator = _OPERATORS.get(name.rpartition(".")[2])
    return None if number is None or operator is None else lambda x: operator(x, number)


def _function(layer: RawKerasLayer) -> Function | None:
    """The elementwise function that a layer applies; None where it applies another."""
    config, kind = layer.config, layer.class_name
    if kind == "ReLU":
        low, high = config.get("negative_slope") or 0.0, config.get("max_value")
        top = np.inf if high is None else high
        if config.get("threshold") or not isinstance(low, (int, float)) or not isinstance(top, (int, float)):
            return None
        return lambda x: np.where(x > 0, np.minimum(x, top), low * x)
    if kind == "LeakyReLU":
        slope = config.get("negative_slope", config.get("alpha", 0.3))
        slope = slope.get("value") if isinstance(slope, Mapping) else slope
        return (lambda x: np.where(x > 0, x, slope * x)) if isinstance(slope, (int, float)) else None
    if kind == "PReLU":
        slopes = layer.weights[0] if len(layer.weights) == 1 and is_read(layer.weights[0]) else None
        if slopes is None or sum(size > 1 for size in slopes.shape) > 1:
            return None
        values: NDArray[np.float64] = slopes.read().astype(np.float64).reshape(-1)
        return lambda x: np.where(x > 0, x, values * x) if values.size in (1, x.shape[1]) else np.full_like(x, np.nan)
    if kind == "ELU":
        return FUNCTIONS["elu"] if config.get("alpha", 1.0) == 1.0 else None
    return FUNCTIONS.get(named_function(config.get("activation")))
