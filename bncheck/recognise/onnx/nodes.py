"""What an ONNX graph holds fixed, the values of its constants, and what its nodes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bncheck.sources.onnx.onnx import raw_tensor
from bncheck.sources.raw import RawModel, RawTensor

_OWN_DOMAINS = ("", "ai.onnx")
_EPSILON = 1e-5
"""BatchNormalization's default."""
_TRAINING_MODE_SINCE = 14
"""Version of the operator set that has the attribute; before, more than one output means train mode."""


def stored_constants(raw: RawModel) -> dict[str, RawTensor]:
    """Every name whose value the file holds: initialisers, Constant nodes, and what only passes these on."""
    model = raw.onnx
    assert model is not None
    found = dict(raw.tensors)
    for node in model.graph.node:
        if node.op_type == "Constant" and len(node.output) == 1:
            for attribute in node.attribute:
                if attribute.name == "value":
                    found[node.output[0]] = raw_tensor(raw.path, attribute.t, {})
        elif node.op_type == "Identity" and len(node.input) == 1 and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def attributes(node: Any) -> Mapping[str, Any]:
    """Name -> AttributeProto."""
    return {attribute.name: attribute for attribute in node.attribute}


def integer(node: Any, name: str, default: int) -> int:
    """Value of an integer attribute."""
    told = attributes(node).get(name)
    return default if told is None else int(told.i)


def number(node: Any, name: str, default: float) -> float:
    """Value of a float attribute, as the float32 that it is."""
    told = attributes(node).get(name)
    return default if told is None else float(np.float32(told.f))


def transposition(node: Any, rank: int) -> tuple[int, ...] | None:
    """Order of axes that a Transpose of something of this rank gives; None where it does not fit."""
    told = attributes(node).get("perm")
    order = tuple(told.ints) if told is not None else tuple(reversed(range(rank)))
    return order if sorted(order) == list(range(rank)) else None


def version_of(model: Any) -> int:
    """Version of ONNX' own operator set that the model uses."""
    return max((opset.version for opset in model.opset_import if opset.domain in _OWN_DOMAINS), default=1)


def is_batch_norm(node: Any) -> bool:
    """Whether it is ONNX' own BatchNormalization."""
    return node.op_type == "BatchNormalization" and node.domain in _OWN_DOMAINS


def in_train_mode(node: Any, version: int) -> bool:
    """Whether a BatchNormalization normalises with the statistics of the batch."""
    if version < _TRAINING_MODE_SINCE:
        return sum(map(bool, node.output)) > 1
    return integer(node, "training_mode", 0) != 0


def epsilon_of(node: Any) -> float:
    """Epsilon of a BatchNormalization."""
    return number(node, "epsilon", _EPSILON)
