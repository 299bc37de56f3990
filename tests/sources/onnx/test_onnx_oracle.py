"""ONNX models against the library of that name: weights of every type, in raw bytes, in fields and in files beside."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bncheck.sources import open_model

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytestmark = pytest.mark.torch

TYPES = ("f4", "f8", "f2", "i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", "?")
MODELS = 200


def drawn(draw: random.Random, values: np.random.Generator) -> Any:
    """A model of one Identity, with some initialisers in one of the two ways."""
    tensors = []
    for number in range(draw.randrange(1, 8)):
        shape = [draw.randrange(1, 5) for _ in range(draw.randrange(4))]
        array = np.asarray(values.normal(0, 50, shape)).astype(draw.choice(TYPES))
        if draw.random() < 0.5:
            tensors.append(onnx.numpy_helper.from_array(array, f"w{number}"))
        else:
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            tensors.append(onnx.helper.make_tensor(f"w{number}", kind, shape, array.reshape(-1).tolist()))
    put = onnx.helper.make_tensor_value_info("x", 1, [1])
    got = onnx.helper.make_tensor_value_info("y", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [put], [got], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def test_equal_to_the_library(tmp_path: Path) -> None:
    """Names, types, shapes and values of drawn models, half of them with weights beside."""
    draw, values = random.Random(0), np.random.default_rng(0)  # noqa: S311 - reproducible, not secret
    path = tmp_path / "m.onnx"
    for number in range(MODELS):
        model = drawn(draw, values)
        (tmp_path / "beside").unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=number % 2 == 0, location="beside", size_threshold=0)
        wanted = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
        found = open_model(path).tensors
        assert sorted(found) == sorted(wanted)
        for name, array in wanted.items():
            read = found[name].read()
            assert (read.dtype, read.shape) == (array.dtype, array.shape), name
            np.testing.assert_array_equal(read, array)
