"""Shapes of an ONNX graph's values, and how kernels move over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_writer import constant, model, statistics, written

from bncheck.recognise.onnx.values import OnnxWiring
from bncheck.recognise.predicted.onnx_shapes import Shape, shape_behind, windows_of
from bncheck.sources import open_model

MAP: Shape = (None, 4, 9, 7)


def wiring(path: Path, op_type: str, *held: Any, **attributes: Any) -> OnnxWiring:
    """A model whose last node reads "m" and these constants."""
    made = model({"a": statistics()})
    names = [f"held_{n}" for n in range(len(held))]
    for name, value in zip(names, held, strict=True):
        constant(made.graph, name, np.asarray(value))
    node = made.graph.node.add(op_type=op_type, input=["m", *names], output=["z"])
    for name, value in attributes.items():
        kind = {tuple: "ints", bytes: "s", int: "i"}[type(value)]
        node.attribute.add(**{"name": name, kind: value})
    return OnnxWiring.of(open_model(written(path / "m.onnx", made)))


KERNEL = np.ones((6, 4, 3, 3))


@pytest.mark.parametrize(
    ("node", "attributes", "expected"),
    [
        (("Relu",), {}, MAP),
        (("Mul", np.ones((4, 1, 1))), {}, MAP),
        (("Expand",), {}, None),
        (("Conv", KERNEL), {}, (None, 6, 7, 5)),
        (("Conv", KERNEL), {"pads": (1, 1, 1, 1), "strides": (2, 2)}, (None, 6, 5, 4)),
        (("Conv", KERNEL), {"auto_pad": b"SAME_UPPER", "strides": (2, 2)}, (None, 6, 5, 4)),
        (("Conv", KERNEL), {"dilations": (2, 2)}, (None, 6, 5, 3)),
        (("Conv", KERNEL), {"pads": (-1, 0, 0, 0)}, None),
        (("MaxPool",), {"kernel_shape": (3, 3), "strides": (2, 2)}, (None, 4, 4, 3)),
        (("MaxPool",), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}, (None, 4, None, None)),
        (("GlobalAveragePool",), {}, (None, 4, 1, 1)),
        (("ReduceMean",), {"axes": (2, 3), "keepdims": 0}, (None, 4)),
        (("ReduceMean", [-1.0, -2.0]), {}, (None, 4, 1, 1)),
        (("Transpose",), {"perm": (0, 2, 3, 1)}, (None, 9, 7, 4)),
        (("Pad", [0, 0, 1, 2, 0, 0, 3, 4]), {}, (None, 4, 13, 13)),
        (("Pad", [0, 0, 1, 2, 0, 0, 3, 4]), {"mode": b"reflect"}, None),
        (("Flatten",), {}, (None, 252)),
        (("Reshape", [0, -1]), {}, None),
        (("Resize",), {}, None),
    ],
)
def test_shapes(tmp_path: Path, node: tuple[Any, ...], attributes: dict[str, Any], expected: Shape | None) -> None:
    """Of each op's output."""
    made = wiring(tmp_path, *node, **attributes)
    assert shape_behind(made, made.nodes[-1], {"m": MAP}) == expected


def test_a_gate_has_the_shape_of_what_it_gates(tmp_path: Path) -> None:
    """Whichever comes first; of an unknown one nothing is known."""
    made = model({"a": statistics()})
    node = made.graph.node.add(op_type="Mul", input=["gate", "m"], output=["z"])
    found = OnnxWiring.of(open_model(written(tmp_path / "m.onnx", made)))
    assert node.op_type == found.nodes[-1].op_type
    assert shape_behind(found, found.nodes[-1], {"m": MAP, "gate": (None, 4, 1, 1)}) == MAP
    assert shape_behind(found, found.nodes[-1], {"m": MAP}) is None


def test_zeros_of_a_pad_are_the_kernels_own(tmp_path: Path) -> None:
    """So that its taps are known to meet them."""
    made = model({"a": statistics()})
    constant(made.graph, "zeros", np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    constant(made.graph, "kernel", KERNEL)
    made.graph.node.add(op_type="Pad", input=["m", "zeros"], output=["padded"])
    made.graph.node.add(op_type="Conv", input=["padded", "kernel"], output=["z"])
    found = OnnxWiring.of(open_model(written(tmp_path / "m.onnx", made)))
    windows = windows_of(found, found.nodes[-1], {"m": MAP, "padded": (None, 4, 11, 9)}, (3, 3))
    assert windows is not None
    assert [(window.size, window.zeros, window.output) for window in windows] == [(9, (1, 1), 9), (7, (1, 1), 7)]


def test_kernels_of_one_tap_need_no_size(tmp_path: Path) -> None:
    """Others do."""
    made = wiring(tmp_path, "Conv", KERNEL)
    assert windows_of(made, made.nodes[-1], {}, (1, 1)) is not None
    assert windows_of(made, made.nodes[-1], {}, (3, 3)) is None
    assert (
        windows_of(made, made.nodes[-1], {"m": (None, 4, 1 << 40, 7)}, (3, 3)) is None
    )  # too large to be gone through
