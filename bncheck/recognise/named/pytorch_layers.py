"""What PyTorch's state dicts tell of a layer beside its vectors, and what its defaults add."""

from __future__ import annotations

import math

from bncheck.facts.layers import DecaySource, Layer
from bncheck.facts.record import replace
from bncheck.sources.raw import RawModel, RawTensor

DEFAULT_MOMENTUM = 0.1
"""torch.nn.BatchNorm2d's, which weighs the new batch: the decay is 1 - momentum."""


def decay_of_momentum(momentum: float) -> float:
    """PyTorch's momentum, the weight of the new batch, as the share that the old value keeps."""
    return 1.0 - momentum


def as_pytorch_trains(layer: Layer, raw: RawModel, counter: str) -> Layer:
    """The layer with its counter's value (`counter`: its key, or ""), and with what its module says of it.

    The decay is that of an option, else the module's, else PyTorch's default. A module whose momentum is None averages
    all batches alike: nothing of the initial value is left, and there is no decay.
    """
    module = raw.modules.get(layer.mean.name.rpartition(".")[0])
    layer = replace(layer, counted=_counted(raw.tensors.get(counter)))
    if module is not None and isinstance(module.get("eps"), float):
        layer = replace(layer, epsilon=module["eps"])
    if layer.decay is not None:
        return layer
    if module is None or "momentum" not in module:
        decay = decay_of_momentum(DEFAULT_MOMENTUM)
        return replace(layer, decay=decay, decay_from=DecaySource.PYTORCH_DEFAULT)
    if module["momentum"] is None:
        return layer
    return replace(layer, decay=decay_of_momentum(module["momentum"]), decay_from=DecaySource.CONFIGURATION)


def _counted(counter: RawTensor | None) -> int | None:
    if counter is None or counter.unavailable is not None or math.prod(counter.shape) != 1:
        return None
    value = float(counter.read().reshape(-1)[0])
    return int(value) if value.is_integer() and value >= 0 else None
