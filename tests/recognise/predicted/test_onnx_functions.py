"""Elementwise functions of ONNX, against their definitions in the operators' documentation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onnx_writer import constant, model, statistics, written

from bncheck.recognise.onnx.values import OnnxWiring
from bncheck.recognise.predicted.onnx_functions import function_of
from bncheck.sources import open_model

X = np.linspace(-7, 7, 57).reshape(-1, 1)
SELU = 1.0507009873554805


def function(path: Any, op_type: str, held: tuple[float, ...] = (), **attributes: float) -> Any:
    """Of a node with these constants and attributes."""
    made = model({"a": statistics()})
    names = [f"held_{n}" for n in range(len(held))]
    for name, value in zip(names, held, strict=True):
        constant(made.graph, name, np.array(value))
    node = made.graph.node.add(op_type=op_type, input=["y", *names], output=["z"])
    for name, value in attributes.items():
        node.attribute.add(name=name, f=value)
    wiring = OnnxWiring.of(open_model(written(path / "m.onnx", made)))
    return function_of(wiring, wiring.nodes[-1], lambda name: np.ravel(wiring.numbers(name).values))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (("Relu",), np.maximum(X, 0)),
        (("Clip", (-1.0, 2.0)), np.clip(X, -1, 2)),
        (("Clip", (0.0,)), np.maximum(X, 0)),
        (("PRelu", (0.25,)), np.where(X > 0, X, X / 4)),
        (("HardSwish",), X * np.clip(X / 6 + 0.5, 0, 1)),
        (("HardSigmoid",), np.clip(0.2 * X + 0.5, 0, 1)),
        (("LeakyRelu",), np.where(X > 0, X, 0.01 * X)),
        (("Elu",), np.where(X > 0, X, np.exp(X) - 1)),
        (("Selu",), SELU * np.where(X > 0, X, 1.6732632423543772 * (np.exp(X) - 1))),
        (("Gelu",), 0.5 * X * (1 + np.vectorize(math.erf)(X / math.sqrt(2)))),
        (("Mish",), X * np.tanh(np.log1p(np.exp(X)))),
    ],
)
def test_functions(tmp_path: Any, node: tuple[Any, ...], expected: np.ndarray) -> None:
    """With their defaults."""
    np.testing.assert_allclose(function(tmp_path, *node)(X), expected, atol=1e-6)


def test_attributes(tmp_path: Any) -> None:
    """As the node tells them; ends of Clip were attributes before version 11."""
    np.testing.assert_allclose(function(tmp_path, "Clip", min=-1.0, max=2.0)(X), np.clip(X, -1, 2))
    np.testing.assert_allclose(function(tmp_path, "HardSigmoid", alpha=1 / 6)(X), np.clip(X / 6 + 0.5, 0, 1), atol=1e-6)


@pytest.mark.parametrize("node", [("Elu", (), 0.5), ("Selu", (), 2.0), ("Softmax", (), None), ("Sin", (), None)])
def test_others_are_not_known(tmp_path: Any, node: tuple[Any, ...]) -> None:
    """Nor are unusual parameters of some."""
    op_type, held, alpha = node
    assert function(tmp_path, op_type, held, **({} if alpha is None else {"alpha": alpha})) is None
