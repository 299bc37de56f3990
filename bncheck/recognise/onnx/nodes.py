"""A node of an ONNX model and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_OWN_DOMAINS = ("", "ai.onnx")
_EPSILON = 1e-5
"""BatchNormalization's default."""
_TRAINING_MODE_SINCE = 14
"""Version of the operator set that has the attribute; before, more than one output means train mode."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OnnxNode:
    """A node with the names of its values in the whole model."""

    op_type: str
    domain: str
    """"" for ONNX' own operators."""
    name: str
    input: tuple[str, ...]
    output: tuple[str, ...]
    attribute: Sequence[Any]
    """AttributeProto, as stored."""
    given: Mapping[str, Any]
    """Attributes of the function's call that stored ones may refer to."""
    version: int
    """Of the operator set of its domain."""

    @property
    def label(self) -> str:
        """Its name, else that of what it gives; "" where a damaged node has neither."""
        return self.name or next(iter(self.output), "")

    @property
    def attributes(self) -> dict[str, Any]:
        """Name -> AttributeProto that holds the value; those that refer to an attribute not given have none."""
        found: dict[str, Any] = {}
        for attribute in self.attribute:
            held = self.given.get(attribute.ref_attr_name) if attribute.ref_attr_name else attribute
            if held is not None:
                found[attribute.name] = held
        return found


def integer(node: OnnxNode, name: str, default: int) -> int:
    """Value of an integer attribute."""
    told = node.attributes.get(name)
    return default if told is None else int(told.i)


def number(node: OnnxNode, name: str, default: float) -> float:
    """Value of a float attribute, as the float32 that it is."""
    told = node.attributes.get(name)
    return default if told is None else float(np.float32(told.f))


def transposition(node: OnnxNode, rank: int) -> tuple[int, ...] | None:
    """Order of axes that a Transpose of something of this rank gives; None where it does not fit."""
    told = node.attributes.get("perm")
    order = tuple(told.ints) if told is not None else tuple(reversed(range(rank)))
    return order if sorted(order) == list(range(rank)) else None


def versions_of(declaring: Any) -> dict[str, int]:
    """Domain -> version of the operator set that a model or function declares."""
    found: dict[str, int] = {}
    for opset in declaring.opset_import:
        domain = "" if opset.domain in _OWN_DOMAINS else opset.domain
        found[domain] = max(opset.version, found.get(domain, 1))
    return found


def is_batch_norm(node: Any) -> bool:
    """Whether it is ONNX' own BatchNormalization."""
    return node.op_type == "BatchNormalization" and node.domain in _OWN_DOMAINS


def in_train_mode(node: OnnxNode) -> bool:
    """Whether a BatchNormalization normalises with the statistics of the batch."""
    if node.version < _TRAINING_MODE_SINCE:
        return sum(map(bool, node.output)) > 1
    return integer(node, "training_mode", 0) != 0


def epsilon_of(node: OnnxNode) -> float:
    """Epsilon of a BatchNormalization."""
    return number(node, "epsilon", _EPSILON)
