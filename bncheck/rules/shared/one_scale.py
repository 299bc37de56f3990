"""Which layers one scale for a whole kernel would hurt, and what is assumed where no file tells epsilon."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from bncheck.facts.layers import Facts, Layer
from bncheck.facts.record import replace
from bncheck.numerics.channel_ranges import FoldedRanges, folded_ranges_of
from bncheck.numerics.channels import dead_channels
from bncheck.numerics.init_share import USUAL_EPSILON


@lru_cache(maxsize=1)
def concerned(model: Facts) -> tuple[FoldedRanges, ...]:
    """Folded ranges of the layers that one scale a kernel would hurt, by their kernels or by dead channels.

    All of these, as long as nothing was quantized; then those whose kernel really has one scale. Where others have a
    linear operator before them, one that has none folds into nothing. Where no file tells epsilon, as in a bare
    checkpoint, it is assumed to be TensorFlow's default, in PyTorch's and Flax's files too: what it harms, their own,
    which is smaller, harms more. Kept for the next rule that asks.
    """
    structured = any(layer.linear is not None for layer in model.layers)
    asked = [
        _with_epsilon(layer)
        for layer in model.layers
        if (layer.linear is not None or not structured) and (_kernel_read(layer) or dead_channels(layer).any())
    ]
    known = tuple(ranges for ranges in folded_ranges_of(asked) if ranges is not None)
    if model.quantized is None:
        return known
    shared = {operator.layer for operator in model.quantized.operators if operator.weight_per_channel is False}
    return tuple(ranges for ranges in known if ranges.layer.name in shared)


def _kernel_read(layer: Layer) -> bool:
    return layer.linear is not None and layer.linear.channel_max is not None


def _with_epsilon(layer: Layer) -> Layer:
    return layer if layer.epsilon is not None else replace(layer, epsilon=USUAL_EPSILON)


def assumed(model: Facts, names: Iterable[str]) -> str:
    """What is assumed where epsilon of one of these layers is not in the files, as a sentence; else ""."""
    wanted = set(names)
    unknown = [layer for layer in model.layers if layer.name in wanted and layer.epsilon is None]
    if not unknown:
        return ""
    what = "TensorFlow's default" if unknown[0].default_epsilon is None else "the largest in common use"
    return f" Epsilon is unknown: {what}, {USUAL_EPSILON:g}, is assumed."
