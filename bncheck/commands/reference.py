"""What the checkpoint given with `--reference` tells of the one at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bncheck.facts.errors import UsageError
from bncheck.facts.layers import Facts, Layer, PerChannel


def against(reference: Facts, here: Facts, *, repaired: bool) -> Facts:
    """The facts with the reference's statistics, and which layers have its weights.

    A repaired copy has the weights of its source by intent: they are not compared. Raises UsageError where the
    reference holds no statistics.
    """
    both = {
        layer.name: (layer.mean.values, layer.variance.values)
        for layer in reference.layers
        if layer.mean.values is not None and layer.variance.values is not None
    }
    if not both:
        raise UsageError(f"{reference.path}: the reference holds no statistics to compare with")
    return replace(here, reference=both, reference_weights={} if repaired else _same_weights(here, reference))


def _same_weights(here: Facts, reference: Facts) -> Mapping[str, bool]:
    """Layer name -> whether its weights are the reference's, where any are at hand in both."""
    there = {layer.name: _weights(layer) for layer in reference.layers}
    same = {layer.name: _equal(_weights(layer), there[layer.name]) for layer in here.layers if layer.name in there}
    return {name: equal for name, equal in same.items() if equal is not None}


def _equal(one: tuple[PerChannel | None, ...], other: tuple[PerChannel | None, ...]) -> bool | None:
    known = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return all(np.array_equal(a, b) for a, b in known) if known else None


def _weights(layer: Layer) -> tuple[PerChannel | None, ...]:
    """Gamma, beta, and what is known of every channel of the kernel before; None where it is not at hand."""
    kernel = layer.linear
    of_kernel = (None,) * 3 if kernel is None else (kernel.channel_max, kernel.channel_rms, kernel.channel_mean)
    return (layer.gamma.values, layer.beta.values, *of_kernel)
