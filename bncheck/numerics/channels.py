"""What several rules ask of a layer's statistics: did they move, are its channels alive, how much is initial value."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from bncheck.facts.layers import Facts, Layer, Origin, PerChannel, Vector
from bncheck.numerics.side_by_side import SideBySide

DEAD_VARIANCE = 1e-5
"""The smallest epsilon that fused kernels take (FAILURE_MODES, E02): such a channel's divisor is mostly epsilon."""
DEAD_RELATIVE = 1e-3
"""Against the layer's largest variance: a layer whose inputs are all small is not dead; a guess."""
DEAD_ALONE = 1e-12
"""Below this a channel is dead even if all its neighbours are: a standard deviation of one millionth;
a guess."""
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""Key that every checkpoint of TF2's own has, also inside a SavedModel."""


def names(layers: Iterable[Layer]) -> tuple[str, ...]:
    """Names of the layers, in their order."""
    return tuple(layer.name for layer in layers)


def keras_made(model: Facts) -> bool:
    """Whether the layers come from Keras or TF2 rather than from a TF1 graph: the remedies are written differently."""
    if OBJECT_GRAPH in (model.run.keys or ()):
        return True
    return bool(model.layers) and model.layers[0].origin in (Origin.CONFIG, Origin.OBJECT_GRAPH)


def lowest_finite(vector: Vector) -> float:
    """The lowest finite value; 0 where none is lower, or none was read."""
    low, high = vector.bounds or (0.0, 0.0)
    if math.isfinite(low) and math.isfinite(high):
        return low if low < 0 else 0.0
    values = values_of(vector)
    return 0.0 if values is None else float(np.min(finite(values), initial=0.0))


def finite(values: PerChannel) -> PerChannel:
    """The entries that are neither NaN nor infinite."""
    return values[np.isfinite(values)]


def median(values: PerChannel) -> float:
    """As np.median of at least one value, which for its check of NaN imports numpy.ma, 15 ms of each start."""
    ordered = np.sort(values, axis=None)
    middle = ordered.size // 2
    if np.isnan(ordered[-1]):
        return float(ordered[-1])
    low, high = float(ordered[middle - 1 + ordered.size % 2]), float(ordered[middle])
    return low if low == high else 0.5 * low + 0.5 * high


def medians_of_rows(values: NDArray[np.float64]) -> PerChannel:
    """`median` of each row of (rows, columns)."""
    ordered = np.sort(values, axis=1)
    last = ordered.shape[1] - 1
    low, high = ordered[:, last // 2], ordered[:, (last + 1) // 2]
    found: PerChannel = np.where(low == high, low, 0.5 * low + 0.5 * high)
    return np.where(np.isnan(ordered[:, -1]), np.nan, found)


def quantile(values: PerChannel, share: float) -> float:
    """As np.quantile, linear between neighbours, of at least one number; see `median`."""
    ordered = np.sort(values, axis=None)
    place = share * (ordered.size - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, ordered.size - 1)])
    return low + (place - below) * (high - low) if high > low else low


def values_of(vector: Vector) -> PerChannel | None:
    """Values at hand and not empty, else None."""
    return None if vector.values is None or vector.values.size == 0 else vector.values


def never_moved(layer: Layer) -> bool | None:
    """Whether both moving mean and variance are bit-exactly initial; None where one could not be decided."""
    moved = [vector.moved for vector in layer.statistics]
    if any(moved):
        return False
    return None if None in moved else True


def trained(layer: Layer) -> bool | None:
    """Whether gradients changed the layer, as its beta tells, else its gamma; None where neither can be judged.

    Beta first: some codes start gamma at random numbers (DCGAN), which reads as moved before the first step.
    """
    return layer.gamma.moved if layer.beta.moved is None else layer.beta.moved


def dead(variance: PerChannel, epsilon: float | None) -> NDArray[np.bool_]:
    """Which channels no longer carry a signal: variance below epsilon, 1e-5, and a thousandth of the layer's largest.

    Calibrated on real models: MobileNetV1 VWW 1558 of 2736 channels, NSFWJS MobileNetV2 505 of 17056, mini-XCEPTION 2
    of 736, Chiron 20 of 2560, and none of EEGNet's 9 channels that are below epsilon and carry signal.
    """
    if variance.size == 0:
        return np.zeros(variance.shape, bool)
    return dead_in(variance.reshape(-1), [epsilon], SideBySide([variance.size])).reshape(variance.shape)


def dead_in(variance: PerChannel, epsilons: Sequence[float | None], side: SideBySide) -> NDArray[np.bool_]:
    """`dead` of layers whose channels lie side by side, with the epsilon of each."""
    limits = side.spread(DEAD_VARIANCE if one is None else min(one, DEAD_VARIANCE) for one in epsilons)
    largest = side.spread(side.largest(np.where(np.isfinite(variance), variance, -np.inf)))
    with np.errstate(invalid="ignore"):
        quiet = (variance >= 0) & (variance < limits)
        lowest: NDArray[np.bool_] = quiet & ((variance < DEAD_RELATIVE * largest) | (variance < DEAD_ALONE))
    return lowest


def dead_channels(layer: Layer) -> NDArray[np.bool_]:
    """`dead` of a layer's channels; none where the variance was not read or never moved, which is another fault."""
    variance = values_of(layer.variance)
    bounds = layer.variance.bounds
    if variance is None or bounds is None or bounds[0] >= DEAD_VARIANCE or layer.variance.moved is False:
        return np.zeros(0 if variance is None else variance.shape, bool)
    return dead(variance, layer.epsilon)
