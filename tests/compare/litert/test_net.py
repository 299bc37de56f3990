"""A TFLite graph as wiring: kernels and biases of every linear operator, in real numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bncheck.compare.litert.interpreter import read_file
from bncheck.compare.litert.net import Net

pytestmark = pytest.mark.tensorflow


def test_kernels_of_three_dimensional_convolutions(tf: Any) -> None:
    """CONV_3D_TRANSPOSE has its channels before its inputs, CONV_3D behind them; both with all their weights."""
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((4, 4, 4, 3)),
            layers.Conv3DTranspose(6, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv3D(5, 2),
        ]
    )
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    graph = Net.of(read_file(tf.lite.TFLiteConverter.from_keras_model(model).convert(), "float.tflite").graph)
    kernels = {op.kind: kernel for op in graph.graph.operators if (kernel := graph.kernel(op)) is not None}
    assert list(kernels) == ["CONV_3D_TRANSPOSE", "CONV_3D"]
    for kind, layer, axis in (("CONV_3D_TRANSPOSE", 0, 3), ("CONV_3D", -1, 4)):
        wanted = np.moveaxis(model.layers[layer].kernel.numpy(), axis, 0)
        np.testing.assert_allclose(kernels[kind], wanted.reshape(len(wanted), -1), rtol=1e-6)
