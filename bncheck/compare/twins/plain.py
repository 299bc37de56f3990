"""Which Keras layers are batch norm of another kind, whose train mode the twins do not write."""

from __future__ import annotations

from collections.abc import Iterable

from bncheck.facts.errors import BncheckError
from bncheck.facts.layers import Layer


def refuse_other_kinds(layers: Iterable[Layer]) -> None:
    """Raises BncheckError for the first layer that is no plain batch norm: its modes would be those of another kind."""
    for layer in layers:
        other = _other_kind(layer)
        if other:
            raise BncheckError(
                f"{layer.name} {other}, and its train mode is another than that of plain batch norm, which is all that "
                "bncheck runs: its modes are not compared"
            )


def _other_kind(layer: Layer) -> str:
    """What sets the layer apart, as the rest of a sentence; empty where nothing does."""
    axis = layer.config.get("axis")
    if layer.config.get("renorm"):
        return "is batch renormalisation (renorm=True)"
    if layer.config.get("virtual_batch_size"):
        return f"takes its moments over parts of the batch (virtual_batch_size={layer.config['virtual_batch_size']})"
    if isinstance(axis, (list, tuple)) and len(axis) > 1:
        return f"keeps several axes (axis={list(axis)})"
    return ""
