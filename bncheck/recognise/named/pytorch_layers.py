"""What PyTorch's state dicts tell of a layer beside its vectors, and what its defaults add."""

from __future__ import annotations

import math

from bncheck.facts.layers import DecaySource, Layer
from bncheck.facts.record import replace
from bncheck.sources.raw import RawTensor

DEFAULT_MOMENTUM = 0.1
"""torch.nn.BatchNorm2d's, which weighs the new batch: the decay is 1 - momentum."""


def decay_of_momentum(momentum: float) -> float:
    """PyTorch's momentum, the weight of the new batch, as the share that the old value keeps."""
    return 1.0 - momentum


def as_pytorch_trains(layer: Layer, counter: RawTensor | None) -> Layer:
    """The layer with its counter's value, and with PyTorch's default decay where no option gives one."""
    counted = None
    if counter is not None and counter.unavailable is None and math.prod(counter.shape) == 1:
        value = float(counter.read().reshape(-1)[0])
        counted = int(value) if value.is_integer() and value >= 0 else None
    if layer.decay is not None:
        return replace(layer, counted=counted)
    return replace(
        layer, counted=counted, decay=decay_of_momentum(DEFAULT_MOMENTUM), decay_from=DecaySource.PYTORCH_DEFAULT
    )
