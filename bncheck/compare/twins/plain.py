"""Which layers are batch norm of another kind, whose train mode the twins do not write."""

from __future__ import annotations

from collections.abc import Iterable

from bncheck.facts.errors import NotJudged
from bncheck.facts.layers import Layer
from bncheck.facts.norm_kinds import NormKind


def refuse_other_kinds(layers: Iterable[Layer]) -> None:
    """Raises NotJudged for the first layer that is no plain batch norm: its modes would be those of another kind."""
    for layer in layers:
        if layer.kind is not NormKind.PLAIN:
            raise NotJudged(f"{layer.name} {layer.kind.value}: compare runs plain batch norm only")
