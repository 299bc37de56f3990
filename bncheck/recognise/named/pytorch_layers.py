"""What PyTorch's state dicts tell of a layer beside its vectors, and what its defaults add."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bncheck.facts.layers import DecaySource, Layer, Linear, Mode, Role, Site, Switch
from bncheck.facts.record import replace
from bncheck.sources.raw import RawModel, RawTensor

DEFAULT_MOMENTUM = 0.1
"""torch.nn.BatchNorm2d's, which weighs the new batch: the decay is 1 - momentum."""

DEFAULT_EPSILON = 1e-5
"""torch.nn.BatchNorm2d's; torchvision's MobileNetV3 and many detectors have 1e-3."""


def decay_of_momentum(momentum: float) -> float:
    """PyTorch's momentum, the weight of the new batch, as the share that the old value keeps."""
    return 1.0 - momentum


def as_pytorch_trains(layer: Layer, raw: RawModel, counter: str) -> Layer:
    """The layer with its counter's value (`counter`: its key, or ""), and with what its module says of it.

    A module of TorchScript in train mode is a site: traced, it stays in it, and scripted, until somebody calls `eval`.
    The decay is that of an option, else the module's, else PyTorch's default. A module whose momentum is None averages
    all batches alike: nothing of the initial value is left, and there is no decay.
    """
    place = layer.mean.name.rpartition(".")[0]
    module = raw.modules.get(place)
    layer = replace(layer, counted=_counted(raw.tensors.get(counter)), default_epsilon=DEFAULT_EPSILON)
    if module is not None and isinstance(module.get("eps"), float):
        layer = replace(layer, epsilon=module["eps"])
    if module is not None:
        layer = replace(layer, sites=_in_train_mode(place, module))
    if layer.decay is not None:
        return layer
    if module is None or "momentum" not in module:
        decay = decay_of_momentum(DEFAULT_MOMENTUM)
        return replace(layer, decay=decay, decay_from=DecaySource.PYTORCH_DEFAULT)
    if module["momentum"] is None:
        return layer
    return replace(layer, decay=decay_of_momentum(module["momentum"]), decay_from=DecaySource.CONFIGURATION)


def _in_train_mode(place: str, module: Mapping[str, Any]) -> tuple[Site, ...]:
    if module.get("traced_in_train_mode"):
        return (Site(name=place, form="batch_norm", mode=Mode.TRAIN),)
    if module.get("scripted") and module.get("training") and "traced_in_train_mode" not in module:
        switch = Switch(predicate=f"{place}.training", kind="variable", default=True)
        return (Site(name=place, form="batch_norm", mode=Mode.SWITCHED, switch=switch),)
    return ()


def is_another_norm(raw: RawModel, keys: Mapping[Role, str]) -> bool:
    """Whether vectors that are called as batch norm's are those of something else.

    Instance norm with running statistics, where its module tells it; and what normalises the observations of an agent,
    which counts samples (`count`), has no gamma, no beta, and none of PyTorch's counters.
    """
    place = next(iter(keys.values())).rpartition(".")[0]
    if ".instancenorm." in raw.modules.get(place, {}).get("class", ""):
        return True
    plain = keys.keys() == {Role.MEAN, Role.VARIANCE} and f"{place}.num_batches_tracked" not in raw.tensors
    count = raw.tensors.get(f"{place}.count")
    return plain and count is not None and math.prod(count.shape) == 1


def with_linear_layers(layers: Sequence[Layer], tensors: Mapping[str, RawTensor], *, in_order: bool) -> list[Layer]:
    """Layers with the convolution or dense layer right before them, where names and channels leave no doubt.

    A state dict lists modules as the network defines them (`in_order`): the one right before, of the same parent and as
    many channels, is taken, but where several linear layers or several norms follow one another. Else only neighbours
    in a Sequential are, by their numbers. Kernels are not read: a file's statistics are a small part of it.
    """
    modules = list(dict.fromkeys(key.rpartition(".")[0] for key in tensors))
    place = {module: number for number, module in enumerate(modules)}
    found = []
    for layer in layers:
        module = (layer.mean.key or layer.mean.name).rpartition(".")[0]
        at = place.get(module, 0)
        before = _number_before(module) or (modules[at - 1] if in_order and at else "")
        known = layer.linear is None and before and _neighbours(module, before)
        linear = _linear(before, tensors.get(f"{before}.weight"), layer.channels) if known else None
        if linear is not None and in_order and before == modules[at - 1]:
            in_a_row = at > 1 and _is_linear(modules[at - 2], module, tensors)
            norms = at + 1 < len(modules) and _is_norm(modules[at + 1], module, tensors)
            linear = None if in_a_row and norms else linear
        found.append(layer if linear is None else replace(layer, linear=linear))
    return found


def _number_before(module: str) -> str:
    """The module before one in a Sequential: "features.1" of "features.2"."""
    parent, _, number = module.rpartition(".")
    if not number.isdecimal() or number == "0":
        return ""
    return f"{parent}.{int(number) - 1}" if parent else str(int(number) - 1)


def _neighbours(one: str, other: str) -> bool:
    return one.rpartition(".")[0] == other.rpartition(".")[0]


def _is_linear(module: str, beside: str, tensors: Mapping[str, RawTensor]) -> bool:
    weight = tensors.get(f"{module}.weight")
    return _neighbours(module, beside) and weight is not None and len(weight.shape) > 1


def _is_norm(module: str, beside: str, tensors: Mapping[str, RawTensor]) -> bool:
    return _neighbours(module, beside) and f"{module}.running_mean" in tensors


def _linear(module: str, weight: RawTensor | None, channels: int | None) -> Linear | None:
    op = {2: "MatMul", 3: "Conv2D", 4: "Conv2D", 5: "Conv3D"}.get(len(weight.shape)) if weight is not None else None
    if weight is None or op is None or weight.shape[0] != channels or _TRANSPOSED.search(module):
        return None
    return Linear(name=module, op=op, kernel=weight.name, reason="kernels of PyTorch's files are not read")


_TRANSPOSED = re.compile(r"transpose|deconv|upconv", re.IGNORECASE)


def _counted(counter: RawTensor | None) -> int | None:
    if counter is None or counter.unavailable is not None or math.prod(counter.shape) != 1:
        return None
    value = float(counter.read().reshape(-1)[0])
    return int(value) if value.is_integer() and value >= 0 else None
