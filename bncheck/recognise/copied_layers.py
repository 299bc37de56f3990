"""Layers whose gamma and beta are written from those of another: target networks, averages of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bncheck.facts.copies import Copied
from bncheck.facts.layers import Layer

if TYPE_CHECKING:
    from bncheck.recognise.graph.group_sites import FoundLayer
    from bncheck.recognise.graph.updates import Writes


def with_copies(writes: Writes, found: Sequence[FoundLayer], layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """`layers`, which are `found` in the same order, with what each is a copy of."""
    number = {v: n for n, layer in enumerate(found) for v in (layer.gamma, layer.beta) if v is not None}
    result = list(layers)
    for own, layer in enumerate(found):
        copies = [writes.copies[v] for v in (layer.gamma, layer.beta) if v in writes.copies]
        sources = {number.get(source, own) for source, _ in copies} - {own}
        if len(sources) == 1:
            source = layers[sources.pop()].name
            statistics = {layer.mean, layer.variance} <= set(writes.copies)
            averaged = any(mixed for _, mixed in copies)
            result[own] = replace(layers[own], copied=Copied(source=source, averaged=averaged, statistics=statistics))
    return tuple(result)
