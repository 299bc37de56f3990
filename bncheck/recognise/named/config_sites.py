"""How a Keras configuration applies its batch norms: mode, axis, what feeds them, what they are folded into."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bncheck.facts.layers import Linear, Mode, Site, Switch
from bncheck.numerics.kernel_layouts import DEPTHWISE, TRANSPOSED
from bncheck.recognise.kernel_sizes import kernel_bytes, linear_before
from bncheck.sources.raw import RawKeras, RawKerasCall, RawKerasLayer, RawTensor

KERNELS_READ = 256 << 20
"""Bytes of kernels that are read in all."""

MAX_INPUTS = 64
"""Inputs and outputs listed for one site."""

_LINEAR = (
    frozenset({f"{kind}Conv{n}D" for kind in ("", "Separable") for n in (1, 2, 3)})
    | {f"{kind}Convolution{n}D" for kind in ("", "Separable", "Atrous") for n in (1, 2, 3)}
    | DEPTHWISE
    | TRANSPOSED
    | {"Dense"}
)
_DROPOUT = frozenset(
    {"Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout"}
)
_IDENTITY = _DROPOUT | {"GaussianNoise", "ActivityRegularization", "Identity"}
"""Nothing but the identity at inference."""
_SHAPE_OR_SUM = frozenset(
    {"Flatten", "Reshape", "Permute", "RepeatVector", "Add", "Average", "Subtract", "Concatenate", "Merge"}
    | {f"{kind}{n}D" for kind in ("ZeroPadding", "Cropping", "UpSampling", "AveragePooling") for n in (1, 2, 3)}
    | {f"GlobalAveragePooling{n}D" for n in (1, 2, 3)}
)
"""Linear in their inputs, with or without a change of shape."""
_KEEPS_RANK = (
    _IDENTITY
    | {"Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "ThresholdedReLU", "Softmax", "Dense", "Permute", "Relu"}
    | {"Add", "Average", "Subtract", "Concatenate", "Multiply", "Maximum", "Minimum", "LayerNormalization"}
    | {"BatchNormalization", "BatchNormalizationV1", "BatchNormalizationV2", "SyncBatchNormalization"}
)
_SPATIAL = re.compile(
    r"(?:.*Conv(?:olution)?|ZeroPadding|Cropping|UpSampling|MaxPooling|AveragePooling|MaxPool|AvgPool)(\d)D(?:Transpose)?"
)
_KERNEL_LEAVES = ("pointwise_kernel", "depthwise_kernel", "kernel", "W")
_BIAS_LEAVES = ("bias", "b")


@dataclass(frozen=True, kw_only=True, eq=False)
class ConfigWiring:
    """The calls of a model with what follows from them alone."""

    keras: RawKeras
    calls: Mapping[str, RawKerasCall]
    layers: Mapping[str, RawKerasLayer]
    calls_of: Mapping[str, tuple[int, ...]]
    """Layer path -> positions of its calls."""
    inputs: Mapping[str, frozenset[str]]
    outputs: Mapping[str, frozenset[str]]
    ranks: Mapping[str, int | None]
    kernels: dict[str, Linear] = field(default_factory=dict)
    """Read so far, by layer."""
    spent: Counter[str] = field(default_factory=Counter)
    """Bytes of them."""

    @staticmethod
    def of(keras: RawKeras) -> ConfigWiring:
        """Walks the calls once forward and once back."""
        layers = {layer.path: layer for layer in keras.layers}
        calls_of: dict[str, list[int]] = {}
        inputs: dict[str, frozenset[str]] = {}
        ranks: dict[str, int | None] = {}
        for position, call in enumerate(keras.calls):
            layer = layers[call.layer]
            calls_of.setdefault(call.layer, []).append(position)
            above = [name for name in call.inbound if name in inputs]
            own = frozenset({call.layer}) if layer.class_name == "InputLayer" else frozenset()
            inputs[call.name] = _few(own.union(*(inputs[name] for name in above)))
            ranks[call.name] = _output_rank(layer, [ranks[name] for name in above])
        return ConfigWiring(
            keras=keras,
            calls={call.name: call for call in keras.calls},
            layers=layers,
            calls_of={path: tuple(positions) for path, positions in calls_of.items()},
            inputs=inputs,
            outputs=_outputs(keras.calls),
            ranks=ranks,
        )


def sites_of(
    wiring: ConfigWiring, stored: RawKerasLayer, *, epsilon: float | None, always_batch: bool
) -> tuple[Site, ...]:
    """One site for each application of a batch norm; raises ReadError where a kernel before it is damaged."""
    found = []
    for position in wiring.calls_of.get(stored.path, ()):
        call = wiring.keras.calls[position]
        mode, switch = (Mode.TRAIN, None) if always_batch else _mode(call, wiring.keras.keras_version)
        upstream = _upstream(wiring, call)
        found.append(
            Site(
                name=call.name,
                form=stored.class_name,
                mode=mode,
                switch=switch,
                epsilon=epsilon,
                axis=_axis(stored.config),
                rank=_rank(wiring, stored, call),
                linear=None if upstream is None else _linear(wiring, upstream),
                linear_axis=None if upstream is None else _channel_axis(upstream),
                bias=None if upstream is None or (added := bias_of(upstream)) is None else added.name,
                dropout=_dropout(wiring, call),
                inputs=tuple(sorted(wiring.inputs.get(call.name, ()))),
                outputs=tuple(sorted(wiring.outputs.get(call.name, ()))),
                order=position,
            )
        )
    return tuple(found)


def _mode(call: RawKerasCall, version: str) -> tuple[Mode, Switch | None]:
    """What `training=` in the configuration makes of a call.

    Keras 1 and 2 keep it whatever the model is called with. In Keras 3 `fit` and `predict` override it (measured with
    3.15: a call with training=False moves its statistics under `fit`), but a plain call and `export` obey it.
    """
    switch = Switch(predicate="training", kind="argument", default=call.training)
    if call.training is None:
        return Mode.SWITCHED, switch
    if call.training:
        return Mode.TRAIN, None
    return (Mode.EVAL, None) if version[:2] in ("1.", "2.") else (Mode.SWITCHED, switch)


def _axis(config: Mapping[str, Any]) -> int | None:
    """Of the channels in the layer's input; Keras writes that of ghost batches with their own axis counted in."""
    found = config.get("axis", -1)
    if isinstance(found, (list, tuple)) and len(found) == 1:
        found = found[0]
    if type(found) is not int:
        return None
    return found - 1 if config.get("virtual_batch_size") and found > 0 else found


def _rank(wiring: ConfigWiring, stored: RawKerasLayer, call: RawKerasCall) -> int | None:
    if stored.input_shape is not None:
        return len(stored.input_shape)
    holder = wiring.layers.get(stored.path.rpartition("/")[0])
    if holder is not None and holder.class_name == "TimeDistributed":  # sees one dimension less
        return None
    known = [wiring.ranks.get(name) for name in call.inbound]
    return known[0] if len(known) == 1 else None


def _output_rank(layer: RawKerasLayer, above: list[int | None]) -> int | None:
    """Rank of a layer's output, batch included; None where its class does not tell."""
    if layer.class_name == "InputLayer":
        return None if layer.input_shape is None else len(layer.input_shape)
    if layer.class_name.startswith("Global") or layer.class_name == "Flatten":
        return None if layer.config.get("keepdims") else 2
    if layer.class_name == "Reshape" and isinstance(layer.config.get("target_shape"), list):
        return len(layer.config["target_shape"]) + 1
    spatial = _SPATIAL.fullmatch(layer.class_name)
    if spatial:
        return int(spatial[1]) + 2
    return above[0] if above and layer.class_name in _KEEPS_RANK else None


def _upstream(wiring: ConfigWiring, call: RawKerasCall) -> RawKerasLayer | None:
    """The linear layer right before a call, identities at inference left out; None where something else is there."""
    seen = 0
    while len(call.inbound) == 1 and seen <= len(wiring.calls):
        seen += 1
        above = wiring.calls.get(call.inbound[0])
        if above is None:
            return None
        layer = wiring.layers[above.layer]
        if is_linear(layer):
            return layer
        if not identity_at_inference(layer):
            return None
        call = above
    return None


def is_linear(layer: RawKerasLayer) -> bool:
    """Whether a layer is a convolution or dense layer without an activation."""
    return layer.class_name in _LINEAR and _is_linear_function(layer.config.get("activation"))


def identity_at_inference(layer: RawKerasLayer) -> bool:
    """Whether a layer passes its input on, in eval mode: dropout, noise, a linear activation."""
    if layer.class_name == "Activation":
        return _is_linear_function(layer.config.get("activation"))
    return layer.class_name in _IDENTITY


def named_function(found: Any) -> str:
    """Name of the function that a configuration gives: "linear" for none, "another" where it has no name."""
    while isinstance(found, Mapping):
        # Keras 3 names functions by class_name "function" and config "linear"; quantization-aware training wraps them:
        # a QuantizeAwareActivation has the "activation" in its config, NoOpActivation being none.
        inner = found.get("config")
        if found.get("class_name") == "NoOpActivation":
            return "linear"
        found = inner.get("activation", "another") if isinstance(inner, Mapping) else inner
    return "linear" if found is None else found if isinstance(found, str) else "another"


def _is_linear_function(found: Any) -> bool:
    return named_function(found) == "linear"


def _linear(wiring: ConfigWiring, layer: RawKerasLayer) -> Linear:
    known = wiring.kernels.get(layer.path)
    if known is None:
        known = wiring.kernels[layer.path] = _read_linear(layer, KERNELS_READ - wiring.spent.total())
        kernel = _kernel(layer)
        if kernel is not None and known.channel_max is not None:
            wiring.spent[layer.path] = kernel_bytes(kernel)
    return known


def _read_linear(layer: RawKerasLayer, limit: int) -> Linear:
    kernel = _kernel(layer)
    if kernel is None:
        return Linear(name=layer.path, op=layer.class_name, kernel="", reason="the file holds no kernel of this layer")
    if layer.config.get("dim_ordering") == "th":
        reason = "Keras 1 with Theano's dimension order lays kernels out otherwise"
        return Linear(name=layer.path, op=layer.class_name, kernel=kernel.name, reason=reason)
    return linear_before(layer.path, layer.class_name, kernel, limit=limit)


def _kernel(layer: RawKerasLayer) -> RawTensor | None:
    """The kernel whose last step gives the output: the pointwise one of separable convolutions."""
    for leaf in _KERNEL_LEAVES:
        for tensor in layer.weights:
            if _leaf(tensor) == leaf:
                return tensor
    position = 1 if layer.class_name.startswith("Separable") else 0
    unnamed = _unnamed(layer)
    return unnamed[position] if position < len(unnamed) else None


def bias_of(layer: RawKerasLayer) -> RawTensor | None:
    """The bias that a linear layer adds; None where it adds none, or the file holds none."""
    if layer.config.get("use_bias", layer.config.get("bias")) is not True:
        return None
    named = next((tensor for tensor in layer.weights if _leaf(tensor) in _BIAS_LEAVES), None)
    unnamed = _unnamed(layer)
    last = unnamed[-1] if len(unnamed) > 1 and len(unnamed[-1].shape) == 1 else None
    return named or last


def _unnamed(layer: RawKerasLayer) -> tuple[RawTensor, ...]:
    return tuple(tensor for tensor in layer.weights if "/vars/" in tensor.name or "/param_" in tensor.name)


def _leaf(tensor: RawTensor) -> str:
    return re.sub(r"_\d+$", "", tensor.name.rpartition("/")[2])


def _channel_axis(layer: RawKerasLayer) -> int | None:
    """Channel axis of a linear layer's output."""
    if layer.class_name == "Dense":
        return -1
    order = layer.config.get("data_format", layer.config.get("dim_ordering"))
    return {"channels_last": -1, "tf": -1, "channels_first": 1, "th": 1}.get(order) if isinstance(order, str) else None


def _dropout(wiring: ConfigWiring, call: RawKerasCall) -> str | None:
    """The nearest active dropout above a call with nothing but linear layers between them."""
    pending, seen = list(call.inbound), set(call.inbound)
    while pending:
        above = wiring.calls.get(pending.pop(0))
        if above is None:
            continue
        layer = wiring.layers[above.layer]
        if layer.class_name in _DROPOUT and _is_active(layer.config):
            return above.name
        if identity_at_inference(layer) or layer.class_name in _SHAPE_OR_SUM or is_linear(layer):
            fresh = [name for name in above.inbound if name not in seen]
            seen.update(fresh)
            pending.extend(fresh)
    return None


def _is_active(config: Mapping[str, Any]) -> bool:
    return bool(config.get("rate", config.get("p", 0.5)) != 0)


def _outputs(calls: tuple[RawKerasCall, ...]) -> dict[str, frozenset[str]]:
    """Call -> calls that nothing takes further and that depend on it."""
    found: dict[str, frozenset[str]] = {}
    for call in reversed(calls):
        ends = found.get(call.name) or frozenset({call.name})
        found[call.name] = ends
        for name in call.inbound:
            found[name] = _few(found.get(name, frozenset()) | ends)
    return found


def _few(names: frozenset[str]) -> frozenset[str]:
    return names if len(names) <= MAX_INPUTS else frozenset(sorted(names)[:MAX_INPUTS])
