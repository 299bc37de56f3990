"""What Flax's variables tell of batch norm: statistics and weights of one module lie in two collections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bncheck.facts.layers import DecaySource, Layer
from bncheck.facts.record import replace
from bncheck.sources.raw import RawTensor

DEFAULT_MOMENTUM = 0.99
"""flax.linen.BatchNorm's, which weighs the old value: the decay itself."""
DEFAULT_EPSILON = 1e-5
"""flax.linen.BatchNorm's."""
_STATISTICS, _WEIGHTS = "batch_stats", "params"


def by_module(tensors: Mapping[str, RawTensor]) -> dict[str, str]:
    """Name in the module -> key: "<module>/batch_stats/mean" and "<module>/scale".

    Of "batch_stats/<module>/mean" and "params/<module>/scale"; the collections may lie deeper, as in a TrainState.
    """
    return dict(_renamed(tensors))


def _renamed(tensors: Mapping[str, RawTensor]) -> Iterator[tuple[str, str]]:
    for key in tensors:
        parts = key.split("/")
        if _STATISTICS in parts[:-1]:
            at = parts.index(_STATISTICS)
            yield "/".join((*parts[:at], *parts[at + 1 : -1], _STATISTICS, parts[-1])), key
        elif _WEIGHTS in parts[:-1]:
            at = parts.index(_WEIGHTS)
            yield "/".join((*parts[:at], *parts[at + 1 :])), key


def as_flax_trains(layer: Layer) -> Layer:
    """With Flax's defaults for epsilon and, where no option gives one, the decay: the file holds none."""
    layer = replace(layer, default_epsilon=DEFAULT_EPSILON)
    if layer.decay is not None:
        return layer
    return replace(layer, decay=DEFAULT_MOMENTUM, decay_from=DecaySource.FLAX_DEFAULT)
