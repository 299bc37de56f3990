"""Files that hold a model and an average of its weights: which layer is whose copy, and how near their kernels are."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from bncheck.facts.copies import Copied
from bncheck.facts.layers import Layer
from bncheck.facts.record import replace
from bncheck.sources.raw import RawTensor

_AVERAGE = re.compile(r"(?<![a-z])(?:ema|swa|averag\w*|shadow)(?![a-z])|(?<![a-z])(?:ema|swa)model", re.IGNORECASE)
"""A word in the name of the place where the average lies: `ema`, `state_dict_ema`, `swa_model`, `EMAModel`; neither
`semantic` nor `schema`."""
_WRAPPER = re.compile(r"^(?:module\.|_orig_mod\.|model\.)+")
_MOST_KERNELS, _MOST_WEIGHTS = 12, 1 << 16
"""Pairs of kernels that are read, and weights of each: of a file's kernels a small part."""
_FLOATS = ("float32", "float64")
"""Types whose rounding does not count."""


def with_average_copies(layers: Sequence[Layer], tensors: Mapping[str, RawTensor]) -> list[Layer]:
    """The layers, those of an average with what each is a copy of. Raises ReadError where a kernel is damaged."""
    places = [layer.name.rpartition("/") for layer in layers]
    plain = {
        _WRAPPER.sub("", own): layer
        for layer, (place, _, own) in zip(reversed(layers), reversed(places), strict=True)
        if place and not _AVERAGE.search(place)
    }
    found, read = [], 0
    for layer, (place, _, own) in zip(layers, places, strict=True):
        source = plain.get(_WRAPPER.sub("", own)) if _AVERAGE.search(place) else None
        if source is None or source.channels != layer.channels:
            found.append(layer)
            continue
        kernels = [tensors.get(one.linear.kernel) for one in (layer, source) if one.linear is not None]
        apart = _apart([kernel for kernel in kernels if kernel is not None]) if read < _MOST_KERNELS else None
        read += apart is not None
        copied = Copied(source=source.name, averaged=True, statistics=_same(layer, source), kernel_apart=apart)
        found.append(replace(layer, copied=copied))
    return found


def _apart(kernels: Sequence[RawTensor]) -> float | None:
    """How far one kernel lies from another, over the other's norm; None where they are not read."""
    if len(kernels) != 2 or kernels[0].shape != kernels[1].shape:
        return None
    for kernel in kernels:
        size = int(np.prod(kernel.shape, dtype=np.float64))
        if kernel.unavailable is not None or kernel.far or kernel.dtype not in _FLOATS or size > _MOST_WEIGHTS:
            return None
    one, other = (kernel.read().astype(np.float64) for kernel in kernels)
    norm = float(np.linalg.norm(other))
    return float(np.linalg.norm(one - other)) / norm if norm > 0 else None


def _same(layer: Layer, source: Layer) -> bool:
    pairs = zip(layer.statistics, source.statistics, strict=True)
    return all(
        one.values is not None and other.values is not None and np.array_equal(one.values, other.values)
        for one, other in pairs
    )
