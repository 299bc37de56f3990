"""Which layers go wrong by themselves between two modes, and which only inherit it."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncheck.facts.measurements import Comparison, LayerDifference


DIVERGES = 0.01
"""Local NMSE of a layer that goes wrong: 3 times the worst of a healthy MobileNetV2 0.35 on 352 digits, a third of the
mildest damage to it that was measured, one variance scaled by 1.5."""
PER_IMAGE = 3.0
"""Over the number of images, the same for little data: twice the 1.5 over it that batch noise makes where all pixels of
one image are alike (METRICS, noise floor, with one value an image)."""
TIMES_CHANCE = 3.0
"""Over what chance makes of the moments of all batches together; a guess."""
INHERITS = 10.0
"""Times the limit, cumulative, from which a layer behind the first bad one is said to inherit; a guess."""


def each_layer(comparison: Comparison) -> list[LayerDifference]:
    """Every layer once, in forward order of their first places; one that is shared with all its places together."""
    together = {layer.layer: layer for layer in comparison.shared}
    first: dict[str, LayerDifference] = {}
    for place in comparison.layers:
        first.setdefault(place.layer, together.get(place.layer, place))
    return list(first.values())


def divergence_limit(comparison: Comparison) -> float:
    """Local NMSE that neither health nor batch noise explains."""
    return max(DIVERGES, PER_IMAGE / max(comparison.data.samples, 1))


def layer_limit(comparison: Comparison, layer: LayerDifference) -> float:
    """The same for one layer: what its batches differ by among themselves, taken together, is no divergence either."""
    chance = layer.local_floor / max(comparison.data.batches, 1)
    return max(divergence_limit(comparison), TIMES_CHANCE * chance if math.isfinite(chance) else 0.0)


def diverging(comparison: Comparison) -> list[LayerDifference]:
    """Layers whose own loss is above the limit or not a number, in forward order."""
    return [layer for layer in each_layer(comparison) if not layer.local_nmse <= layer_limit(comparison, layer)]


def inheriting(comparison: Comparison, wrong: Collection[str]) -> list[LayerDifference]:
    """Layers behind the first of `wrong`, names of those that go wrong themselves, to which as much of it arrives."""
    limit, layers = INHERITS * divergence_limit(comparison), each_layer(comparison)
    first = next((place for place, layer in enumerate(layers) if layer.layer in wrong), len(layers))
    return [layer for layer in layers[first:] if layer.layer not in wrong and not layer.cumulative_nmse <= limit]
